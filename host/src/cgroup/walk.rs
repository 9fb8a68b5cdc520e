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

/// The cgroups that processes' memory is charged to: this one and those below it that have processes or have no child.
pub fn leaves(root: &CgroupRoot, cgroup: &Cgroup) -> Result<Vec<Cgroup>> {
    let mut leaves = Vec::new();
    for path in std::iter::once(cgroup.path().clone()).chain(list_below(cgroup)?) {
        let leaf = root.cgroup(&path).and_then(|cgroup| {
            let is_leaf = child_names(&cgroup)?.is_empty() || !cgroup.read_cgroup_procs()?.is_empty();
            Ok(is_leaf.then_some(cgroup))
        });
        match leaf {
            Ok(leaf) => leaves.extend(leaf),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(leaves)
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
        match cgroup.child(&name) {
            Ok(child) => {
                each(&child)?;
                visit(&child, each)?;
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Cgroup {
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
    fn a_cgroup_removed_before_or_during_the_walk_has_nothing_below() {
        let (dir, root) = tree(&[("pod/c1", ""), ("pod", "")]);
        let pod = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        std::fs::remove_dir_all(dir.path().join("pod")).unwrap();
        assert_eq!(list_below(&pod).unwrap(), []);
        assert!(leaves(&root, &pod).unwrap().is_empty());
    }
}
