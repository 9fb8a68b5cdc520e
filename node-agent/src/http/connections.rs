//! Connections: few, short, and the oldest makes room.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// More at a time are for nobody's good: a scraper, kubelet and a person need a handful.
const MOST: usize = 32;

/// A request's head has this time to come.
const HEAD: Duration = Duration::from_secs(5);

/// A connection has this time from its beginning to its end.
const WHOLE: Duration = Duration::from_secs(30);

/// A request's head may be this long. Requests have no body that is read.
const HEAD_BYTES: usize = 16 << 10;

/// Where there is no descriptor for another connection, it is tried again after this time.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What is answered.
pub(super) struct Routers {
    /// To peers on this host.
    pub(super) here: Router,
    /// To others.
    pub(super) elsewhere: Router,
}

/// Takes connections for ever.
pub(super) async fn serve(listener: TcpListener, routers: Routers) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection could be taken");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let router = if is_here(peer.ip()) { &routers.here } else { &routers.elsewhere };
        let service = TowerToHyperService::new(router.clone());
        let connection = tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
            // How it ended is the peer's business.
            let _ = timeout(WHOLE, http.serve_connection(TokioIo::new(stream), service)).await;
        });
        open.push_back(connection.abort_handle());
    }
}

/// Whether a peer is on this host: a listener on `[::]` shows IPv4 addresses as mapped ones.
fn is_here(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}
