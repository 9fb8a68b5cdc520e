//! `cargo xtask release`: everything that a release publishes, in one directory, with its checksums.

mod deb;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::attest::{SUMS, Signing};
use crate::guest_image::root;
use crate::image::{self, Architectures, File, PRODUCTS, Profile, Source, VERSION};
use crate::static_build::{Arch, read_static};
use crate::{kube, out, say};

/// The agent's package, binary and unit.
const AGENT: &str = "thermocline-agent";

/// Shells, and where the text that completes the agent's command line belongs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/thermocline-agent"),
    ("zsh", "usr/share/zsh/vendor-completions/_thermocline-agent"),
    ("fish", "usr/share/fish/vendor_completions.d/thermocline-agent.fish"),
];

/// Which binaries, and where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// release: reproducible, what is published; guest: quick to build, to see what a release holds
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Where everything goes; a release that is there is removed first
    #[arg(long, default_value = "target/dist", value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    architectures: Architectures,
    #[command(flatten)]
    signing: Signing,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let dir = root().join(&args.out);
    let source = Source::read()?;
    say!(
        "a release takes about 10 minutes for each architecture the first time, on two cores that do nothing else"
    );
    let helm = kube::ensure_tools()?.join("helm");
    args.signing.ensure()?;
    make_empty(&dir)?;
    let built = args.architectures.build(args.profile, &source)?;
    // The texts are made by a binary of this machine, and are the same for all.
    let native = match built.binaries.get(&Arch::Amd64) {
        Some(native) => native.clone(),
        None => args.profile.build_all(&source, Arch::Amd64)?,
    };
    let texts = texts(&native.join(AGENT))?;
    for (arch, binaries) in &built.binaries {
        of_one_architecture(&dir, binaries, &texts, &source, *arch)?;
    }
    image::write(&dir, &built.binaries, &source)?;
    charts(&dir, &helm)?;
    let files: Vec<String> =
        sorted(&dir)?.iter().filter(|path| !path.ends_with(SUMS)).map(|path| name(path)).collect();
    args.signing.attest(&dir, &files, "cargo xtask release", &source)?;
    for entry in sorted(&dir)? {
        let mib = std::fs::metadata(&entry)?.len() as f64 / f64::from(1 << 20);
        out!("{mib:7.2} MiB  {}", entry.display());
    }
    built.say_what_is_left_out();
    Ok(true)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Makes the directory, without what a release before left there. Anybody else's files are left, and that is an error.
fn make_empty(dir: &Path) -> Result<()> {
    let at = || dir.display().to_string();
    std::fs::create_dir_all(dir).with_context(at)?;
    // Says that a directory is a release's, from its beginning on. It has the checksums in the end.
    let mark = dir.join(SUMS);
    let is_ours = mark.exists() || std::fs::read_dir(dir).with_context(at)?.next().is_none();
    ensure!(is_ours, "{} is not empty and no release is in it: name another directory", dir.display());
    std::fs::remove_dir_all(dir).with_context(at)?;
    std::fs::create_dir_all(dir).with_context(at)?;
    std::fs::write(&mark, "").with_context(at)
}

/// What the agent says of itself, by the path that it is installed at.
fn texts(agent: &Path) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let says = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output =
            Command::new(agent).args(arguments).output().with_context(|| agent.display().to_string())?;
        ensure!(
            output.status.success(),
            "{} {} ended with {}",
            agent.display(),
            arguments.join(" "),
            output.status
        );
        Ok(output.stdout)
    };
    let mut texts = BTreeMap::from([("usr/share/man/man8/thermocline-agent.8", says(&["man"])?)]);
    for (shell, path) in COMPLETIONS {
        texts.insert(path, says(&["completions", shell])?);
    }
    Ok(texts)
}

/// The binaries with all that goes with them, and the package.
fn of_one_architecture(
    dir: &Path,
    binaries: &Path,
    texts: &BTreeMap<&'static str, Vec<u8>>,
    source: &Source,
    arch: Arch,
) -> Result<()> {
    let name = arch.name();
    let files = agent_files(read_static(&binaries.join(AGENT))?, texts)?;
    let package = deb::build(&files, source, arch, dir)?;
    say!("wrote {}", package.display());
    let stem = format!("thermocline-{VERSION}-linux-{name}");
    let mut files: BTreeMap<String, File> =
        files.into_iter().map(|(path, file)| (format!("{stem}/{path}"), file)).collect();
    for product in &PRODUCTS {
        let content = read_static(&binaries.join(product.name))?;
        files.insert(format!("{stem}/usr/bin/{}", product.name), File { mode: 0o755, content });
    }
    std::fs::write(dir.join(format!("{stem}.tar.gz")), image::archive_of(&files, source)?)?;
    Ok(())
}

/// The files of the agent on a host, by their paths without the leading slash.
fn agent_files(binary: Vec<u8>, texts: &BTreeMap<&'static str, Vec<u8>>) -> Result<BTreeMap<String, File>> {
    let read = |path: &str| std::fs::read(root().join(path)).with_context(|| path.to_owned());
    let plain = |content| File { mode: 0o644, content };
    let mut files = BTreeMap::from([
        (format!("usr/bin/{AGENT}"), File { mode: 0o755, content: binary }),
        (
            format!("usr/lib/systemd/system/{AGENT}.service"),
            plain(read("deploy/systemd/thermocline-agent.service")?),
        ),
        ("etc/thermocline/agent.yaml".to_owned(), plain(read("deploy/examples/agent.yaml")?)),
        (format!("usr/share/doc/{AGENT}/copyright"), plain(read("LICENSE")?)),
        (format!("usr/share/doc/{AGENT}/CHANGELOG.md"), plain(read("CHANGELOG.md")?)),
    ]);
    files.extend(texts.iter().map(|(path, content)| ((*path).to_owned(), plain(content.clone()))));
    Ok(files)
}

fn charts(dir: &Path, helm: &Path) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    for chart in ["charts/thermocline", "charts/thermocline-crds"] {
        cmd!(sh, "{helm} package {chart} --destination {dir}").quiet().ignore_stdout().run()?;
    }
    Ok(())
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_takes_the_place_of_one_before_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for _ in 0..2 {
            make_empty(&out).unwrap();
            std::fs::write(out.join("old"), "").unwrap();
        }
        let somebodys = dir.path().join("home");
        std::fs::create_dir(&somebodys).unwrap();
        std::fs::write(somebodys.join("letter"), "").unwrap();
        assert!(make_empty(&somebodys).unwrap_err().to_string().contains("name another directory"));
        assert!(somebodys.join("letter").exists());
    }
}
