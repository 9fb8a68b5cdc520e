//! Lists by stream: all objects, and then what becomes of them, by one request (`sendInitialEvents`).
//!
//! **Problem.** A list in pages has the server put together each page; a stream has it send what its cache holds, object by object.
//! But kube's own asks with `resourceVersion=0`, for whatever the cache once had, which may be older than what was seen already.
//!
//! **Approach.** Asked with an empty `resourceVersion`, which is the most recent state: the server ends the list, by a marked bookmark,
//! once its cache is as new as its store was when it was asked. A server that has no such lists refuses the request as invalid, and
//! one whose store is too old for them (etcd before 3.4.25 and 3.5.8) ends the list with an error; from then on, and where a list did
//! not come whole, lists come in pages, by kube's watcher.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, unfold};
use futures::{Stream, StreamExt as _};
use kube::api::{WatchEvent, WatchParams};
use kube::runtime::watcher::{Config, Error, Event, Result, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{LONGEST, PAGE_SIZE};

/// Marks the bookmark that ends a list.
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// A server that has not ended a watch so long after it should have is gone.
const GRACE: Duration = Duration::from_secs(5);

enum State<K> {
    /// Nothing is known.
    Empty,
    /// The list comes.
    Listing(Events<K>),
    /// All up to this version has come.
    Listed(String),
    /// So it has, and more comes.
    Watching(String, Events<K>),
    /// As kube does it.
    InPages(BoxStream<'static, Result<Event<K>>>),
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// All objects and what becomes of them, for ever. Errors are told, and then it goes on.
pub(super) fn objects<K>(api: Api<K>) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    unfold(State::Empty, move |mut state| {
        let api = api.clone();
        async move {
            loop {
                let (event, next) = step(&api, state).await;
                state = next;
                if let Some(event) = event {
                    return Some((event, state));
                }
            }
        }
    })
}

async fn step<K>(api: &Api<K>, state: State<K>) -> (Option<Result<Event<K>>>, State<K>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    match state {
        State::Empty => match api.watch(&params().initial_events(), "").await {
            Ok(events) => (Some(Ok(Event::Init)), State::Listing(events.boxed())),
            // As servers say that have no such lists; 400 is what some in between say to words that they don't know.
            Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) => (None, in_pages(api)),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Empty),
        },
        State::Listing(mut events) => match next(&mut events).await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                (Some(Ok(Event::InitApply(object))), State::Listing(events))
            }
            Some(Ok(WatchEvent::Bookmark(bookmark)))
                if bookmark.metadata.annotations.contains_key(END_OF_LIST) =>
            {
                (Some(Ok(Event::InitDone)), State::Watching(bookmark.metadata.resource_version, events))
            }
            Some(Ok(WatchEvent::Bookmark(_) | WatchEvent::Deleted(_))) => (None, State::Listing(events)),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Empty),
            ended => {
                let why = match ended {
                    Some(Ok(WatchEvent::Error(status))) => status.message,
                    _ => "it ended early".to_owned(),
                };
                tracing::info!(
                    path = api.resource_url(),
                    why,
                    "a list by stream did not come whole: lists come in pages"
                );
                (None, in_pages(api))
            }
        },
        State::Listed(version) => match api.watch(&params(), &version).await {
            Ok(events) => (None, State::Watching(version, events.boxed())),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Listed(version)),
        },
        State::Watching(version, mut events) => {
            let changed = |object: K, event: fn(K) -> Event<K>, events| match object
                .resource_version()
                .filter(|version| !version.is_empty())
            {
                Some(version) => (Some(Ok(event(object))), State::Watching(version, events)),
                None => (Some(Err(Error::NoResourceVersion)), State::Empty),
            };
            match next(&mut events).await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    changed(object, Event::Apply, events)
                }
                Some(Ok(WatchEvent::Deleted(object))) => changed(object, Event::Delete, events),
                Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                    (None, State::Watching(bookmark.metadata.resource_version, events))
                }
                Some(Ok(WatchEvent::Error(status))) => {
                    // What came since is not there any more.
                    let next = if status.code == 410 { State::Empty } else { State::Listed(version) };
                    (Some(Err(Error::WatchError(status.boxed()))), next)
                }
                Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
                None => (None, State::Listed(version)),
            }
        }
        State::InPages(mut events) => (events.next().await, State::InPages(events)),
    }
}

fn params() -> WatchParams {
    WatchParams { timeout: Some(LONGEST), ..WatchParams::default() }
}

fn in_pages<K>(api: &Api<K>) -> State<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = Config::default().page_size(PAGE_SIZE).timeout(LONGEST);
    State::InPages(watcher(api.clone(), config).boxed())
}

async fn next<K>(events: &mut Events<K>) -> Option<kube::Result<WatchEvent<K>>> {
    tokio::time::timeout(Duration::from_secs(LONGEST.into()) + GRACE, events.next()).await.ok().flatten()
}

#[cfg(test)]
mod tests;
