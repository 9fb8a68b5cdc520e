//! `cargo xtask release`: everything that a release publishes, in one directory, with its checksums.

mod deb;
mod provenance;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use xshell::{Shell, cmd};

use crate::guest_image::root;
use crate::image::{self, File, PRODUCTS, Profile, Source, VERSION};
use crate::static_build::{Arch, read_static};
use crate::{kube, out, say, tools};

/// The agent's package, binary and unit.
const AGENT: &str = "thermocline-agent";

/// Says that a directory is a release's, from its beginning on. It has the checksums in the end.
const MARK: &str = "SHA256SUMS";

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
    /// Only this architecture; without it, both, and arm64 is left out where it can't be built here
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// A key of yours, as gpg knows it: signs the checksums, and so everything that they list
    #[arg(long, value_name = "KEY")]
    sign: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let dir = root().join(&args.out);
    let source = Source::read()?;
    say!(
        "a release takes about 10 minutes for each architecture the first time, on two cores that do nothing else"
    );
    let helm = kube::ensure_tools()?.join("helm");
    if args.sign.is_some() {
        tools::ensure(&[&tools::GPG])?;
    }
    make_empty(&dir)?;
    // The texts are made by the binary of this machine, and are the same for all.
    let native = build(args.profile, &source, Arch::Amd64)?;
    let texts = texts(&native.join(AGENT))?;
    let mut left_out = Vec::new();
    let mut built = BTreeMap::new();
    for arch in Arch::ALL.into_iter().filter(|arch| args.arch.is_none_or(|only| only == *arch)) {
        let binaries = match arch {
            Arch::Amd64 => Ok(native.clone()),
            Arch::Arm64 => build(args.profile, &source, arch),
        };
        match binaries {
            Ok(binaries) => {
                of_one_architecture(&dir, &binaries, &texts, &source, arch)?;
                built.insert(arch, binaries);
            }
            // Who asks for it by name wants to know.
            Err(error) if args.arch.is_some() => return Err(error),
            Err(error) => left_out.push(format!("{}: {error:#}", arch.name())),
        }
    }
    image::write(&dir, &built, &source)?;
    charts(&dir, &helm)?;
    prove(&dir, &source)?;
    checksums(&dir)?;
    if let Some(key) = &args.sign {
        sign(&dir.join(MARK), key)?;
    }
    for entry in sorted(&dir)? {
        let mib = std::fs::metadata(&entry)?.len() as f64 / f64::from(1 << 20);
        out!("{mib:7.2} MiB  {}", entry.display());
    }
    for what in left_out {
        out!("LEFT OUT: {what}");
    }
    Ok(true)
}

/// Makes the directory, without what a release before left there. Anybody else's files are left, and that is an error.
fn make_empty(dir: &Path) -> Result<()> {
    let at = || dir.display().to_string();
    std::fs::create_dir_all(dir).with_context(at)?;
    let mark = dir.join(MARK);
    let is_ours = mark.exists() || std::fs::read_dir(dir).with_context(at)?.next().is_none();
    ensure!(is_ours, "{} is not empty and no release is in it: name another directory", dir.display());
    std::fs::remove_dir_all(dir).with_context(at)?;
    std::fs::create_dir_all(dir).with_context(at)?;
    std::fs::write(&mark, "").with_context(at)
}

fn build(profile: Profile, source: &Source, arch: Arch) -> Result<PathBuf> {
    arch.ensure_toolchain()?;
    say!("building the binaries for {}, statically linked", arch.name());
    profile.build(source, arch)?.run(&PRODUCTS.map(|product| product.name))
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

/// Names and sums of all files.
fn sums(dir: &Path) -> Result<Vec<(String, String)>> {
    let files = sorted(dir)?.into_iter().filter(|path| !path.ends_with(MARK));
    files
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, hex::encode(Sha256::digest(std::fs::read(&path)?))))
        })
        .collect()
}

fn prove(dir: &Path, source: &Source) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    let compiler = cmd!(sh, "rustc --version").quiet().read()?;
    let statement = provenance::statement(&sums(dir)?, source, &compiler);
    std::fs::write(dir.join(provenance::NAME), serde_json::to_vec_pretty(&statement)?)?;
    Ok(())
}

/// Writes the signature beside the file, with `.asc` behind its name.
fn sign(file: &Path, key: &str) -> Result<()> {
    let sh = Shell::new()?;
    cmd!(sh, "gpg --batch --yes --local-user {key} --armor --detach-sign {file}")
        .quiet()
        .run()
        .with_context(|| format!("gpg does not sign by the key {key}"))
}

/// As `sha256sum --check` reads them.
fn checksums(dir: &Path) -> Result<()> {
    let mut sums = String::new();
    for (name, sum) in self::sums(dir)? {
        let _ = writeln!(sums, "{sum}  {name}");
    }
    std::fs::write(dir.join(MARK), sums)?;
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
