//! inotify: the cgroup tree, and writes to single files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use inotify::{EventMask, EventOwned, Inotify, WatchDescriptor, WatchMask, Watches};

use crate::cgroup::{Cgroup, CgroupPath, CgroupRoot, ControlFile, LONGEST_PATH};
use crate::error::{Error, Result};

/// One inotify descriptor.
struct Queue {
    inotify: Inotify,
    watches: Watches,
    buffer: Vec<u8>,
}

impl Queue {
    fn new() -> Result<Self> {
        let inotify = Inotify::init().map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => Error::Unsupported {
                what: "inotify",
                reason: "fs.inotify.max_user_instances or the limit of open files is used up; raise it"
                    .into(),
            },
            _ => Error::io(Path::new("inotify"), "open", error),
        })?;
        let watches = inotify.watches();
        Ok(Self { inotify, watches, buffer: vec![0; 16 << 10] })
    }

    fn watch(&mut self, path: &Path, mask: WatchMask) -> Result<WatchDescriptor> {
        self.watches.add(path, mask).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => Error::Unsupported {
                what: "inotify watch",
                reason: "fs.inotify.max_user_watches is used up; raise it".into(),
            },
            _ => Error::io(path, "watch", error),
        })
    }

    /// The kernel dropped the watch already if what it watched is gone: no failure.
    fn unwatch(&mut self, watch: WatchDescriptor) {
        let _ = self.watches.remove(watch);
    }

    /// What happened since the last call, or the first part of it: who makes events without end does not keep us here.
    fn read(&mut self) -> Result<Vec<EventOwned>> {
        const READS: usize = 64;
        let mut events = Vec::new();
        for _ in 0..READS {
            match self.inotify.read_events(&mut self.buffer) {
                Ok(more) => events.extend(more.map(|event| event.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(Path::new("inotify"), "read", error)),
            }
        }
        Ok(events)
    }
}

/// A change of the cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEvent {
    /// There is a cgroup of this path.
    Created(CgroupPath),
    /// The cgroup of this path was removed, and with it all below, which are not reported one by one.
    Removed(CgroupPath),
    /// Events were lost. The watches are set anew; list the tree anew.
    Rescan,
}

/// Watches all cgroups of a subtree, and those yet to come.
///
/// What can't be watched hides nothing else: a path that is too long is left out with all that is below it, and once the
/// user's watches are used up, changes of further cgroups are not reported ([`TreeWatch::unwatched`]).
///
/// A path that is removed and made again between two reads is reported as both, in that order.
pub struct TreeWatch {
    queue: Queue,
    mount: PathBuf,
    top: CgroupPath,
    by_watch: BTreeMap<WatchDescriptor, CgroupPath>,
    by_path: BTreeMap<CgroupPath, WatchDescriptor>,
    unwatched: usize,
}

impl TreeWatch {
    /// Watches `top` and everything below. What is there already is not reported: list it after this call.
    pub fn new(root: &CgroupRoot, top: CgroupPath) -> Result<Self> {
        let mut watch = Self {
            queue: Queue::new()?,
            mount: root.mount().to_owned(),
            top,
            by_watch: BTreeMap::new(),
            by_path: BTreeMap::new(),
            unwatched: 0,
        };
        watch.start(&mut Vec::new())?;
        Ok(watch)
    }

    /// What changed since the last call.
    pub fn read(&mut self) -> Result<Vec<TreeEvent>> {
        let mut changes = Vec::new();
        for event in self.queue.read()? {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                self.start_over()?;
                return Ok(vec![TreeEvent::Rescan]);
            }
            self.take(&event, &mut changes)?;
        }
        Ok(changes)
    }

    /// How many cgroups could not be watched since the watch was last begun: changes below them are only seen by listing the tree.
    #[must_use]
    pub fn unwatched(&self) -> usize {
        self.unwatched
    }

    fn take(&mut self, event: &EventOwned, changes: &mut Vec<TreeEvent>) -> Result<()> {
        let Some(parent) = self.by_watch.get(&event.wd) else { return Ok(()) };
        let (true, Some(name)) = (event.mask.contains(EventMask::ISDIR), &event.name) else { return Ok(()) };
        let path = parent.child(name);
        if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
            if self.forget(&path) {
                changes.push(TreeEvent::Removed(path));
            }
            Ok(())
        } else {
            self.enter(&path, changes)
        }
    }

    /// Watches a cgroup and what is below. First the watch, then the listing: what is made in between is seen twice, not
    /// never. What is gone already is skipped: whoever never heard of it need not hear of its end.
    fn enter(&mut self, path: &CgroupPath, changes: &mut Vec<TreeEvent>) -> Result<()> {
        if self.by_path.contains_key(path) {
            return Ok(());
        }
        if path.as_path().as_os_str().len() >= LONGEST_PATH {
            self.unwatched += 1;
            return Ok(());
        }
        let dir = directory(&self.mount, path);
        match self.queue.watch(&dir, TREE) {
            Ok(watch) => {
                // Already watched under another path: that one was moved here, and its event is still to come.
                if let Some(old) = self.by_watch.insert(watch.clone(), path.clone()) {
                    self.by_path.remove(&old);
                }
                self.by_path.insert(path.clone(), watch);
            }
            Err(error) if error.is_gone() => return Ok(()),
            // Of this one it is known that it is there; of what changes below it, nothing.
            Err(Error::Unsupported { .. }) => self.unwatched += 1,
            Err(error) if error.errno() == Some(libc::ENAMETOOLONG) => {
                self.unwatched += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        changes.push(TreeEvent::Created(path.clone()));
        let Ok(children) = std::fs::read_dir(&dir) else { return Ok(()) };
        for child in children.flatten() {
            if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.enter(&path.child(child.file_name()), changes)?;
            }
        }
        Ok(())
    }

    /// Drops the watches of a cgroup and all below; whether it was known.
    fn forget(&mut self, path: &CgroupPath) -> bool {
        let gone: Vec<CgroupPath> = self
            .by_path
            .range(path..)
            .map(|(path, _)| path)
            .take_while(|below| below.is_in(path))
            .cloned()
            .collect();
        for path in &gone {
            if let Some(watch) = self.by_path.remove(path) {
                self.by_watch.remove(&watch);
                self.queue.unwatch(watch);
            }
        }
        !gone.is_empty()
    }

    fn start(&mut self, changes: &mut Vec<TreeEvent>) -> Result<()> {
        let top = self.top.clone();
        self.enter(&top, changes)?;
        if self.by_path.is_empty() && self.unwatched == 0 {
            return Err(Error::Gone { path: directory(&self.mount, &self.top) });
        }
        Ok(())
    }

    /// With the same queue, as there may be no descriptor for another; what is left in it is of watches that are no more.
    fn start_over(&mut self) -> Result<()> {
        for watch in std::mem::take(&mut self.by_path).into_values() {
            self.queue.unwatch(watch);
        }
        self.by_watch.clear();
        self.unwatched = 0;
        self.start(&mut Vec::new())
    }
}

impl AsFd for TreeWatch {
    /// Readable when there is something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.inotify.as_fd()
    }
}

const TREE: WatchMask = WatchMask::CREATE
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::DONT_FOLLOW);

fn directory(mount: &Path, path: &CgroupPath) -> PathBuf {
    mount.join(path.as_path().strip_prefix("/").unwrap_or(Path::new("")))
}

/// A change of a watched file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent<K> {
    /// The file was written, by whomever, this process included; or something of this name in the directory was.
    ///
    /// A write may come as two: opening for writing with truncation counts as one of its own.
    Written {
        /// What the watch was added under.
        key: K,
        /// The name in a watched directory.
        name: Option<OsString>,
    },
    /// Events were lost: look at every file.
    Rescan,
}

/// Watches files for writes, each under a key such as (cgroup, file).
pub struct FileWatch<K> {
    queue: Queue,
    by_watch: BTreeMap<WatchDescriptor, K>,
    by_key: BTreeMap<K, WatchDescriptor>,
}

impl<K: Ord + Clone> FileWatch<K> {
    /// Watches nothing yet.
    pub fn new() -> Result<Self> {
        Ok(Self { queue: Queue::new()?, by_watch: BTreeMap::new(), by_key: BTreeMap::new() })
    }

    /// Watches a file of a cgroup. Remove the watch when the cgroup goes: the kernel may keep it.
    pub fn add_control_file(&mut self, key: K, cgroup: &Cgroup, file: ControlFile) -> Result<()> {
        self.add(key, &cgroup.dir_path().join(file.name()), WatchMask::MODIFY)
    }

    /// Watches a directory for files written and closed in it, or moved into it.
    ///
    /// A file that is replaced, as editors and Kubernetes volumes do, is another file: so watch its directory.
    pub fn add_directory(&mut self, key: K, directory: &Path) -> Result<()> {
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
        self.add(key, directory, mask)
    }

    fn add(&mut self, key: K, path: &Path, mask: WatchMask) -> Result<()> {
        let watch = self.queue.watch(path, mask)?;
        // The same file under another key: the later key holds.
        if let Some(old) = self.by_watch.insert(watch.clone(), key.clone())
            && old != key
        {
            self.by_key.remove(&old);
        }
        if let Some(old) = self.by_key.insert(key, watch.clone())
            && old != watch
        {
            self.by_watch.remove(&old);
            self.queue.unwatch(old);
        }
        Ok(())
    }

    /// Watches it no longer; no failure if it was not.
    pub fn remove(&mut self, key: &K) {
        if let Some(watch) = self.by_key.remove(key) {
            self.by_watch.remove(&watch);
            self.queue.unwatch(watch);
        }
    }

    /// What was written since the last call, in order.
    pub fn read(&mut self) -> Result<Vec<FileEvent<K>>> {
        let mut changes = Vec::new();
        for event in self.queue.read()? {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                changes.push(FileEvent::Rescan);
            } else if event.mask.contains(EventMask::IGNORED) {
                if let Some(key) = self.by_watch.remove(&event.wd) {
                    self.by_key.remove(&key);
                }
            } else if let Some(key) = self.by_watch.get(&event.wd) {
                let name = event.name.as_deref().map(OsStr::to_owned);
                changes.push(FileEvent::Written { key: key.clone(), name });
            }
        }
        Ok(changes)
    }
}

impl<K> AsFd for FileWatch<K> {
    /// Readable when there is something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn path(text: &str) -> CgroupPath {
        CgroupPath::new(text).unwrap()
    }

    fn watched(cgroups: &[&str]) -> (tempfile::TempDir, TreeWatch) {
        let dir = tempfile::tempdir().unwrap();
        for cgroup in cgroups {
            fs::create_dir_all(dir.path().join(cgroup)).unwrap();
        }
        let watch =
            TreeWatch::new(&CgroupRoot::open_unchecked(dir.path()).unwrap(), CgroupPath::root()).unwrap();
        (dir, watch)
    }

    #[test]
    fn cgroups_that_come_and_go_are_reported_and_files_are_not() {
        let (dir, mut watch) = watched(&["a"]);
        assert_eq!(watch.read().unwrap(), []);
        fs::create_dir(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/a/b"))]);
        fs::remove_dir(dir.path().join("a/b")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Removed(path("/a/b"))]);
    }

    #[test]
    fn what_is_made_inside_a_new_cgroup_before_it_is_watched_is_reported_once() {
        let (dir, mut watch) = watched(&[]);
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        let created = ["/a", "/a/b", "/a/b/c"].map(|text| TreeEvent::Created(path(text)));
        assert_eq!(watch.read().unwrap(), created);
        assert_eq!(watch.read().unwrap(), []);
        fs::create_dir(dir.path().join("a/b/c/d")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/a/b/c/d"))]);
    }

    #[test]
    fn a_cgroup_made_again_is_removed_and_created() {
        let (dir, mut watch) = watched(&["a"]);
        fs::remove_dir(dir.path().join("a")).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Removed(path("/a")), TreeEvent::Created(path("/a"))]);
        fs::create_dir(dir.path().join("a/b")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/a/b"))]);
    }

    #[test]
    fn a_cgroup_that_came_and_went_unseen_is_not_reported() {
        let (dir, mut watch) = watched(&[]);
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::remove_dir(dir.path().join("a")).unwrap();
        assert_eq!(watch.read().unwrap(), []);
    }

    #[test]
    fn a_moved_tree_goes_and_comes_whole() {
        let (dir, mut watch) = watched(&["a/b", "a!"]);
        fs::rename(dir.path().join("a"), dir.path().join("z")).unwrap();
        let expected = [
            TreeEvent::Removed(path("/a")),
            TreeEvent::Created(path("/z")),
            TreeEvent::Created(path("/z/b")),
        ];
        assert_eq!(watch.read().unwrap(), expected);
        fs::create_dir(dir.path().join("z/b/c")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/z/b/c"))]);
    }

    #[test]
    fn a_lost_event_asks_for_a_rescan_and_the_watch_goes_on() {
        let (dir, mut watch) = watched(&["a"]);
        let most: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        for _ in 0..most {
            fs::create_dir(dir.path().join("a/b")).unwrap();
            fs::remove_dir(dir.path().join("a/b")).unwrap();
        }
        assert_eq!(watch.read().unwrap(), [TreeEvent::Rescan]);
        fs::create_dir(dir.path().join("a/c")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/a/c"))]);
    }

    #[test]
    fn a_path_that_is_too_long_hides_nothing_else() {
        let (dir, mut watch) = watched(&["a"]);
        let grow = |under: &str| {
            let mut at = fs::File::open(dir.path().join(under)).unwrap();
            let name = "x".repeat(250);
            for _ in 0..20 {
                rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
                let flags = rustix::fs::OFlags::DIRECTORY;
                at = rustix::fs::openat(&at, name.as_str(), flags, rustix::fs::Mode::empty())
                    .map(fs::File::from)
                    .unwrap();
            }
        };
        grow("a");
        let seen = watch.read().unwrap();
        assert!(!seen.is_empty() && seen.len() < 20 && watch.unwatched() == 1, "{}", seen.len());
        fs::create_dir(dir.path().join("b")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/b"))]);
        // Nor does it keep a watch from being begun.
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        assert_eq!(TreeWatch::new(&root, CgroupPath::root()).unwrap().unwatched(), 1);
    }

    #[test]
    fn names_with_newlines_are_names() {
        let (dir, mut watch) = watched(&[]);
        fs::create_dir(dir.path().join("a\nb")).unwrap();
        assert_eq!(watch.read().unwrap(), [TreeEvent::Created(path("/a\nb"))]);
    }

    #[test]
    fn nothing_to_watch_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        assert!(TreeWatch::new(&root, path("/absent")).is_err_and(|error| error.is_gone()));
    }

    fn written<K>(key: K, name: Option<&str>) -> FileEvent<K> {
        FileEvent::Written { key, name: name.map(OsString::from) }
    }

    #[test]
    fn a_write_to_a_control_file_is_reported_under_its_key_until_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.high");
        fs::write(&file, "max\n").unwrap();
        let cgroup = CgroupRoot::open_unchecked(dir.path()).unwrap().cgroup(&CgroupPath::root()).unwrap();
        let mut watch = FileWatch::new().unwrap();
        watch.add_control_file("high", &cgroup, ControlFile::MemoryHigh).unwrap();
        assert!(watch.add_control_file("mems", &cgroup, ControlFile::CpusetMems).unwrap_err().is_gone());

        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| io::Write::write_all(&mut file, b"1"))
            .unwrap();
        assert_eq!(watch.read().unwrap(), [written("high", None)]);
        watch.remove(&"high");
        fs::write(&file, "2").unwrap();
        assert_eq!(watch.read().unwrap(), []);
    }

    #[test]
    fn a_replaced_file_is_reported_by_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = FileWatch::new().unwrap();
        watch.add_directory("config", dir.path()).unwrap();
        fs::write(dir.path().join("new"), "x").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("agent.yaml")).unwrap();
        assert_eq!(
            watch.read().unwrap(),
            [written("config", Some("new")), written("config", Some("agent.yaml"))]
        );
    }
}
