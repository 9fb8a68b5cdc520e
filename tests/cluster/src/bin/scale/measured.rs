//! A process that is measured from outside: by what the kernel accounts to it, and by its own metrics.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cluster_tests::eventually;

use crate::reflector::LISTED;

/// The kernel shows times of processes in this many ticks a second, whatever it counts in.
const USER_HZ: f64 = 100.0;
/// No write for this long, and none waiting: it has done what there was to do.
const QUIET: Duration = Duration::from_secs(2);
/// Longer without a write, though some wait, is a defect.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running process. Ended when dropped.
pub(crate) struct Measured {
    child: Child,
    started: Instant,
    address: SocketAddr,
}

/// The controller's counters that are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Also those that failed: they cost the server as much.
    pub(crate) node_writes: f64,
    pub(crate) failed_node_writes: f64,
    leading: bool,
    waiting: f64,
    /// Upper bounds in seconds, and how many were not longer.
    event_to_write: Vec<(f64, f64)>,
}

/// The state after a wait.
pub(crate) struct Settled {
    /// Since the process started.
    pub(crate) elapsed: Duration,
    pub(crate) counts: Counts,
}

impl Measured {
    pub(crate) fn controller(binary: &Path, kubeconfig: &Path) -> Result<Self> {
        // Free, and free again at once: nothing else of ours listens.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command.arg("--kubeconfig").arg(kubeconfig).args(["--http-address", &address.to_string()]);
        command.args(["--lease-namespace", "default", "--log-level", "warn"]).stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { child, started: Instant::now(), address })
    }

    pub(crate) fn reflector(kubeconfig: &Path) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe()?);
        command.arg("reflector").arg("--kubeconfig").arg(kubeconfig);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        Ok(Self { child, started: Instant::now(), address: SocketAddr::from(([127, 0, 0, 1], 0)) })
    }

    /// Waits until the reflector has all pods; how long after its start that was.
    pub(crate) async fn until_listed(&mut self) -> Result<Duration> {
        let output = self.child.stdout.take().context("its output is read once")?;
        let mut line = String::new();
        let line = tokio::task::spawn_blocking(move || {
            BufReader::new(output).read_line(&mut line)?;
            std::io::Result::Ok(line)
        })
        .await??;
        ensure!(line.trim() == LISTED, "the reflector ended");
        Ok(self.started.elapsed())
    }

    /// Waits until the controller knows everything; how long after its start that was.
    pub(crate) async fn until_ready(&mut self) -> Result<Duration> {
        eventually("the controller is ready", async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the controller ended with {status}");
            }
            Ok(self.get("/readyz").is_ok().then_some(()))
        })
        .await?;
        Ok(self.started.elapsed())
    }

    /// Waits until at least so many writes of nodes were made, and none is waiting.
    pub(crate) async fn until_written(&self, writes: f64) -> Result<Settled> {
        let mut seen = (Instant::now(), 0.0);
        loop {
            let counts = self.counts()?;
            if counts.node_writes > seen.1 {
                seen = (Instant::now(), counts.node_writes);
            }
            if counts.leading
                && counts.waiting == 0.0
                && counts.node_writes >= writes
                && seen.0.elapsed() > QUIET
            {
                return Ok(Settled { elapsed: seen.0 - self.started, counts });
            }
            ensure!(
                seen.0.elapsed() < PATIENCE,
                "no write for {PATIENCE:?}, {} of {writes} were seen, and {} nodes wait",
                counts.node_writes,
                counts.waiting
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The controller's counters.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let text = self.get("/metrics")?;
        let mut counts = Counts::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "thermocline_controller_leader" => counts.leading = value > 0.5,
                "thermocline_controller_nodes_waiting" => counts.waiting = value,
                "thermocline_controller_writes_total" if labels.contains("kind=\"node_tiering\"") => {
                    counts.node_writes += value;
                    if !labels.contains("result=\"ok\"") {
                        counts.failed_node_writes += value;
                    }
                }
                "thermocline_controller_event_to_write_seconds_bucket" => {
                    let bound = labels.split('"').nth(1).and_then(|bound| bound.parse().ok());
                    counts.event_to_write.push((bound.unwrap_or(f64::INFINITY), value));
                }
                _ => {}
            }
        }
        Ok(counts)
    }

    /// Processor time since its start, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        status(self.child.id(), "VmRSS:")
    }

    /// The most that ever was resident, in bytes.
    pub(crate) fn highest_resident(&self) -> Result<u64> {
        status(self.child.id(), "VmHWM:")
    }

    /// Ends it as Kubernetes does, and waits for it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
        let status = eventually("it ends", async || Ok(self.child.try_wait()?)).await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        Ok(answer)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Counts {
    /// A bound that this share of the writes since `before` kept, in seconds.
    pub(crate) fn event_to_write(&self, before: &Self, quantile: f64) -> f64 {
        let earlier = |bound: f64| {
            before
                .event_to_write
                .iter()
                .find(|(b, _)| b.total_cmp(&bound).is_eq())
                .map_or(0.0, |(_, count)| *count)
        };
        let since: Vec<_> =
            self.event_to_write.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        let all = since.last().map_or(0.0, |(_, count)| *count);
        since.iter().find(|(_, count)| *count >= all * quantile).map_or(f64::NAN, |(bound, _)| *bound)
    }
}

/// Processor time of a process since its start, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The command name may hold blanks: fields count from the last bracket, state being the third.
    let (_, fields) = stat.rsplit_once(')').context("no command name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / USER_HZ)
}

fn status(process: u32, key: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024)
}
