//! What the controller answers over HTTP: `/metrics`, `/healthz`, `/readyz`, `/debug/state`, `/debug/explain`.
//!
//! It asks the loop, which answers between two events: a loop that does not answer is ill.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use telemetry::http;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::controller::{Event, Question};
use crate::metrics;
use crate::snapshot::Snapshot;

/// The loop may take this long to answer before it counts as ill.
const PATIENCE: Duration = Duration::from_secs(5);

const PATHS: &str = "\
/metrics                       Prometheus metrics
/healthz                       200 while the loop answers
/readyz                        200 once everything is known; whoever does not hold the lease is ready, too
/debug/state                   how things are, as JSON
/debug/explain?pod=NS/NAME     why a pod has its policy, or none, as JSON
";

type Loop = mpsc::Sender<Event>;

/// Listens, to be served by [`serve`].
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, events: Loop) {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/debug/state", get(state))
        .route("/debug/explain", get(explain))
        .fallback(async || http::not_found(PATHS))
        .with_state(events);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn ask<T>(events: &Loop, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    let asked = async {
        events.send(Event::Asked(question(sender))).await.ok()?;
        answer.await.ok()
    };
    timeout(PATIENCE, asked).await.ok().flatten()
}

fn no_answer() -> Response {
    http::verdict(Err(format!("the loop has not answered within {} s", PATIENCE.as_secs())))
}

async fn snapshot(events: &Loop) -> Option<Snapshot> {
    ask(events, Question::Snapshot).await
}

async fn show_metrics(State(events): State<Loop>) -> Response {
    snapshot(&events).await.map_or_else(no_answer, |snapshot| http::metrics(metrics::text(snapshot)))
}

async fn healthz(State(events): State<Loop>) -> Response {
    snapshot(&events).await.map_or_else(no_answer, |_| http::verdict(Ok("ok".to_owned())))
}

async fn readyz(State(events): State<Loop>) -> Response {
    let Some(snapshot) = snapshot(&events).await else { return no_answer() };
    http::verdict(if snapshot.awaited.is_empty() {
        let role = if snapshot.leading { "it holds the lease" } else { "another holds the lease" };
        Ok(format!("ready; {role}"))
    } else {
        Err(format!("not ready: waiting for the lists of {}", snapshot.awaited.join(", ")))
    })
}

async fn state(State(events): State<Loop>) -> Response {
    snapshot(&events).await.map_or_else(no_answer, |snapshot| http::json(&snapshot))
}

async fn explain(State(events): State<Loop>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let pod =
        query.split('&').find_map(|pair| pair.strip_prefix("pod=")).unwrap_or_default().replace("%2F", "/");
    let Some((namespace, name)) = pod.split_once('/') else {
        return (StatusCode::BAD_REQUEST, "say which: /debug/explain?pod=NAMESPACE/NAME\n").into_response();
    };
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    match ask(&events, |answer| Question::Explain { namespace, pod: name, answer }).await {
        Some(Some(explanation)) => http::json(&explanation),
        Some(None) => (StatusCode::NOT_FOUND, format!("there is no pod {pod}\n")).into_response(),
        None => no_answer(),
    }
}
