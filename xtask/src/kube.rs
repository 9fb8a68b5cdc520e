//! `cargo xtask kube`: Kubernetes' servers and command-line tools for tests, found or made, never installed.
//!
//! A server comes from the first of: the cache, `KUBEBUILDER_ASSETS` (linked), a folder of packed binaries beside the
//! checkout, and Debian's source package. The last one makes only etcd and kube-apiserver, and takes minutes.

mod debian_source;
mod release_tools;

use std::fs::File;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::guest_image::{lock, root};
use crate::{out, say, tools};

/// Where the folder of packed binaries is, when it is not beside the checkout.
const PACKED: &str = "THERMOCLINE_KUBE_PACKED";

/// A program of the control plane or of a node.
struct Server {
    name: &'static str,
    source: Source,
}

/// Where a server can be had from, the cache and `KUBEBUILDER_ASSETS` aside.
#[derive(PartialEq)]
enum Source {
    /// Packed, or built from the distribution's source package. Tests fail without it.
    PackedOrBuilt,
    /// Packed only: no distribution has it. What needs it says aloud that it did not run.
    Packed,
}

const SERVERS: &[Server] = &[
    Server { name: "etcd", source: Source::PackedOrBuilt },
    Server { name: "kube-apiserver", source: Source::PackedOrBuilt },
    Server { name: "crdserver", source: Source::Packed },
    Server { name: "kube-controller-manager", source: Source::Packed },
    Server { name: "kube-scheduler", source: Source::Packed },
    Server { name: "kubelet", source: Source::Packed },
    Server { name: "kubemark", source: Source::Packed },
];

/// What to make again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make everything again, also what is in the cache
    #[arg(long)]
    refresh: bool,
    /// Build etcd and kube-apiserver from Debian's source package, even where packed ones are at hand
    #[arg(long)]
    from_source: bool,
}

/// The parent of `kube/` (servers) and `tools/`: `target`, or `THERMOCLINE_KUBE_CACHE`.
fn cache() -> Result<PathBuf> {
    let dir = std::env::var_os("THERMOCLINE_KUBE_CACHE").map_or_else(|| root().join("target"), PathBuf::from);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create the cache {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let made = make(args)?;
    for server in SERVERS {
        if made.missing.contains(&server.name) {
            out!("missing {:26} only a folder of packed binaries has it: set {PACKED}", server.name);
        } else {
            out!("ok      {:26} {}", server.name, made.servers.join(server.name).display());
        }
    }
    for tool in release_tools::TOOLS {
        out!("ok      {tool:26} {}", made.tools.join(tool).display());
    }
    Ok(true)
}

/// What tests on API servers and of the chart find.
pub(crate) struct Made {
    pub(crate) servers: PathBuf,
    tools: PathBuf,
    /// Servers that cannot be had here.
    pub(crate) missing: Vec<&'static str>,
}

/// Makes sure of every server and tool; fast when they are there.
pub(crate) fn ensure() -> Result<Made> {
    make(&Args { refresh: false, from_source: false })
}

/// Makes sure of helm, kubectl and promtool alone; returns the directory that has them.
pub(crate) fn ensure_tools() -> Result<PathBuf> {
    let cache = cache()?;
    let servers = cache.join("kube");
    std::fs::create_dir_all(&servers)?;
    // The same lock as for the servers: two runs must not unpack one tool.
    let _locked = lock(&servers)?;
    let tools = cache.join("tools");
    release_tools::ensure(&tools, false)?;
    Ok(tools)
}

fn make(args: &Args) -> Result<Made> {
    let cache = cache()?;
    let (servers, tools) = (cache.join("kube"), cache.join("tools"));
    std::fs::create_dir_all(&servers)?;
    let _locked = lock(&servers)?;
    let missing = servers_into(&servers, args)?;
    release_tools::ensure(&tools, args.refresh)?;
    Ok(Made { servers, tools, missing })
}

fn servers_into(dir: &Path, args: &Args) -> Result<Vec<&'static str>> {
    let packed = packed();
    let mut to_build = Vec::new();
    let mut missing = Vec::new();
    for server in SERVERS {
        let path = dir.join(server.name);
        let build = args.from_source && server.source == Source::PackedOrBuilt;
        if path.exists() && !args.refresh && !build {
            continue;
        }
        if build {
            to_build.push(server.name);
        } else if let Some(asset) = asset(server.name) {
            say!("{}: {} (KUBEBUILDER_ASSETS)", server.name, asset.display());
            let _ = std::fs::remove_file(&path);
            symlink(&asset, &path).with_context(|| path.display().to_string())?;
        } else if let Some(from) =
            packed.as_ref().map(|dir| dir.join(format!("{}.xz", server.name))).filter(|from| from.exists())
        {
            unpack(&from, &path)?;
        } else if server.source == Source::PackedOrBuilt {
            to_build.push(server.name);
        } else {
            missing.push(server.name);
        }
    }
    if !to_build.is_empty() {
        let built = debian_source::build(&dir.join("build"))?;
        for name in to_build {
            place(&built.join(name), &dir.join(name))?;
        }
        std::fs::remove_dir_all(dir.join("build"))?;
    }
    Ok(missing)
}

/// The program in the directory where Kubernetes' own test tools look for it.
fn asset(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?).join(name);
    path.canonicalize().ok()
}

/// The folder of packed binaries, one `NAME.xz` each.
fn packed() -> Option<PathBuf> {
    let dir = std::env::var_os(PACKED).map_or_else(|| root().join("../shared/kube"), PathBuf::from);
    dir.canonicalize().ok()
}

fn unpack(packed: &Path, to: &Path) -> Result<()> {
    tools::ensure(&[&tools::XZ])?;
    say!("unpacking {}", packed.display());
    let part = to.with_extension("part");
    let status =
        Command::new("xz").arg("-dc").arg(packed).stdout(Stdio::from(File::create(&part)?)).status()?;
    ensure!(status.success(), "xz -dc {} ended with {status}", packed.display());
    place(&part, to)
}

/// Makes the file a program of its final name, at once: another process may be starting the old one.
fn place(from: &Path, to: &Path) -> Result<()> {
    std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o755))
        .with_context(|| from.display().to_string())?;
    std::fs::rename(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))
}
