//! The cluster around the guest, which is a program of its own: `tests/cluster/src/bin/control_plane.rs`. So build tasks need
//! no client of Kubernetes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use thermocline_tests::node::{ADMIN_CONFIG, AGENT, API_SERVER, KUBELET_CONFIG, NAME};

use crate::guest_image::root;
use crate::{say, tools};

const PROGRAM: &str = "control_plane";
const CONTROLLER: &str = "thermocline-controller";
const CONTROLLER_LOG: &str = "controller.log";
/// Lines of the controller's log that a failure shows.
const LAST_LINES: usize = 40;

/// Servers and controller, ready for the node. They end when it is dropped.
pub(super) struct ControlPlane {
    program: Child,
    port: u16,
    /// What the program writes.
    directory: TempDir,
}

impl ControlPlane {
    /// Builds and starts them.
    pub(super) fn start() -> Result<Self> {
        tools::ensure(&[&tools::SETPRIV])?;
        let binaries = build()?;
        say!("starting a control plane and the controller on loopback");
        let directory = TempDir::with_prefix("thermocline-node-")?;
        let mut command = Command::new(tools::SETPRIV.program);
        command.args(["--pdeathsig", "KILL", "--"]).arg(binaries.join(PROGRAM));
        command.args(["--node", NAME]);
        command.arg("--address").arg(SocketAddr::from(API_SERVER).to_string());
        command.arg("--controller").arg(binaries.join(CONTROLLER)).arg(directory.path());
        let mut program =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("control_plane")?;
        let stdout = program.stdout.take().context("stdout")?;
        let mut plane = Self { program, port: 0, directory };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        plane.port = line.trim().parse().context("the control plane did not start")?;
        Ok(plane)
    }

    /// Port of the API server on loopback.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What the guest needs to know of this cluster, by the path there.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        [(ADMIN_CONFIG, "admin.conf"), (KUBELET_CONFIG, "kubelet.conf"), (AGENT, "agent.yaml")]
            .into_iter()
            .map(|(inside, name)| {
                Ok((inside.into(), std::fs::read(self.directory.path().join(name)).context(name)?))
            })
            .collect()
    }

    /// The end of the controller's log.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join(CONTROLLER_LOG)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!(
            "the end of the controller's log:\n{}",
            lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
        )
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // It ends with its standard input, and removes what the servers stored.
        drop(self.program.stdin.take());
        let _ = self.program.wait();
    }
}

/// Builds both as part of the whole workspace, as tests do: the dependencies are the same then.
fn build() -> Result<PathBuf> {
    say!("building the control plane's programs");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--workspace", "--bin", PROGRAM, "--bin", CONTROLLER]);
    ensure!(cargo.current_dir(root()).status().context("cargo")?.success(), "they do not build");
    // Beside this program.
    let own = std::env::current_exe()?;
    Ok(own.parent().context("a program is in a directory")?.to_owned())
}
