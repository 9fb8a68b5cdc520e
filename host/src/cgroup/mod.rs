//! Control groups (cgroup2): who they are, what their files say, and the two files that are written.
//!
//! A cgroup is its inode and an open directory, not its path: a path that is removed and made again names another
//! cgroup, whose files the old directory never reaches. So every read and write goes through [`Cgroup`]'s directory.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::error::{Error, Result};

mod controller;
mod namespace;
mod read;
mod walk;
mod write;

pub use controller::{Absence, controller_absence};
pub use namespace::enter_hosts_namespace;
pub use read::{ByNode, CgroupEvents, MemoryEvents, MemoryStat, NumaStat};
pub(crate) use walk::LONGEST_PATH;
pub use walk::{charged_processes, leaves, list, list_below, own_cgroup};

/// `f_type` of a cgroup2 mount (`CGROUP2_SUPER_MAGIC` in linux/magic.h).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A cgroup's number: its inode, which the kernel also calls its cgroup id. Not used again while the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CgroupId(u64);

impl CgroupId {
    /// The inode number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for CgroupId {
    fn from(inode: u64) -> Self {
        Self(inode)
    }
}

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a cgroup is below its mount, as `/proc/PID/cgroup` spells it: `/` for the root, else `/a/b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CgroupPath(PathBuf);

impl CgroupPath {
    /// The root cgroup.
    #[must_use]
    pub fn root() -> Self {
        Self(PathBuf::from("/"))
    }

    /// `None` unless the path begins with `/` and has no `.` or `..`.
    pub fn new(path: impl AsRef<Path>) -> Option<Self> {
        let mut components = path.as_ref().components();
        let absolute = components.next() == Some(Component::RootDir);
        let plain = components.clone().all(|component| matches!(component, Component::Normal(_)));
        // Collected anew, so that `/a//b/` and `/a/b` are equal as text too.
        (absolute && plain).then(|| Self(Path::new("/").join(components.as_path()).components().collect()))
    }

    /// A cgroup of this name right below this one.
    #[must_use]
    pub fn child(&self, name: impl AsRef<Path>) -> Self {
        Self(self.0.join(name))
    }

    /// The cgroup right above; the root has none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.parent().map(|parent| Self(parent.to_owned()))
    }

    /// The path, beginning with `/`.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether `self` is `other` or below it.
    #[must_use]
    pub fn is_in(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// As openat(2) wants it: without the leading `/`, the root being `.`.
    fn relative(&self) -> &Path {
        match self.0.strip_prefix("/") {
            Ok(path) if path != Path::new("") => path,
            _ => Path::new("."),
        }
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// A file of a cgroup that this crate writes, and that others may write too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlFile {
    /// `memory.high`.
    MemoryHigh,
    /// `cpuset.mems`.
    CpusetMems,
}

impl ControlFile {
    /// The file's name in the cgroup's directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryHigh => "memory.high",
            Self::CpusetMems => "cpuset.mems",
        }
    }
}

impl fmt::Display for ControlFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A cgroup2 mount.
#[derive(Debug)]
pub struct CgroupRoot {
    dir: OwnedFd,
    mount: Arc<Path>,
}

impl CgroupRoot {
    /// Opens the directory where cgroup2 is mounted.
    ///
    /// # Errors
    /// [`Error::NotCgroup2`] where another filesystem is there.
    pub fn open(mount: impl AsRef<Path>) -> Result<Self> {
        let root = Self::open_unchecked(mount)?;
        if is_cgroup2(root.dir.as_fd()).map_err(|error| Error::io(&root.mount, "statfs", error))? {
            Ok(root)
        } else {
            Err(Error::NotCgroup2 { path: root.mount.to_path_buf() })
        }
    }

    /// Opens any directory as if cgroup2 were mounted there: for trees of plain files.
    pub fn open_unchecked(mount: impl AsRef<Path>) -> Result<Self> {
        let mount: Arc<Path> = mount.as_ref().into();
        // Not NOFOLLOW: an operator may well pass a symlink to the mount.
        let dir = rustix::fs::open(&*mount, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())
            .map_err(|error| Error::io(&mount, "open", error))?;
        Ok(Self { dir, mount })
    }

    /// Opens cgroup2 where this host has it: `/sys/fs/cgroup`, `/sys/fs/cgroup/unified` beside cgroup v1, or elsewhere.
    ///
    /// # Errors
    /// [`Error::NotCgroup2`] where it is mounted nowhere.
    pub fn find(proc: &Path) -> Result<Self> {
        let path = proc.join("self/mountinfo");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "read", error))?;
        match mount_point(&text) {
            Some(mount) => Self::open(mount),
            None => Err(Error::NotCgroup2 { path: PathBuf::from("/sys/fs/cgroup") }),
        }
    }

    /// The directory that was opened.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Opens one cgroup.
    ///
    /// # Errors
    /// [`Error::Gone`] where there is none of this path.
    pub fn cgroup(&self, path: &CgroupPath) -> Result<Cgroup> {
        Cgroup::open_at(self.dir.as_fd(), path.relative(), path.clone(), &self.mount)
    }

    /// The inode that a path names now.
    fn id_of(&self, path: &CgroupPath) -> rustix::io::Result<CgroupId> {
        let stat = rustix::fs::statat(&self.dir, path.relative(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(CgroupId(stat.st_ino))
    }
}

/// One open cgroup: costs a file descriptor, so see [`raise_open_files`].
#[derive(Debug)]
pub struct Cgroup {
    id: CgroupId,
    dir: OwnedFd,
    path: CgroupPath,
    mount: Arc<Path>,
}

impl Cgroup {
    fn open_at(at: BorrowedFd<'_>, name: &Path, path: CgroupPath, mount: &Arc<Path>) -> Result<Self> {
        let failed = |op, error: rustix::io::Errno| Error::io(&mount.join(path.relative()), op, error);
        let dir =
            rustix::fs::openat(at, name, DIRECTORY, Mode::empty()).map_err(|error| failed("open", error))?;
        let stat = rustix::fs::fstat(&dir).map_err(|error| failed("stat", error))?;
        Ok(Self { id: CgroupId(stat.st_ino), dir, path, mount: Arc::clone(mount) })
    }

    /// The same cgroup, open once more: for another thread.
    pub fn try_clone(&self) -> Result<Self> {
        let failed = |error| Error::io(&self.dir_path(), "open once more", error);
        let dir = self.dir.try_clone().map_err(failed)?;
        Ok(Self { id: self.id, dir, path: self.path.clone(), mount: Arc::clone(&self.mount) })
    }

    /// Who this is.
    #[must_use]
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// Where it was when it was opened. cgroup2 refuses to rename cgroups, so it stays there until it is removed.
    #[must_use]
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Whether this cgroup's path still names this cgroup: false once it is removed, also if another took its name.
    #[must_use]
    pub fn still_there(&self, root: &CgroupRoot) -> bool {
        root.id_of(&self.path) == Ok(self.id)
    }

    /// Whether the file exists: it does not where its controller is off, nor in some cases in the root cgroup.
    #[must_use]
    pub fn has(&self, file: &str) -> bool {
        rustix::fs::statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// A file's path, for errors and messages.
    #[must_use]
    pub fn file_path(&self, file: &str) -> PathBuf {
        let below = self.path.0.strip_prefix("/").unwrap_or(&self.path.0);
        self.mount.join(below).join(file)
    }

    /// A path that leads to this very directory for as long as `self` lives, whatever happens to its name.
    ///
    /// For calls that take no directory descriptor. Needs `/proc`, which every container has of its own.
    pub(crate) fn dir_path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
    }

    /// Whether the cgroup was removed, asked after a file of it was not found.
    ///
    /// A removed cgroup's directory is empty but, unlike other filesystems' directories, keeps its link count, so ask
    /// for a file that all cgroups have.
    pub(crate) fn is_removed(&self) -> bool {
        let unlinked = rustix::fs::fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0);
        unlinked || (is_cgroup2(self.dir.as_fd()).unwrap_or(false) && !self.has("cgroup.controllers"))
    }
}

impl AsFd for Cgroup {
    /// The directory.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Raises this process's limit of open files to `wanted` or as near as it may, and returns what it is then.
///
/// A managed cgroup costs up to three descriptors (itself, two watched files), and the usual limit
/// is 1024.
pub fn raise_open_files(wanted: u64) -> Result<u64> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(now.current.unwrap_or(u64::MAX));
    }
    let raised = Rlimit { current: Some(wanted), maximum: now.maximum.map(|maximum| maximum.max(wanted)) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(wanted);
    }
    // Raising the maximum needs CAP_SYS_RESOURCE; up to the maximum is free.
    let current = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: now.maximum }).map_err(
        |error| Error::Io {
            path: PathBuf::from("RLIMIT_NOFILE"),
            op: "raise",
            source: io::Error::from(error),
        },
    )?;
    Ok(current)
}

fn is_cgroup2(dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let magic = rustix::fs::fstatfs(dir)?.f_type;
    Ok(u64::try_from(magic) == Ok(CGROUP2_SUPER_MAGIC))
}

/// The mount point of cgroup2 in the text of a mountinfo file; of several, the one that shows the whole hierarchy.
///
/// A line is `36 35 98:0 /root /mount options... - type source options` (proc(5)).
#[must_use]
pub fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        (kind.split(' ').next() == Some("cgroup2")).then(|| (root, unescape(mount)))
    });
    mounts.min_by_key(|(root, _)| *root != "/").map(|(_, mount)| mount)
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_plain() {
        for (text, path) in [("/", "/"), ("/a", "/a"), ("/a//b/", "/a/b"), ("/a/./b", "/a/b")] {
            assert_eq!(CgroupPath::new(text).unwrap().as_path().as_os_str(), path);
        }
        for text in ["", "a", "../a", "/..", "/a/../b"] {
            assert_eq!(CgroupPath::new(text), None, "{text:?}");
        }
        assert_eq!(CgroupPath::root().child("a").child("b"), CgroupPath::new("/a/b").unwrap());
        assert_eq!(CgroupPath::root().relative(), Path::new("."));
    }

    #[test]
    fn a_cgroup_is_in_itself_and_its_ancestors_but_not_in_a_namesake() {
        let path = |text| CgroupPath::new(text).unwrap();
        assert!(path("/a/b").is_in(&path("/a")) && path("/a").is_in(&path("/a")));
        assert!(path("/a").is_in(&CgroupPath::root()));
        assert!(!path("/ab").is_in(&path("/a")));
    }

    #[test]
    fn cgroup2_is_found_alone_beside_v1_and_under_an_odd_name() {
        let unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "30 24 0:26 / /sys/fs/cgroup ro shared:8 - tmpfs tmpfs ro\n\
             31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
             32 30 0:28 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n";
        let bound =
            "40 1 0:26 /kubepods /c rw - cgroup2 cgroup rw\n41 1 0:26 / /my\\040cgroups rw - cgroup2 c rw\n";
        for (text, mount) in [
            (unified, Some("/sys/fs/cgroup")),
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (bound, Some("/my cgroups")),
            ("31 30 0:27 / /x rw - cgroup cgroup rw\n", None),
            ("garbage\n - \n", None),
        ] {
            assert_eq!(mount_point(text).as_deref(), mount.map(Path::new));
        }
    }

    #[test]
    fn another_filesystem_is_not_taken_for_cgroup2() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(CgroupRoot::open(dir.path()), Err(Error::NotCgroup2 { .. })));
        assert!(CgroupRoot::open(dir.path().join("absent")).unwrap_err().is_gone());
    }

    #[test]
    fn a_cgroup_made_again_under_the_same_name_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        let path = CgroupPath::new("/a").unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let first = root.cgroup(&path).unwrap();
        assert!(first.still_there(&root));

        // Keeping `first` open keeps its inode from being used again.
        std::fs::remove_dir(dir.path().join("a")).unwrap();
        assert!(!first.still_there(&root) && first.is_removed());
        assert!(root.cgroup(&path).unwrap_err().is_gone());
        std::fs::create_dir(dir.path().join("a")).unwrap();
        assert!(!first.still_there(&root));
        assert_ne!(root.cgroup(&path).unwrap().id(), first.id());
    }

    #[test]
    fn a_symlink_is_no_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("a")).unwrap();
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        assert!(root.cgroup(&CgroupPath::new("/a").unwrap()).is_err());
    }

    #[test]
    fn open_files_are_raised_to_what_is_allowed_and_never_lowered() {
        let raised = raise_open_files(1).unwrap();
        assert!(raised >= 1);
        assert_eq!(raise_open_files(1).unwrap(), raised);
    }
}
