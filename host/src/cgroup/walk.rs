//! Walks of the cgroup tree. Cgroups that go while the walk is under way are left out.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType};

use super::{Cgroup, CgroupId, CgroupPath, CgroupRoot};
use crate::error::{Error, Result};

/// All cgroups of the mount, the root included, each parent right before its children.
pub fn list(root: &CgroupRoot) -> Result<Vec<CgroupPath>> {
    let root = root.cgroup(&CgroupPath::root())?;
    let mut paths = vec![root.path().clone()];
    paths.extend(list_below(&root)?);
    Ok(paths)
}

/// All cgroups below one, without itself, each parent right before its children.
pub fn list_below(cgroup: &Cgroup) -> Result<Vec<CgroupPath>> {
    let mut paths = Vec::new();
    visit(cgroup, &mut |child| {
        paths.push(child.path().clone());
        Ok(())
    })?;
    Ok(paths)
}

/// The cgroups that processes' memory is charged to: this one and those below it that have the memory controller, and have
/// processes or no child that has it, too. Memory of processes in a cgroup without it (threaded ones, and those that a service
/// makes for itself) is charged to the nearest above that has it. What can't be opened is left out.
pub fn leaves(root: &CgroupRoot, cgroup: &Cgroup) -> Result<Vec<Cgroup>> {
    let mut leaves = Vec::new();
    for path in std::iter::once(cgroup.path().clone()).chain(list_below(cgroup)?) {
        match root.cgroup(&path).and_then(|cgroup| Ok(is_leaf(&cgroup)?.then_some(cgroup))) {
            Ok(leaf) => leaves.extend(leaf),
            Err(error) if error.is_gone() || is_out_of_reach(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(leaves)
}

fn is_leaf(cgroup: &Cgroup) -> Result<bool> {
    if !cgroup.is_charged() {
        return Ok(false);
    }
    // The kernel gives a controller to all children of a cgroup that may have it, or to none.
    for name in child_names(cgroup)? {
        match cgroup.child(&name) {
            Ok(child) if child.is_charged() => return Ok(!cgroup.read_cgroup_procs()?.is_empty()),
            Ok(_) => {}
            Err(error) if error.is_gone() || is_out_of_reach(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Longer than what a path may be, or more than what may be open: of this cgroup nothing can be known now, and that is no
/// fault of the others.
fn is_out_of_reach(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENAMETOOLONG | libc::EMFILE | libc::ENFILE))
}

/// The processes whose memory is charged to a cgroup: its own, and those of cgroups below it without the memory controller.
pub fn charged_processes(cgroup: &Cgroup) -> Result<Vec<i32>> {
    let mut pids = cgroup.read_cgroup_procs()?;
    for name in child_names(cgroup)? {
        match cgroup.child(&name) {
            Ok(child) if !child.is_charged() => pids.extend(charged_processes(&child)?),
            Ok(_) => {}
            Err(error) if error.is_gone() || is_out_of_reach(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

/// The cgroup of this process, as `root` has it; `None` where that shows no part of it.
///
/// In a cgroup namespace of its own, as in a container, a process sees its cgroup as `/`. Of the mount that the namespace has, the top is
/// the same directory as one somewhere below `root`, and so has the same inode. `proc` is any procfs.
pub fn own_cgroup(root: &CgroupRoot, proc: &Path) -> Result<Option<CgroupPath>> {
    let path = proc.join("self/cgroup");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "read", error))?;
    match crate::proc::proc_cgroup(&text) {
        Some(seen) if seen != CgroupPath::root() => return Ok(Some(seen)),
        _ => {}
    }
    let Ok(namespace) = CgroupRoot::find(proc) else { return Ok(None) };
    path_of(root, namespace.cgroup(&CgroupPath::root())?.id())
}

/// Where a cgroup is.
fn path_of(root: &CgroupRoot, id: CgroupId) -> Result<Option<CgroupPath>> {
    Ok(list(root)?.into_iter().find(|path| root.id_of(path) == Ok(id)))
}

fn visit(cgroup: &Cgroup, each: &mut impl FnMut(&Cgroup) -> Result<()>) -> Result<()> {
    let names = match child_names(cgroup) {
        Err(error) if error.is_gone() => return Ok(()),
        names => names?,
    };
    for name in names {
        // What has no path is not managed, nor is what is below: it could not be opened again, and depth is bounded by it.
        if cgroup.path().as_path().as_os_str().len() + name.len() >= LONGEST_PATH {
            continue;
        }
        match cgroup.child(&name) {
            Ok(child) => {
                each(&child)?;
                visit(&child, each)?;
            }
            Err(error) if error.is_gone() || is_out_of_reach(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Of a cgroup's path, so that the mount and a file's name fit into `PATH_MAX`, too.
pub(crate) const LONGEST_PATH: usize = 4096 - 512;

impl Cgroup {
    /// Whether memory is charged to it: it has the memory controller.
    fn is_charged(&self) -> bool {
        self.has("memory.numa_stat")
    }

    /// Opens a child by its name.
    fn child(&self, name: &std::ffi::OsStr) -> Result<Self> {
        Self::open_at(self.dir.as_fd(), name.as_ref(), self.path.child(name), &self.mount)
    }
}

/// The names of the children, sorted.
fn child_names(cgroup: &Cgroup) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt as _;

    let failed = |error: rustix::io::Errno| Error::io(&cgroup.file_path(""), "list", error);
    let mut names = Vec::new();
    for entry in Dir::read_from(cgroup).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => rustix::fs::statat(cgroup, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        if is_directory {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of cgroups, each with its `cgroup.procs`.
    fn tree(cgroups: &[(&str, &str)]) -> (tempfile::TempDir, CgroupRoot) {
        let dir = tempfile::tempdir().unwrap();
        for (path, procs) in cgroups {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("cgroup.procs"), procs).unwrap();
            std::fs::write(path.join("memory.numa_stat"), "").unwrap();
        }
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        (dir, root)
    }

    fn shown(paths: &[CgroupPath]) -> Vec<&str> {
        paths.iter().map(|path| path.as_path().to_str().unwrap()).collect()
    }

    #[test]
    fn parents_come_before_children_and_files_are_no_cgroups() {
        let (dir, root) = tree(&[("b", ""), ("a/y", ""), ("a", ""), ("a/x", "")]);
        assert_eq!(shown(&list(&root).unwrap()), ["/", "/a", "/a/x", "/a/y", "/b"]);
        let below = root.cgroup(&CgroupPath::new("/a").unwrap()).unwrap();
        assert_eq!(shown(&list_below(&below).unwrap()), ["/a/x", "/a/y"]);
        drop(dir);
    }

    #[test]
    fn a_cgroup_is_found_by_its_inode_through_another_mount() {
        let (dir, root) = tree(&[("a", ""), ("a/pod", ""), ("b", "")]);
        // Of a cgroup namespace: its top is a directory of ours.
        let namespace = CgroupRoot::open_unchecked(dir.path().join("a/pod")).unwrap();
        let top = namespace.cgroup(&CgroupPath::root()).unwrap();
        assert_eq!(path_of(&root, top.id()).unwrap(), CgroupPath::new("/a/pod"));
        assert_eq!(path_of(&namespace, root.cgroup(&CgroupPath::root()).unwrap().id()).unwrap(), None);
    }

    #[test]
    fn a_process_outside_of_a_namespace_tells_its_cgroup() {
        let (_dir, root) = tree(&[("a", "")]);
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("self")).unwrap();
        std::fs::write(proc.path().join("self/cgroup"), "0::/a\n").unwrap();
        assert_eq!(own_cgroup(&root, proc.path()).unwrap(), CgroupPath::new("/a"));
    }

    #[test]
    fn leaves_have_processes_or_no_child() {
        let (_dir, root) =
            tree(&[("pod", ""), ("pod/c1", "1\n"), ("pod/c2", ""), ("pod/c3", "2\n"), ("pod/c3/in", "3\n")]);
        let pod = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        let leaves = leaves(&root, &pod).unwrap();
        let paths: Vec<_> = leaves.iter().map(|leaf| leaf.path().as_path()).collect();
        assert_eq!(paths, ["/pod/c1", "/pod/c2", "/pod/c3", "/pod/c3/in"].map(Path::new));
    }

    #[test]
    fn memory_is_charged_to_the_nearest_cgroup_with_the_controller() {
        let (dir, root) = tree(&[
            ("sub", ""),
            ("sub/supervisor", "7\n"),
            ("sub/supervisor/inner", "8\n"),
            ("deep", ""),
            ("deep/er", ""),
            ("deep/er/threads", "9\n"),
        ]);
        for path in ["sub/supervisor", "sub/supervisor/inner", "deep/er/threads"] {
            std::fs::remove_file(dir.path().join(path).join("memory.numa_stat")).unwrap();
        }
        let check = |path: &str, expected: &[&str], processes: &[i32]| {
            let cgroup = root.cgroup(&CgroupPath::new(path).unwrap()).unwrap();
            let found = leaves(&root, &cgroup).unwrap();
            let paths: Vec<_> = found.iter().map(|leaf| leaf.path().as_path()).collect();
            assert_eq!(paths, expected.iter().map(Path::new).collect::<Vec<_>>());
            let pids: Vec<_> = found.iter().flat_map(|leaf| charged_processes(leaf).unwrap()).collect();
            assert_eq!(pids, processes);
        };
        check("/sub", &["/sub"], &[7, 8]);
        check("/deep", &["/deep/er"], &[9]);
    }

    #[test]
    fn a_path_that_is_too_long_is_left_out_with_what_is_below() {
        let (dir, root) = tree(&[("pod", "1\n"), ("pod/c", "2\n")]);
        // From directory to directory, as the path can't be named.
        let mut at = std::fs::File::open(dir.path().join("pod")).unwrap();
        let name = "x".repeat(250);
        for _ in 0..20 {
            rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
            at = rustix::fs::openat(
                &at,
                name.as_str(),
                rustix::fs::OFlags::DIRECTORY,
                rustix::fs::Mode::empty(),
            )
            .map(std::fs::File::from)
            .unwrap();
        }
        let pod = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        let paths: Vec<_> = leaves(&root, &pod).unwrap().iter().map(|leaf| leaf.path().clone()).collect();
        assert_eq!(shown(&paths), ["/pod", "/pod/c"]);
        let listed = list(&root).unwrap();
        assert!(listed.iter().all(|path| path.as_path().as_os_str().len() < LONGEST_PATH));
        assert_eq!(listed.len(), 3 + 14);
    }

    #[test]
    fn a_cgroup_removed_before_or_during_the_walk_has_nothing_below() {
        let (dir, root) = tree(&[("pod/c1", ""), ("pod", "")]);
        let pod = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        std::fs::remove_dir_all(dir.path().join("pod")).unwrap();
        assert_eq!(list_below(&pod).unwrap(), []);
        assert!(leaves(&root, &pod).unwrap().is_empty());
    }
}
