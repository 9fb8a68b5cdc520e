//! What the fuzz targets share. A target gives its input to every parser of its family: seeds are files as they are.

use std::path::Path;

use host::{Error, Result};

/// The path that parsers are given.
pub const PATH: &str = "/a/file";

/// What a parser makes of the text. One that refuses it must name the file and a line that the text has.
pub fn parsed<T>(text: &str, parse: impl FnOnce(&str, &Path) -> Result<T>) -> Option<T> {
    match parse(text, Path::new(PATH)) {
        Ok(value) => Some(value),
        Err(error) => {
            match &error {
                Error::Malformed { path, line, .. } => {
                    // Lines of another reader may end differently, but no reader sees more than there are newlines.
                    let lines = text.matches('\n').count() + 1;
                    assert!(path == Path::new(PATH) && (1..=lines).contains(line), "{error}");
                }
                other => panic!("a text is malformed or not, and not {other}"),
            }
            assert!(error.to_string().starts_with(PATH));
            None
        }
    }
}

/// A directory of the target's own, in memory where the host has such a place.
#[must_use]
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
