//! Cgroups of the guest, by path.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{read, write_file};

pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that every cgroup above a leaf hands down.
const CONTROLLERS: [&str; 5] = ["+memory", "+cpuset", "+cpu", "+io", "+pids"];

/// A cgroup directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Creates it with its parents; `path` is like `/pods/a`.
    pub(super) fn create(path: &str) -> Result<Self> {
        let mut dir = PathBuf::from(ROOT);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            enable_controllers(&dir)?;
            dir.push(part);
            if !dir.exists() {
                std::fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
            }
        }
        Ok(Self { path: format!("/{}", path.trim_matches('/')) })
    }

    /// The one that is there, by its directory.
    #[cfg(feature = "cluster")]
    pub(super) fn at(dir: &Path) -> Result<Self> {
        let path = dir.strip_prefix(ROOT).with_context(|| format!("{} is no cgroup", dir.display()))?;
        Ok(Self { path: format!("/{}", path.display()) })
    }

    /// Path below the cgroup root, as in `/proc/PID/cgroup`: `/pods/a`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        Path::new(ROOT).join(self.path.trim_start_matches('/'))
    }

    /// The one it is in; `None` for one directly below the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.path.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self { path: parent.to_owned() })
    }

    /// Reads one of its files, without the last newline.
    pub fn read(&self, file: &str) -> Result<String> {
        Ok(read(self.dir().join(file))?.trim_end().to_owned())
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: impl fmt::Display) -> Result<()> {
        write_file(self.dir().join(file), value.to_string())
    }

    /// Value of a `key value` line: `cgroup.stat("memory.stat", "anon")`.
    pub fn stat(&self, file: &str, key: &str) -> Result<u64> {
        let text = self.read(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let value = value.with_context(|| format!("{}/{file} has no {key}", self.path))?;
        value.parse().with_context(|| format!("{}/{file}: {key} {value}", self.path))
    }

    /// Kills what is in it and removes it.
    pub fn remove(self) -> Result<()> {
        self.write("cgroup.kill", 1)?;
        let dir = self.dir();
        // Killed processes leave the cgroup when they are gone, shortly after.
        for _ in 0..100 {
            if std::fs::remove_dir(&dir).is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::fs::remove_dir(&dir).with_context(|| format!("rmdir {}", dir.display()))
    }
}

/// Hands the controllers down to the children of a directory; one that this kernel lacks is left out.
pub(super) fn enable_controllers(dir: &Path) -> Result<()> {
    let available = read(dir.join("cgroup.controllers"))?;
    for controller in CONTROLLERS {
        if available.split_whitespace().any(|name| name == &controller[1..]) {
            write_file(dir.join("cgroup.subtree_control"), controller)?;
        }
    }
    Ok(())
}
