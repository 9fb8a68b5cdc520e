//! A bad network between a client and a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes TCP connections on to a server, and can hold them, slow them, and cut them. Ends with the runtime that it was
/// started on, or when dropped.
pub struct Proxy {
    address: SocketAddr,
    conditions: watch::Sender<Conditions>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// What happens to bytes now.
#[derive(Clone, Copy)]
struct Conditions {
    /// Nothing passes while this holds; nothing is lost either.
    held: bool,
    /// How late each piece is that the server sends.
    delay: Duration,
    /// Bytes from the server until every connection ends.
    cut_after: Option<u64>,
    /// Connections of an earlier generation end.
    generation: u64,
}

impl Proxy {
    /// Listens on a loopback port of its own for connections to `server`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let start = Conditions { held: false, delay: Duration::ZERO, cut_after: None, generation: 0 };
        let (conditions, _) = watch::channel(start);
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, accepted) = (conditions.clone(), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(client, server, sender.clone()));
            }
        });
        Ok(Self { address, conditions, connections, accepting })
    }

    /// Where clients connect; see [`Access::via`](crate::Access::via).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there have been so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ends every connection. New ones are passed on.
    pub fn cut(&self) {
        self.conditions.send_modify(|conditions| conditions.generation += 1);
    }

    /// Ends every connection once the server has sent so many bytes more: in the middle of whatever it is sending.
    pub fn cut_after(&self, bytes: u64) {
        self.conditions.send_modify(|conditions| conditions.cut_after = Some(bytes));
    }

    /// Stops passing anything on, or goes on with what came meanwhile.
    pub fn hold(&self, held: bool) {
        self.conditions.send_modify(|conditions| conditions.held = held);
    }

    /// Makes each piece that the server sends so late. Zero is the end of it.
    pub fn slow(&self, delay: Duration) {
        self.conditions.send_modify(|conditions| conditions.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn connection(client: TcpStream, server: SocketAddr, conditions: watch::Sender<Conditions>) {
    let mut changes = conditions.subscribe();
    let generation = changes.borrow().generation;
    // A server that is down refuses, and so does this.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, Direction::ToServer, &conditions) => {}
        () = pass(from_server, to_client, Direction::ToClient, &conditions) => {}
        _ = changes.wait_for(|now| now.generation != generation) => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Passes pieces on until one side ends or the proxy cuts.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    conditions: &watch::Sender<Conditions>,
) {
    let mut changes = conditions.subscribe();
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if direction == Direction::ToClient {
            let delay = changes.borrow().delay;
            tokio::time::sleep(delay).await;
        }
        let Ok(_) = changes.wait_for(|now| !now.held).await else { return };
        let (passes, last) = match direction {
            Direction::ToServer => (length, false),
            Direction::ToClient => take(length, conditions),
        };
        if to.write_all(&piece[..passes]).await.is_err() {
            return;
        }
        if last {
            conditions.send_modify(|now| now.generation += 1);
        }
    }
}

/// How many of the bytes pass before the cut that was ordered, and whether they are the last.
fn take(length: usize, conditions: &watch::Sender<Conditions>) -> (usize, bool) {
    let mut answer = (length, false);
    conditions.send_if_modified(|now| {
        let Some(left) = now.cut_after else { return false };
        let last = left <= length as u64;
        let passes = usize::try_from(left).unwrap_or(length).min(length);
        now.cut_after = (!last).then_some(left - passes as u64);
        answer = (passes, last);
        true
    });
    answer
}
