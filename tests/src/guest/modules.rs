//! Kernel modules, as the host packed them into /lib/modules.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use crate::modinfo;

/// Loads a module after those it depends on.
pub(super) fn load(name: &str) -> Result<()> {
    let path = format!("/lib/modules/{name}.ko");
    if !Path::new(&path).exists() {
        // Built in: what needs it fails by itself where it is really missing.
        return Ok(());
    }
    for dependency in modinfo::depends(&std::fs::read(&path)?) {
        load(&dependency)?;
    }
    let file = File::open(&path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("load module {name}")),
    }
}
