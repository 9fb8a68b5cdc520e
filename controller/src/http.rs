//! What the controller serves over HTTP: `/metrics`, `/healthz`, `/readyz`, `/debug/state`, `/debug/explain`.
//!
//! All but the last show what the loop published, every second: one that has not for a while is ill. However many ask, and how
//! often, the loop does nothing for them; of those who ask it to explain, one is answered at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use telemetry::http;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::controller::{Event, Published, Question};
use crate::index::Explanation;
use crate::metrics;
use crate::snapshot::Snapshot;

/// The loop may take this long to answer before it counts as ill.
const PATIENCE: Duration = Duration::from_secs(5);

const PATHS: &str = "\
/metrics                       Prometheus metrics
/healthz                       200 while the loop runs
/readyz                        200 once everything is known; whoever does not hold the lease is ready, too
/debug/state                   how things are, as JSON
/debug/explain?pod=NS/NAME     why a pod has its policy, or none, as JSON
";

#[derive(Clone)]
struct Loop {
    events: mpsc::Sender<Event>,
    published: watch::Receiver<Published>,
    /// One question at a time.
    explaining: Arc<Semaphore>,
}

/// Listens, to be served by [`serve`].
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the process ends.
pub async fn serve(
    listener: TcpListener,
    events: mpsc::Sender<Event>,
    published: watch::Receiver<Published>,
) {
    let explaining = Arc::new(Semaphore::new(1));
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/debug/state", get(state))
        .route("/debug/explain", get(explain))
        .fallback(async || http::not_found(PATHS))
        .with_state(Loop { events, published, explaining });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

fn no_answer() -> Response {
    http::verdict(Err(format!("the loop has not answered within {} s", PATIENCE.as_secs())))
}

impl Loop {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let published = self.published.borrow();
        (published.at.elapsed() < PATIENCE).then(|| Arc::clone(&published.snapshot))
    }

    async fn explain(&self, namespace: String, pod: String) -> Option<Option<Explanation>> {
        let asked = async {
            let _turn = self.explaining.acquire().await.ok()?;
            let (answer, answered) = oneshot::channel();
            self.events.send(Event::Asked(Question { namespace, pod, answer })).await.ok()?;
            answered.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

async fn show_metrics(State(it): State<Loop>) -> Response {
    it.snapshot().map_or_else(no_answer, |snapshot| http::metrics(metrics::text(snapshot)))
}

async fn healthz(State(it): State<Loop>) -> Response {
    it.snapshot().map_or_else(no_answer, |_| http::verdict(Ok("ok".to_owned())))
}

async fn readyz(State(it): State<Loop>) -> Response {
    let Some(snapshot) = it.snapshot() else { return no_answer() };
    http::verdict(if snapshot.awaited.is_empty() && !snapshot.synced.is_empty() {
        let role = if snapshot.leading { "it holds the lease" } else { "another holds the lease" };
        Ok(format!("ready; {role}"))
    } else {
        Err(format!("not ready: waiting for the lists of {}", snapshot.awaited.join(", ")))
    })
}

async fn state(State(it): State<Loop>) -> Response {
    it.snapshot().map_or_else(no_answer, |snapshot| http::json(&*snapshot))
}

async fn explain(State(it): State<Loop>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let pod =
        query.split('&').find_map(|pair| pair.strip_prefix("pod=")).unwrap_or_default().replace("%2F", "/");
    let Some((namespace, name)) = pod.split_once('/') else {
        return (StatusCode::BAD_REQUEST, "say which: /debug/explain?pod=NAMESPACE/NAME\n").into_response();
    };
    match it.explain(namespace.to_owned(), name.to_owned()).await {
        Some(Some(explanation)) => http::json(&explanation),
        Some(None) => (StatusCode::NOT_FOUND, format!("there is no pod {pod}\n")).into_response(),
        None => no_answer(),
    }
}
