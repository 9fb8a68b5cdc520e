//! The node agent as a child process, on a tree of plain files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{Access, NodeTree, eventually};

/// A running agent, killed when dropped.
pub struct Agent {
    process: Process,
    log: PathBuf,
    /// How much of the log agents before this one wrote.
    log_before: usize,
}

impl Agent {
    /// Starts `agent-on-files`, whose path is `program`, as the agent of this node. Its log and its state are in the tree, so
    /// another agent on the same tree goes on where one before ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        program: &Path,
        tree: &NodeTree,
        access: &Access,
        node: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let run = tree.run();
        let file = |name: &str| run.join(name);
        access.write_kubeconfig(&file("kubeconfig"))?;
        let config = format!("listen: 127.0.0.1:0\nstateFile: {}\n", file("state").display());
        std::fs::write(file("agent.yaml"), config)?;
        let mut all = vec![
            "run".to_owned(),
            "--kubernetes".to_owned(),
            format!("--node-name={node}"),
            format!("--kubeconfig={}", file("kubeconfig").display()),
            format!("--config={}", file("agent.yaml").display()),
            "--log-format=json".to_owned(),
        ];
        all.extend(tree.arguments());
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let log = file("agent.log");
        let log_before = std::fs::metadata(&log).map_or(0, |log| usize::try_from(log.len()).unwrap_or(0));
        let process = Process::start(program, &all, &log)?;
        Ok(Self { process, log, log_before })
    }

    /// Its process, for measurements.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The messages that it has logged so far, with their fields.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(self.log_before..).unwrap_or_default()).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether it has logged a line with all these words.
    #[must_use]
    pub fn said(&self, words: &[&str]) -> bool {
        self.log().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Asks until there is an answer, as [`eventually`]; an error comes with the end of the agent's log.
    ///
    /// # Errors
    /// As [`eventually`], and when the agent has ended.
    pub async fn eventually<T>(
        &mut self,
        what: &str,
        mut ask: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let answer = eventually(what, async || {
            let answer = ask(self).await?;
            if answer.is_none()
                && let Some(status) = self.process.ended()?
            {
                bail!("the agent ended with {status}");
            }
            Ok(answer)
        })
        .await;
        answer.with_context(|| self.process.last_words())
    }

    /// Waits until a file's text, without the newline, is this.
    ///
    /// # Errors
    /// As [`Self::eventually`].
    pub async fn writes(&mut self, file: &Path, text: &str) -> Result<()> {
        let what = format!("{} is {text}", file.display());
        let read = || std::fs::read_to_string(file).unwrap_or_default();
        let written = self.eventually(&what, async |_| Ok((read().trim_end() == text).then_some(()))).await;
        written.with_context(|| format!("it is {:?}", read()))
    }

    /// What it serves at a path.
    ///
    /// # Errors
    /// When it serves nothing, or not with success.
    pub async fn get(&self, path: &str) -> Result<String> {
        let served = self.log().iter().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["address"].as_str()?.parse::<SocketAddr>().ok()
        });
        let address = served.context("it serves nothing yet")?;
        // Not by a client of API servers, which asks again and again where the answer is 503.
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "{path}: {status}");
        Ok(body.to_owned())
    }

    /// The value of a metric without labels.
    ///
    /// # Errors
    /// As [`Self::get`], and when there is no such metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("there is no metric {name}"))?.parse()?)
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Tells it to end, as kubelet does, and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        eventually("the agent ends", async || self.process.ended()).await
    }
}
