//! The running agent answers on a Unix socket beside its state file: whoever connects is sent its picture as JSON.
//!
//! No request is read, so that nobody can ask for more than that. Only root may connect.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::history::{Done, History};
use crate::snapshot::{Published, Snapshot};

/// Who does not read or write for so long is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is sent.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    last_hour: BTreeMap<String, Done>,
}

/// Where the agent that keeps its state there answers.
#[must_use]
pub fn path_beside(state_file: &Path) -> PathBuf {
    state_file.with_file_name("agent.sock")
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Answers from what is published from now on, on a thread of its own. The caller holds the state file's lock, so a file that
    /// is there is left over.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn open(state_file: &Path, published: Published, history: Arc<Mutex<History>>) -> io::Result<Self> {
        let path = path_beside(state_file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        thread::Builder::new().name("socket".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who went away meanwhile needs no answer.
                let _ = answer(&stream, &published, &history);
            }
        })?;
        Ok(Self { path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

fn answer(mut stream: &UnixStream, published: &Published, history: &Mutex<History>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let snapshot = published.latest();
    let last_hour = history.lock().unwrap_or_else(PoisonError::into_inner).last_hour(&snapshot);
    let text = serde_json::to_vec(&Answer { snapshot: &snapshot, last_hour })?;
    stream.write_all(&text)
}

/// What the agent that keeps its state there sends; `None` where none runs.
///
/// # Errors
/// There is one, and it does not answer.
pub fn ask(state_file: &Path) -> io::Result<Option<String>> {
    let mut stream = match UnixStream::connect(path_beside(state_file)) {
        Ok(stream) => stream,
        // Not there, or left behind by one that was killed.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn whoever_connects_is_sent_the_picture_and_where_nobody_listens_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(ask(&state).unwrap(), None);
        let published = Published::default();
        published.publish(fixture::full());
        let socket = Socket::open(&state, published, Arc::default()).unwrap();
        let mode = fs::metadata(path_beside(&state)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = ask(&state).unwrap().unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["rounds"], 42);
        assert_eq!(told["last_hour"]["pods/batch"]["demoted_bytes"], 600 << 20);
        drop(socket);
        assert_eq!(ask(&state).unwrap(), None);
    }

    #[test]
    fn a_socket_left_by_one_that_was_killed_is_no_agent_and_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        drop(UnixListener::bind(path_beside(&state)).unwrap());
        assert_eq!(ask(&state).unwrap(), None);
        Socket::open(&state, Published::default(), Arc::default()).unwrap();
    }
}
