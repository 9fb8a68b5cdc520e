//! What of a host was touched: files of cgroups, and settings that an agent may change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::inotify;

use super::{BALANCING, DAMON_STAT, DEMOTION, LRU_GEN, NR_KDAMONDS};
use crate::guest::read;

const CGROUPS: &str = "/sys/fs/cgroup";
const SETTINGS: [&str; 5] = [DEMOTION, BALANCING, LRU_GEN, NR_KDAMONDS, DAMON_STAT];

/// Settings of the whole host that an agent may change.
pub(super) fn settings() -> Result<BTreeMap<PathBuf, String>> {
    let exists = SETTINGS.iter().map(PathBuf::from).filter(|path| path.exists());
    exists.map(|path| Ok((path.clone(), read(path)?))).collect()
}

/// What can be read of all files of all cgroups that can be written and do not change on their own.
pub(super) fn writable_files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for directory in directories()? {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let moves = ["procs", "threads", "pressure", "peak"].iter().any(|end| name.ends_with(end));
            let mode = entry.metadata()?.permissions().mode();
            if entry.file_type()?.is_file() && mode & 0o200 != 0 && mode & 0o400 != 0 && !moves {
                // Some can't be read in every state.
                let content = std::fs::read_to_string(entry.path()).unwrap_or_else(|error| error.to_string());
                files.insert(entry.path(), content);
            }
        }
    }
    Ok(files)
}

pub(super) fn changes(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> Vec<String> {
    before
        .iter()
        .filter_map(|(path, value)| {
            let now = after.get(path)?;
            (now != value).then(|| format!("{} {:?} -> {:?}", path.display(), value.trim(), now.trim()))
        })
        .collect()
}

fn directories() -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(CGROUPS)];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Sees writes to any file of any cgroup.
pub(super) struct Watch {
    inotify: OwnedFd,
    directories: BTreeMap<i32, PathBuf>,
}

impl Watch {
    pub(super) fn new() -> Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let mut directories = BTreeMap::new();
        for directory in self::directories()? {
            let descriptor = inotify::add_watch(&inotify, &directory, inotify::WatchFlags::MODIFY)?;
            directories.insert(descriptor, directory);
        }
        Ok(Self { inotify, directories })
    }

    /// Files written since the last call. The kernel's own notices are of files that nobody can write. The scenario
    /// itself puts the agent in its cgroup and enables controllers of the root, which are compared by content.
    pub(super) fn written(&self) -> Result<Vec<String>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut written = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(written),
                Err(error) => return Err(error).context("inotify"),
            };
            let directory = self.directories.get(&event.wd()).map_or(Path::new("?"), PathBuf::as_path);
            let name = event
                .file_name()
                .map(|name| OsString::from(name.to_string_lossy().into_owned()))
                .unwrap_or_default();
            let path = directory.join(name);
            let writable =
                std::fs::metadata(&path).map_or(true, |meta| meta.permissions().mode() & 0o200 != 0);
            let own =
                ["agent/cgroup.procs", "cgroup.subtree_control"].map(|file| Path::new(CGROUPS).join(file));
            if writable && !own.contains(&path) {
                written.push(path.display().to_string());
            }
        }
    }
}
