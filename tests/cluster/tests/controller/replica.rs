//! One controller: a process with a port.

use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context as _, Result, bail};
use cluster_tests::{Access, Process, eventually, free_port};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::SYSTEM;

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_controller-under-test");

/// A running controller.
pub(crate) struct Replica {
    process: Process,
    http: Access,
    // Removed after the process is killed: fields are dropped in order.
    _dir: TempDir,
}

impl Replica {
    pub(crate) fn start(access: &Access, identity: &str, arguments: &[&str]) -> Result<Self> {
        let dir = TempDir::with_prefix("thermocline-controller-")?;
        let kubeconfig = dir.path().join("kubeconfig");
        access.write_kubeconfig(&kubeconfig)?;
        let http = Access::open(free_port()?);
        let (address, kubeconfig) = (http.address().to_string(), kubeconfig.display().to_string());
        let own = ["--kubeconfig", &kubeconfig, "--identity", identity, "--http-address", &address];
        let rest = [
            "--lease-namespace",
            SYSTEM,
            "--log-format",
            "json",
            "--log-level",
            "info,controller::event_queue=debug",
        ];
        let all: Vec<String> = [&own[..], &rest, arguments].concat().into_iter().map(str::to_owned).collect();
        let process = Process::start(Path::new(PROGRAM), &all, &dir.path().join("log"))?;
        Ok(Self { process, http, _dir: dir })
    }

    /// What it answers on a path; `None` while it does not, or where there is no such thing.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<String>> {
        if let Some(status) = self.process.ended()? {
            bail!("it ended with {status}; {}", self.process.last_words());
        }
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.http.client().await?.request_text(request).await.ok())
    }

    /// How it says things are.
    pub(crate) async fn state(&mut self) -> Result<Option<Value>> {
        Ok(match self.get("/debug/state").await? {
            Some(text) => Some(serde_json::from_str(&text)?),
            None => None,
        })
    }

    /// Waits until its state is as asked.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        let waited = eventually(what, async || {
            last = self.state().await?;
            Ok(last.clone().filter(&is_so))
        });
        waited.await.with_context(|| format!("its state was {}", last.unwrap_or_default()))
    }

    /// Waits until it holds the lease and knows everything.
    pub(crate) async fn until_leading(&mut self) -> Result<()> {
        self.until("it leads", |state| state["leading"] == true && is_synced(state)).await.map(|_| ())
    }

    /// Waits until it knows everything, and does not hold the lease.
    pub(crate) async fn until_waiting(&mut self) -> Result<()> {
        self.until("it waits", |state| state["leading"] == false && is_synced(state)).await.map(|_| ())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.until_ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn until_ended(&mut self) -> Result<ExitStatus> {
        eventually("it ends", async || self.process.ended()).await
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

fn is_synced(state: &Value) -> bool {
    state["awaited"].as_array().is_some_and(Vec::is_empty)
}

/// Writes of nodes that failed, by its state: each may have been carried out, and is done again.
pub(crate) fn failed_writes(state: &Value) -> u64 {
    let results = state["tallies"]["writes"]["node_tiering"].as_object().into_iter().flatten();
    let failed = results.filter(|(result, _)| *result != "ok");
    failed.filter_map(|(_, count)| count.as_u64()).sum()
}
