//! What is committed of a benchmark: a table, a picture, and with what they were made.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest_image::{self, root};
use crate::qemu::Qemu;
use crate::say;

/// Of all that took part.
pub(super) fn versions(kernel: &str) -> Result<String> {
    let qemu = Qemu::ensure(&guest_image::cache()?)?.version()?;
    let git = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root()).output();
    let commit =
        git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    Ok(format!("Linux {kernel}, {qemu}, Thermocline {} at {commit}", env!("CARGO_PKG_VERSION")))
}

/// Writes `TITLE.md` and `TITLE.svg` into a directory of the checkout.
pub(super) fn write(dir: &Path, title: &str, table: &str, picture: &str) -> Result<()> {
    let dir = root().join(dir);
    std::fs::create_dir_all(&dir)?;
    for (ending, text) in [("md", table), ("svg", picture)] {
        let path = dir.join(format!("{title}.{ending}"));
        std::fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))?;
        say!("wrote {}", path.display());
    }
    Ok(())
}
