//! `cargo xtask node`: a real Kubernetes node in a guest; the control plane and the controller are on the host's loopback.

mod control_plane;
mod image;
mod packages;

use anyhow::{Result, ensure};
use thermocline_tests::node::API_SERVER;
use thermocline_tests::scenario::{Kernel, Machine, NODE};

use crate::guest_image::{busybox, extend};
use crate::machines::MachineArgs;
use crate::qemu::Network;
use crate::vm::{Guests, Outcome};
use crate::{kube, out};
use control_plane::ControlPlane;

/// Servers without which there is no node. etcd and kube-apiserver can be had everywhere.
const NEEDED: [&str; 3] = ["kube-controller-manager", "kube-scheduler", "kubelet"];

/// Which node.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Show the kernel's messages, too
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let machine = args.machine.or(Kernel::V7_2);
    let outcome = prove(machine, args.verbose, |line| out!("{line}"))?;
    out!("{}", outcome.summary());
    Ok(outcome.pass())
}

/// Runs the scenario on a node of that machine, in a cluster of its own.
fn prove(machine: Machine, kernel_messages: bool, show: impl FnMut(&str)) -> Result<Outcome> {
    ensure!(NODE.runs_on(machine), "{} says nothing on {machine}: {}", NODE.name, NODE.about);
    let servers = kube::ensure()?;
    let missing: Vec<_> = servers.missing.iter().copied().filter(|server| NEEDED.contains(server)).collect();
    ensure!(missing.is_empty(), "no {} here; see `cargo xtask kube`", missing.join(", "));
    let guests = Guests::prepare(&[machine.kernel], true, false)?;
    // By the host's clock: the guest talks to servers that live by it.
    let mut guest = guests.guest(machine, Some(&NODE), true, kernel_messages)?;
    let cluster = ControlPlane::start()?;
    let mut files = cluster.files()?;
    files.extend(image::files(guests.cache(), &servers)?);
    let directory = tempfile::TempDir::with_prefix_in("node-", guests.cache())?;
    guest.initramfs = extend(&guest.initramfs, &files, directory.path())?;
    guest.network = Some(Network {
        address: API_SERVER,
        relay: format!("{} nc 127.0.0.1 {}", busybox(guests.cache())?.display(), cluster.port()),
    });
    let outcome = guests.run(&NODE, &guest, show)?;
    if !outcome.pass() {
        out!("{}", cluster.last_words());
    }
    Ok(outcome)
}
