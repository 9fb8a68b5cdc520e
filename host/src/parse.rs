//! The text formats that kernel files share, as pure functions.
//!
//! Each takes the file's text and its path; the path is only for errors. Unknown keys are the caller's to ignore.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// A limit as cgroup files spell it: a number of bytes, or `max` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// So many bytes. The kernel rounds down to whole pages.
    Bytes(u64),
    /// No limit.
    Max,
}

impl Limit {
    /// The bytes, or `None` where there is no limit.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Max => None,
        }
    }

    /// From bytes, `None` being no limit.
    #[must_use]
    pub fn from_bytes(bytes: Option<u64>) -> Self {
        bytes.map_or(Self::Max, Self::Bytes)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

/// As a number, or the string `max`.
impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

/// One unsigned number on one line.
pub fn number(text: &str, path: &Path) -> Result<u64> {
    let text = text.trim_end();
    text.parse().map_err(|_| Error::malformed(path, 1, text))
}

/// One number of bytes, or `max`, on one line.
pub fn limit(text: &str, path: &Path) -> Result<Limit> {
    match text.trim_end() {
        "max" => Ok(Limit::Max),
        _ => number(text, path).map(Limit::Bytes),
    }
}

/// A process id per line.
pub fn pids(text: &str, path: &Path) -> Result<Vec<i32>> {
    let pid =
        |(index, line): (usize, &str)| line.parse().map_err(|_| Error::malformed(path, index + 1, line));
    text.lines().enumerate().map(pid).collect()
}

/// Lines of `key value`: `each` gets every pair.
pub fn flat_keyed(text: &str, path: &Path, mut each: impl FnMut(&str, u64)) -> Result<()> {
    for (index, line) in text.lines().enumerate() {
        let pair = line.split_once(' ').and_then(|(key, value)| Some((key, value.parse().ok()?)));
        let Some((key, value)) = pair else { return Err(Error::malformed(path, index + 1, line)) };
        each(key, value);
    }
    Ok(())
}

/// Lines of `key N0=1 N1=2`: `each` gets every key, node and value.
pub fn node_keyed(text: &str, path: &Path, mut each: impl FnMut(&str, (u32, u64))) -> Result<()> {
    for (index, line) in text.lines().enumerate() {
        let malformed = || Error::malformed(path, index + 1, line);
        let (key, values) = line.split_once(' ').ok_or_else(malformed)?;
        for value in values.split(' ').filter(|value| !value.is_empty()) {
            let (node, value) = value
                .strip_prefix('N')
                .and_then(|value| value.split_once('='))
                .and_then(|(node, value)| Some((node.parse().ok()?, value.parse().ok()?)))
                .ok_or_else(malformed)?;
            each(key, (node, value));
        }
    }
    Ok(())
}

/// The most that a kernel numbers processors or nodes to; a list beyond it is not the kernel's.
const MOST_IDS: u32 = 1 << 16;

/// A list of processors or nodes such as `0-3,5`. Empty text is the empty set.
pub fn id_list(text: &str, path: &Path) -> Result<BTreeSet<u32>> {
    let text = text.trim();
    let mut ids = BTreeSet::new();
    if text.is_empty() {
        return Ok(ids);
    }
    let malformed = || Error::malformed(path, 1, text);
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: u32 = first.parse().map_err(|_| malformed())?;
        let last: u32 = last.parse().map_err(|_| malformed())?;
        if first > last || last >= MOST_IDS {
            return Err(malformed());
        }
        ids.extend(first..=last);
    }
    Ok(ids)
}

/// The list that [`id_list`] reads, in its shortest form: `0-3,5`.
#[must_use]
pub fn format_id_list(ids: &BTreeSet<u32>) -> String {
    use fmt::Write as _;

    let mut text = String::new();
    let mut ids = ids.iter().copied().peekable();
    while let Some(first) = ids.next() {
        let mut last = first;
        while let Some(next) = ids.next_if(|next| last.checked_add(1) == Some(*next)) {
            last = next;
        }
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String does not fail.
        let _ = if first == last { write!(text, "{first}") } else { write!(text, "{first}-{last}") };
    }
    text
}

/// The shares of time and the total that tasks stood still for want of a resource: one line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Percent of the last 10 s, 0 to 100.
    pub avg10: f64,
    /// Percent of the last 60 s, 0 to 100.
    pub avg60: f64,
    /// Microseconds since the cgroup was made.
    pub total_us: u64,
}

/// A pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one task stood still.
    pub some: Option<Stall>,
    /// All tasks stood still.
    pub full: Option<Stall>,
}

/// A PSI file: lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
pub fn pressure(text: &str, path: &Path) -> Result<Pressure> {
    let mut pressure = Pressure::default();
    for (index, line) in text.lines().enumerate() {
        let stall = || {
            let (kind, values) = line.split_once(' ')?;
            let mut stall = Stall::default();
            let mut total = None;
            for value in values.split(' ') {
                let (key, value) = value.split_once('=')?;
                match key {
                    "avg10" => stall.avg10 = percent(value)?,
                    "avg60" => stall.avg60 = percent(value)?,
                    "total" => total = Some(value.parse().ok()?),
                    _ => {}
                }
            }
            stall.total_us = total?;
            Some((kind, stall))
        };
        match stall() {
            Some(("some", stall)) => pressure.some = Some(stall),
            Some(("full", stall)) => pressure.full = Some(stall),
            Some(_) => {}
            None => return Err(Error::malformed(path, index + 1, line)),
        }
    }
    Ok(pressure)
}

fn percent(text: &str) -> Option<f64> {
    text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/f";

    fn place(error: &Error) -> usize {
        match error {
            Error::Malformed { path, line, .. } if path == Path::new(PATH) => *line,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_limit_is_bytes_or_max() {
        let parse = |text| limit(text, Path::new(PATH)).ok();
        assert_eq!(parse("max\n"), Some(Limit::Max));
        assert_eq!(parse("4096\n"), Some(Limit::Bytes(4096)));
        assert_eq!(parse("18446744073709551615\n"), Some(Limit::Bytes(u64::MAX)));
        for garbage in ["", "\n", "-1\n", "4k\n", "1 2\n", "max max\n", "18446744073709551616"] {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
        assert!(Limit::Bytes(u64::MAX) < Limit::Max);
        assert_eq!(Limit::Max.to_string(), "max");
    }

    #[test]
    fn id_lists_come_back_as_they_were() {
        let cases: [(&str, &[u32]); 6] = [
            ("", &[]),
            ("0", &[0]),
            ("0-1", &[0, 1]),
            ("0-3,5", &[0, 1, 2, 3, 5]),
            ("1,3,5", &[1, 3, 5]),
            ("8-9,65535", &[8, 9, 65535]),
        ];
        for (text, ids) in cases {
            let ids: BTreeSet<u32> = ids.iter().copied().collect();
            assert_eq!(id_list(text, Path::new(PATH)).unwrap(), ids, "{text:?}");
            assert_eq!(id_list(&format!("{text}\n"), Path::new(PATH)).unwrap(), ids);
            assert_eq!(format_id_list(&ids), text);
        }
        assert_eq!(format_id_list(&[u32::MAX - 1, u32::MAX].into()), "4294967294-4294967295");
        for garbage in [",", "0,", "3-1", "a", "0-", "-1", "0-1-2", "0 1", "0-4294967295", "99999999999"] {
            assert_eq!(place(&id_list(garbage, Path::new(PATH)).unwrap_err()), 1, "{garbage:?}");
        }
    }

    #[test]
    fn every_subset_of_small_ids_survives_formatting() {
        for bits in 0_u32..1 << 12 {
            let ids: BTreeSet<u32> = (0..12).filter(|id| bits >> id & 1 == 1).collect();
            assert_eq!(id_list(&format_id_list(&ids), Path::new(PATH)).unwrap(), ids);
        }
    }

    #[test]
    fn keyed_lines_name_the_line_that_is_wrong() {
        let cases = [("a 1\nb x\n", 2), ("a\n", 1), ("a 1\n\nb 2\n", 2), ("a 1 2\n", 1), ("a -1\n", 1)];
        for (text, line) in cases {
            assert_eq!(place(&flat_keyed(text, Path::new(PATH), |_, _| {}).unwrap_err()), line, "{text:?}");
        }
        let cases =
            [("a N0=1\nb\n", 2), ("a 0=1\n", 1), ("a N0\n", 1), ("a Nx=1\n", 1), ("a N0=1,N1=2\n", 1)];
        for (text, line) in cases {
            assert_eq!(place(&node_keyed(text, Path::new(PATH), |_, _| {}).unwrap_err()), line, "{text:?}");
        }
    }

    #[test]
    fn keyed_lines_come_in_order() {
        let mut seen = Vec::new();
        flat_keyed("a 1\nb 2\n", Path::new(PATH), |key, value| seen.push((key.to_owned(), value))).unwrap();
        assert_eq!(seen, [("a".to_owned(), 1), ("b".to_owned(), 2)]);

        let mut seen = Vec::new();
        node_keyed("a N0=1 N2=3\n", Path::new(PATH), |_, at| seen.push(at)).unwrap();
        assert_eq!(seen, [(0, 1), (2, 3)]);
    }

    #[test]
    fn pressure_has_both_lines_or_one() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = pressure(text, Path::new(PATH)).unwrap();
        assert_eq!(both.some, Some(Stall { avg10: 1.5, avg60: 0.25, total_us: 1234 }));
        assert_eq!(both.full, Some(Stall { total_us: 7, ..Stall::default() }));

        let one = pressure(text.lines().next().unwrap(), Path::new(PATH)).unwrap();
        assert_eq!((one.some, one.full), (both.some, None));
        assert_eq!(pressure("", Path::new(PATH)).unwrap(), Pressure::default());
    }

    #[test]
    fn pressure_that_is_no_share_is_refused() {
        for (text, line) in [
            ("some\n", 1),
            ("some avg10=1.0\n", 1),
            ("some avg10=NaN total=1\n", 1),
            ("some avg10=-1 total=1\n", 1),
            ("some avg10=101 total=1\n", 1),
            ("some avg10=0.00 total=1\nfull avg10 total=1\n", 2),
        ] {
            assert_eq!(place(&pressure(text, Path::new(PATH)).unwrap_err()), line, "{text:?}");
        }
    }
}
