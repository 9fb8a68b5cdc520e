//! What every server here is: a process with a loopback port, a directory, and a path that says when it is ready.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::process::{Process, free_port, server_binary};
use crate::{Access, eventually};

/// A running server, or one that was killed and keeps its port and data.
pub(crate) struct Server {
    name: &'static str,
    process: Process,
    arguments: Vec<String>,
    access: Access,
    ready: &'static str,
    // Removed after the process is killed: fields are dropped in order.
    dir: TempDir,
}

impl Server {
    /// Starts a server whose data, log and keys are in `dir`, and waits until it answers on the path `ready`.
    ///
    /// `on_port` says how to run it on a port, and how its administrator reaches it there.
    ///
    /// # Errors
    /// When it cannot be started, or ends, with the last lines of its log.
    pub(crate) async fn start(
        name: &'static str,
        mut dir: TempDir,
        ready: &'static str,
        on_port: impl Fn(u16, &Path) -> Result<(Vec<String>, Access)>,
    ) -> Result<Self> {
        loop {
            let (arguments, access) = on_port(free_port()?, dir.path())?;
            let log = log(dir.path(), name);
            let process = Process::start(&server_binary(name)?, &arguments, &log)?;
            let mut server = Self { name, process, arguments, access, ready, dir };
            match server.until_ready().await {
                Ok(()) => return Ok(server),
                // Taken since it was found free.
                Err(error) if format!("{error:#}").contains("address already in use") => {
                    server.process.kill();
                    let _ = std::fs::remove_file(log);
                    dir = server.dir;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How the administrator reaches it.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.access.address()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it if it runs, starts it again on the same port and data, and waits until it is ready.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        let log = log(self.dir.path(), self.name);
        self.process = Process::start(&server_binary(self.name)?, &self.arguments, &log)?;
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        let client = self.access.client().await?;
        let (name, ready) = (self.name, self.ready);
        eventually(&format!("{name} is ready"), async || {
            if let Some(status) = self.process.ended()? {
                bail!("{name} ended with {status}; {}", self.process.last_words());
            }
            let request = http::Request::get(ready).body(Vec::new())?;
            Ok(client.request_text(request).await.is_ok().then_some(()))
        })
        .await
    }
}

fn log(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(name).with_extension("log")
}
