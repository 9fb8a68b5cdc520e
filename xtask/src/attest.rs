//! What says of files where they come from and that they are whole: provenance, checksums, and a signature by a key of the user's.

mod provenance;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use xshell::{Shell, cmd};

use crate::guest_image::root;
use crate::image::Source;
use crate::tools;

/// The checksums, as `sha256sum --check` reads them.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// Who signs.
#[derive(clap::Args)]
pub(crate) struct Signing {
    /// A key of yours, as gpg knows it: signs the checksums, and so everything that they list
    #[arg(long, value_name = "KEY")]
    sign: Option<String>,
}

impl Signing {
    /// Fails before anything is built, where there is nothing to sign by.
    pub(crate) fn ensure(&self) -> Result<()> {
        let Some(key) = &self.sign else { return Ok(()) };
        tools::ensure(&[&tools::GPG])?;
        let sh = Shell::new()?;
        cmd!(sh, "gpg --batch --list-secret-keys {key}")
            .quiet()
            .ignore_stdout()
            .run()
            .with_context(|| format!("gpg has no secret key {key}: name one of `gpg --list-secret-keys`"))
    }

    /// Writes provenance and checksums of these files of a directory, made by this command, and signs them.
    pub(crate) fn attest(&self, dir: &Path, files: &[String], command: &str, source: &Source) -> Result<()> {
        let mut sums = files.iter().map(|name| sum(dir, name)).collect::<Result<Vec<_>>>()?;
        let sh = Shell::new()?;
        sh.change_dir(root());
        let compiler = cmd!(sh, "rustc --version").quiet().read()?;
        let statement = provenance::statement(&sums, command, source, &compiler);
        std::fs::write(dir.join(provenance::NAME), serde_json::to_vec_pretty(&statement)?)?;
        sums.push(sum(dir, provenance::NAME)?);
        let mut text = String::new();
        for (name, sum) in sums {
            let _ = writeln!(text, "{sum}  {name}");
        }
        let path = dir.join(SUMS);
        std::fs::write(&path, text)?;
        // One that is there is of what was there before.
        let signature = dir.join(format!("{SUMS}.asc"));
        if signature.exists() {
            std::fs::remove_file(&signature)?;
        }
        let Some(key) = &self.sign else { return Ok(()) };
        cmd!(sh, "gpg --batch --yes --local-user {key} --armor --detach-sign --output {signature} {path}")
            .quiet()
            .run()
            .with_context(|| format!("gpg does not sign by the key {key}"))
    }
}

/// A file's name and SHA-256.
fn sum(dir: &Path, name: &str) -> Result<(String, String)> {
    let content = std::fs::read(dir.join(name)).with_context(|| name.to_owned())?;
    Ok((name.to_owned(), hex::encode(Sha256::digest(content))))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn checksums_are_those_of_the_files_and_of_the_provenance_and_an_old_signature_goes() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("a.tar", "one"), ("old", "not ours"), ("SHA256SUMS.asc", "of before")] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let source = Source { revision: "abc".to_owned(), created: 0 };
        let unsigned = Signing { sign: None };
        unsigned.attest(dir.path(), &["a.tar".to_owned()], "cargo xtask image", &source).unwrap();
        let sums = std::fs::read_to_string(dir.path().join(SUMS)).unwrap();
        let names: Vec<_> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
        assert_eq!(names, ["a.tar", "provenance.intoto.json"]);
        assert!(!dir.path().join("SHA256SUMS.asc").exists());
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--quiet", SUMS]).current_dir(dir.path());
        assert!(check.status().unwrap().success());
    }
}
