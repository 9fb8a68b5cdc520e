//! Directory trees for tests.

use std::fs;

use tempfile::TempDir;

use crate::roots::Roots;

/// Makes files of relative path and content, and the [`Roots`] that see `proc`, `sys` and `debug` among them.
pub(crate) fn tree(files: &[(&str, &str)]) -> (TempDir, Roots) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let root = dir.path();
    let roots = Roots::new(root.join("proc"), root.join("sys"), root.join("debug"));
    (dir, roots)
}
