//! The `NodeTiering` that was last heard of, in a file beside the state file: what an agent starts from while the API server is
//! away.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Its name; the directory is the state file's.
const NAME: &str = "nodetiering.json";

/// The file.
#[derive(Clone, Debug)]
pub struct LastKnown {
    path: PathBuf,
    node: String,
}

impl LastKnown {
    /// The file of a node's agent with this state file.
    #[must_use]
    pub fn beside(state_file: &Path, node: &str) -> Self {
        Self { path: state_file.with_file_name(NAME), node: node.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object; `None` where there is none. One that can't be read, or is another node's, is told of and passed over: it may
    /// be what is left of a disk image.
    #[must_use]
    pub fn load(&self) -> Option<Value> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%path, %error, "what was last assigned can't be read");
                return None;
            }
        };
        let object: Value = match serde_json::from_slice(&text) {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(%path, %error, "what was last assigned can't be understood");
                return None;
            }
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if name != self.node {
            tracing::warn!(%path, name, node = self.node, "what was last assigned is for another node");
            return None;
        }
        Some(object)
    }

    /// Keeps an object, or that there is none. Beside and renamed, so that a crash leaves the old or the new one.
    pub fn store(&self, object: Option<&Value>) -> io::Result<()> {
        let Some(object) = object else {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(object)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_stored_is_loaded_until_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastKnown::beside(&dir.path().join("state"), "n1");
        assert_eq!(file.load(), None);
        for generation in [1, 2] {
            let object = json!({ "metadata": { "name": "n1", "generation": generation } });
            file.store(Some(&object)).unwrap();
            assert_eq!(file.load(), Some(object));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        file.store(None).unwrap();
        file.store(None).unwrap();
        assert_eq!(file.load(), None);
    }

    #[test]
    fn what_is_damaged_or_another_nodes_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastKnown::beside(&dir.path().join("state"), "n1");
        for text in ["", "{", "[]", r#"{"metadata":{"name":"n2"}}"#] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(file.load(), None, "{text}");
        }
    }
}
