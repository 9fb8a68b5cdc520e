//! `cargo xtask image`: the agent's and the controller's images as OCI archives, without a daemon.

mod oci;
mod sbom;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::attest::Signing;
use crate::guest_image::root;
use crate::static_build::{Arch, StaticBuild, read_static};
use crate::{out, say};

use oci::archive_of_all;
pub(crate) use oci::{File, Image};

const REGISTRY: &str = "ghcr.io/thermocline";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An image of ours.
pub(crate) struct Product {
    /// The package, the binary and the repository.
    pub(crate) name: &'static str,
    title: &'static str,
    /// Also in the Containerfile.
    user: &'static str,
}

pub(crate) const PRODUCTS: [Product; 2] = [
    // Files of cgroups belong to root.
    Product { name: "thermocline-agent", title: "Thermocline node agent", user: "0:0" },
    Product { name: "thermocline-controller", title: "Thermocline cluster controller", user: "65532:65532" },
];

/// Which binaries, and where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// release: reproducible, for registries; guest: quick to build, shares its cache with the guests of `vm` and `test`
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Where the archives and their bills of materials go
    #[arg(long, default_value = "target/images", value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    architectures: Architectures,
    #[command(flatten)]
    signing: Signing,
}

/// How binaries of an image are built.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    Release,
    Guest,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let dir = root().join(&args.out);
    let source = Source::read()?;
    args.signing.ensure()?;
    let built = args.architectures.build(args.profile, &source)?;
    let files = write(&dir, &built.binaries, &source)?;
    args.signing.attest(&dir, &files, "cargo xtask image", &source)?;
    built.say_what_is_left_out();
    Ok(true)
}

/// For which machines.
#[derive(clap::Args)]
pub(crate) struct Architectures {
    /// Only this architecture; without it, both, and arm64 is left out where it can't be built here
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

/// Binaries by architecture.
pub(crate) struct Built {
    pub(crate) binaries: BTreeMap<Arch, PathBuf>,
    left_out: Vec<String>,
}

impl Architectures {
    /// Builds the products.
    ///
    /// # Errors
    /// When one does not build; without `--arch` that of another architecture than this machine's is no error.
    pub(crate) fn build(&self, profile: Profile, source: &Source) -> Result<Built> {
        let mut built = Built { binaries: BTreeMap::new(), left_out: Vec::new() };
        for arch in Arch::ALL.into_iter().filter(|arch| self.arch.is_none_or(|only| only == *arch)) {
            match profile.build_all(source, arch) {
                Ok(binaries) => {
                    built.binaries.insert(arch, binaries);
                }
                Err(error) if arch == Arch::Amd64 || self.arch.is_some() => return Err(error),
                Err(error) => built.left_out.push(format!("{}: {error:#}", arch.name())),
            }
        }
        Ok(built)
    }
}

impl Built {
    pub(crate) fn say_what_is_left_out(&self) {
        for what in &self.left_out {
            out!("LEFT OUT: {what}");
        }
    }
}

/// Writes `NAME.tar` and `NAME.cdx.json` of both products into the directory: one archive with an image for each architecture. Bills of
/// another architecture than amd64 have it in their names. Returns the names of the files.
pub(crate) fn write(dir: &Path, binaries: &BTreeMap<Arch, PathBuf>, source: &Source) -> Result<Vec<String>> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut files = Vec::new();
    for product in &PRODUCTS {
        let mut images = Vec::new();
        for (&arch, binaries) in binaries {
            let bill = serde_json::to_vec_pretty(&sbom::cyclonedx(product.name, source.created, arch)?)?;
            let stem = match arch {
                Arch::Amd64 => product.name.to_owned(),
                Arch::Arm64 => format!("{}-{}", product.name, arch.name()),
            };
            let name = format!("{stem}.cdx.json");
            std::fs::write(dir.join(&name), &bill)?;
            files.push(name);
            images.push(product.image(read_static(&binaries.join(product.name))?, bill, source, arch)?);
        }
        let archive = match images.as_slice() {
            [image] => image.archive()?,
            images => archive_of_all(images)?,
        };
        let name = format!("{}.tar", product.name);
        let path = dir.join(&name);
        files.push(name);
        std::fs::write(&path, &archive.bytes).with_context(|| path.display().to_string())?;
        let mib = archive.bytes.len() as f64 / f64::from(1 << 20);
        out!("{} {} {mib:.1} MiB {}", product.reference(), archive.digest, path.display());
    }
    Ok(files)
}

/// The archive of the agent's image, with a binary that is built already.
pub(crate) fn agent(binaries: &Path) -> Result<Vec<u8>> {
    let source = Source::read()?;
    let [agent, _] = &PRODUCTS;
    let bill = serde_json::to_vec_pretty(&sbom::cyclonedx(agent.name, source.created, Arch::Amd64)?)?;
    Ok(agent.image(read_static(&binaries.join(agent.name))?, bill, &source, Arch::Amd64)?.archive()?.bytes)
}

/// An archive of files, as people unpack it: `tar`, compressed by gzip.
pub(crate) fn archive_of(files: &BTreeMap<String, File>, source: &Source) -> Result<Vec<u8>> {
    let files = files.iter().map(|(path, file)| (path.as_str(), file.mode, file.content.as_slice()));
    oci::gzip(&oci::tar(files, source.created)?)
}

impl Profile {
    /// Builds the products; returns the directory they are in.
    pub(crate) fn build_all(self, source: &Source, arch: Arch) -> Result<PathBuf> {
        arch.ensure_toolchain()?;
        say!("building the binaries for {}, statically linked", arch.name());
        self.build(source, arch)?.run(&PRODUCTS.map(|product| product.name))
    }

    fn build(self, source: &Source, arch: Arch) -> Result<StaticBuild<'static>> {
        Ok(match self {
            Self::Guest => StaticBuild {
                arch,
                profile: "guest",
                default_features: true,
                target_dir: root().join("target/guest"),
                flags: Vec::new(),
                env: Vec::new(),
            },
            Self::Release => StaticBuild {
                arch,
                profile: "release",
                default_features: true,
                target_dir: root().join("target/static"),
                // Where the sources lie must not show in the binary.
                flags: vec![
                    format!("--remap-path-prefix={}=/src", root().display()),
                    format!("--remap-path-prefix={}=/cargo", cargo_home()?.display()),
                ],
                env: vec![("THERMOCLINE_REVISION", source.revision.clone())],
            },
        })
    }
}

impl Product {
    /// Registry, repository and tag.
    fn reference(&self) -> String {
        format!("{REGISTRY}/{}:{VERSION}", self.name)
    }

    fn image(&self, binary: Vec<u8>, bill: Vec<u8>, source: &Source, arch: Arch) -> Result<Image> {
        let name = self.name;
        let license = std::fs::read(root().join("LICENSE"))?;
        let repository = env!("CARGO_PKG_REPOSITORY");
        Ok(Image {
            name: self.reference(),
            files: BTreeMap::from([
                (name.to_owned(), File { mode: 0o755, content: binary }),
                // Scanners of images look for bills by this ending.
                (format!("usr/share/sbom/{name}.cdx.json"), File { mode: 0o644, content: bill }),
                (format!("usr/share/doc/{name}/LICENSE"), File { mode: 0o644, content: license }),
            ]),
            entrypoint: format!("/{name}"),
            user: self.user,
            labels: BTreeMap::from([
                ("org.opencontainers.image.title", self.title.to_owned()),
                ("org.opencontainers.image.version", VERSION.to_owned()),
                ("org.opencontainers.image.revision", source.revision.clone()),
                ("org.opencontainers.image.source", repository.to_owned()),
                ("org.opencontainers.image.documentation", format!("{repository}/tree/main/docs")),
                ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE").to_owned()),
            ]),
            architecture: arch.name(),
            created: source.created,
        })
    }
}

/// What the images are built from.
pub(crate) struct Source {
    /// The commit, or `unknown` outside of a git checkout.
    pub(crate) revision: String,
    /// `SOURCE_DATE_EPOCH`, or the time of the commit, or 0.
    pub(crate) created: u64,
}

impl Source {
    pub(crate) fn read() -> Result<Self> {
        let sh = Shell::new()?;
        sh.change_dir(root());
        let git = cmd!(sh, "git log -1 --format=%H-%ct").quiet().ignore_stderr().read().unwrap_or_default();
        let (revision, committed) = git.split_once('-').unwrap_or(("unknown", "0"));
        let changed = cmd!(sh, "git status --porcelain").quiet().ignore_stderr().read().unwrap_or_default();
        let created = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| committed.to_owned());
        Ok(Self {
            revision: format!("{revision}{}", if changed.is_empty() { "" } else { "-dirty" }),
            created: created.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {created:?}"))?,
        })
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::{PRODUCTS, root};

    #[test]
    fn the_containerfile_makes_the_same_images() {
        let text = std::fs::read_to_string(root().join("Containerfile")).unwrap();
        for product in &PRODUCTS {
            let (name, user) = (product.name, product.user);
            let stage = text
                .split("\nFROM ")
                .find(|stage| {
                    stage.starts_with(&format!("scratch AS {}\n", name.replace("thermocline-", "")))
                })
                .unwrap_or_else(|| panic!("no stage for {name}"));
            assert!(stage.contains(&format!("\nUSER {user}\n")), "{stage}");
            assert!(stage.contains(&format!("\nENTRYPOINT [\"/{name}\"]")), "{stage}");
        }
    }
}
