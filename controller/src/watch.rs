//! Watches: what changes on the API server, as [`Change`]s in order, for ever.
//!
//! A list comes by stream, or in pages where the server has none, and is passed on object by object, so that no more than a page is
//! held. A watch that ends goes on where it was; one that is too old (410 Gone) lists again. Errors back off. A malformed object is
//! one [`Change::Malformed`].
//!
//! Lists ask for the most recent state: a list of what a cache once had can go back in time, and older servers ignore its page size.

pub mod objects;
mod stream;

use std::fmt::Debug;
use std::time::Instant;

use futures::{StreamExt as _, pin_mut};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use objects::{Guarded, Kind, Malformed, Object};

/// Objects in one answer to a list.
pub const PAGE_SIZE: u32 = 500;

/// The server ends a watch after so many seconds, and it goes on where it was.
pub const LONGEST: u32 = 120;

/// One thing that a watch says.
#[derive(Clone, Debug)]
pub enum Change {
    /// All objects come again, by [`Self::Applied`], until [`Self::Listed`].
    Listing,
    /// An object came, changed, or is in the list.
    Applied(Box<Object>),
    /// An object is gone.
    Gone {
        /// Its namespace; empty for kinds without.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// All objects have come: what did not is gone.
    Listed,
    /// An object is there but can't be read.
    Malformed(Malformed),
    /// The watch or the list failed; it goes on by itself.
    Failed(String),
}

/// What a watch of objects of a kind says, and when.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// What.
    pub change: Change,
    /// When it came.
    pub at: Instant,
}

/// Watches all objects of a kind, until nobody listens.
pub async fn watch<K, E>(client: Client, kind: Kind, events: mpsc::Sender<E>)
where
    K: Resource<DynamicType = ()> + Into<Object> + Clone + Debug + DeserializeOwned + Send + 'static,
    E: From<Watched>,
{
    let all: Api<Guarded<K>> = Api::all(client);
    let stream = stream::objects(all).default_backoff();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let watched = Watched { kind, change: change(event), at: Instant::now() };
        if events.send(watched.into()).await.is_err() {
            return;
        }
    }
}

fn change<K>(event: Result<Event<Guarded<K>>, watcher::Error>) -> Change
where
    K: Resource<DynamicType = ()> + Into<Object>,
{
    match event {
        Ok(Event::Init) => Change::Listing,
        Ok(Event::InitDone) => Change::Listed,
        Ok(Event::Apply(Guarded(object)) | Event::InitApply(Guarded(object))) => match object {
            Ok(object) => Change::Applied(Box::new(object.into())),
            Err(malformed) => Change::Malformed(malformed),
        },
        Ok(Event::Delete(object)) => {
            let metadata = object.meta();
            Change::Gone {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone().unwrap_or_default(),
            }
        }
        Err(error) => Change::Failed(with_causes(&error)),
    }
}

/// An error with all that is behind it: what `kube` says of a broken connection is in the causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
