//! Whole kernel files by path.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::{Error, Result};
use crate::parse;

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::io(path, "read", source))
}

/// The text of a file, or `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    there(read(path))
}

/// Turns [`Error::Gone`] into `None`.
pub(crate) fn there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The one number in a file, or `None` where there is no such file.
pub(crate) fn read_number_if_there(path: &Path) -> Result<Option<u64>> {
    read_if_there(path)?.map(|text| parse::number(&text, path)).transpose()
}

/// Writes in one system call, as kernel files want it. The file must exist.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes()).map_err(|source| Error::io(path, "write", source))
}

/// [`write`] with the bare errno, for callers who give each errno its meaning.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = fs::OpenOptions::new().write(true).open(path)?.write(bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
