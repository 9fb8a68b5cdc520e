//! A server whose objects are not as they should be.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use cluster_tests::Access;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use kube::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Changes an object of a kind (its plural) that the server sends.
pub(crate) type Alter = fn(&str, &mut Value);

/// Passes requests on to a server, and changes the objects in lists and watches. Ends when dropped.
pub(crate) struct Altered {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Altered {
    pub(crate) async fn start(server: &Access, alter: Alter) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(pass).with_state(Arc::new((server.client().await?, alter)));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, serving })
    }

    /// For everybody, with the rights of whom it was started for.
    pub(crate) fn access(&self) -> Access {
        Access::open(self.address.port())
    }
}

impl Drop for Altered {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(server): State<Arc<(Client, Alter)>>, request: Request) -> Response {
    match answer(&server.0, server.1, request).await {
        Ok(response) => response,
        Err(error) => match error.downcast::<kube::Error>() {
            Ok(kube::Error::Api(status)) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
                (code, serde_json::to_string(&status).unwrap_or_default()).into_response()
            }
            Ok(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        },
    }
}

async fn answer(client: &Client, alter: Alter, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let plural = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let watches = parts.uri.query().unwrap_or_default().contains("watch=");
    // Whom it is for says the client.
    for header in ["host", "content-length", "accept-encoding"] {
        parts.headers.remove(header);
    }
    let reads = parts.method == http::Method::GET;
    let request = http::Request::from_parts(parts, to_bytes(body, usize::MAX).await?.to_vec());
    if watches {
        let lines = client.request_stream(request).await?.lines();
        let altered = lines.map(move |line| {
            let line = line?;
            let mut event: Value = serde_json::from_str(&line)?;
            if event["type"] != "BOOKMARK" && event["type"] != "ERROR" {
                alter(&plural, &mut event["object"]);
            }
            // In the order of every API server, which the controller relies on: an object whose type is not known yet is read twice.
            let (kind, object) = (&event["type"], &event["object"]);
            std::io::Result::Ok(format!("{{\"type\":{kind},\"object\":{object}}}\n"))
        });
        return Ok(Body::from_stream(altered).into_response());
    }
    let mut object: Value = client.request(request).await?;
    if reads && let Some(items) = object["items"].as_array_mut() {
        for item in items {
            alter(&plural, item);
        }
    }
    Ok(object.to_string().into_response())
}
