//! What the agent answers over HTTP: `/metrics`, `/healthz`, `/readyz`, `/debug/state`, `/debug/picture`.
//!
//! On a thread of its own, so that neither a round that hangs in the kernel nor the API server's client keeps it from answering. It
//! reads what the loop published and changes nothing. Who asks slowly, often or for much costs little: a request has seconds, there
//! are few connections and the oldest makes room for a new one, and what is told of one picture is written down once. `/debug` is
//! answered to this host alone.

mod connections;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use telemetry::http;

use crate::agent::LONGEST_PAUSE;
use crate::background::Background;
use crate::metrics::Metrics;
use crate::picture::live_picture;
use crate::shown::Shown;
use crate::snapshot::{Published, Snapshot};

/// A round may be this late, whatever the interval, before the agent calls itself ill.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

const PATHS: &str = "\
/metrics      Prometheus metrics
/healthz      200 while the loop makes its rounds
/readyz       200 once the first round is done with an accepted configuration
/debug/state  everything the last round saw and decided, as JSON
/debug/picture?width=100&height=30&colour=yes  the same as a picture for a terminal
";

const ONLY_HERE: &str = "told to this host only: ask from there, or through `kubectl port-forward`\n";

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not to be had.
    #[error(
        "cannot listen on {listen} for /metrics and /healthz: {source}; another agent or program may have the port. Set \
         `listen` in the configuration to an address of this host with a free port, or to \"off\""
    )]
    Bind {
        /// The address asked for.
        listen: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no thread to be had.
    #[error(
        "cannot start the thread that answers over HTTP: {0}; look at the limit on tasks of the agent's unit"
    )]
    Thread(io::Error),
    /// Two metrics contradict each other.
    #[error("cannot make the metrics: {0}; this is a defect of the agent, please report it")]
    Metrics(#[from] prometheus::Error),
}

/// The HTTP server of the agent.
pub struct Server;

impl Server {
    /// Listens on `listen` (port 0 takes a free one) and answers from what `published` holds. `interval` is the time
    /// between two rounds, by which `/healthz` judges: twice the longest pause of an idle agent is too long.
    pub fn start(
        listen: SocketAddr,
        published: Published,
        interval: Duration,
    ) -> Result<ServerHandle, ServeError> {
        let app = Arc::new(App {
            metrics: Metrics::new(published.clone())?,
            published,
            told: Mutex::default(),
            patience: LEAST_PATIENCE.max(interval.saturating_mul(2 * LONGEST_PAUSE)),
            started: unix_now(),
        });
        let background = Background::start().map_err(ServeError::Thread)?;
        let bind = |source| ServeError::Bind { listen, source };
        let listener = std::net::TcpListener::bind(listen).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;

        let listener = {
            let _entered = background.handle().enter();
            tokio::net::TcpListener::from_std(listener).map_err(bind)?
        };
        let routers = connections::Routers { here: router(&app, true), elsewhere: router(&app, false) };
        background.handle().spawn(connections::serve(listener, routers));
        Ok(ServerHandle { address, _background: background })
    }
}

/// A running server; stops listening when dropped.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    /// Its thread, which ends with it.
    _background: Background,
}

impl ServerHandle {
    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct App {
    metrics: Metrics,
    published: Published,
    told: Mutex<Told>,
    patience: Duration,
    started: f64,
}

/// What was told of the last picture that was asked for: texts only, for the picture would be megabytes until the next question.
#[derive(Default)]
struct Told {
    rounds: u64,
    metrics: Option<Bytes>,
    state: Option<Bytes>,
}

impl App {
    /// A text of the last picture, made at most once: kept in `place`.
    fn tell(
        &self,
        place: impl Fn(&mut Told) -> &mut Option<Bytes>,
        make: impl FnOnce(&Snapshot) -> Result<String, String>,
    ) -> Result<Bytes, String> {
        let latest = self.published.latest();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.rounds != latest.rounds || latest.rounds == 0 {
            *told = Told { rounds: latest.rounds, ..Told::default() };
        }
        if let Some(text) = place(&mut told) {
            return Ok(text.clone());
        }
        let text = Bytes::from(make(&latest)?);
        *place(&mut told) = Some(text.clone());
        Ok(text)
    }
}

/// What is answered to a peer: to one of this host everything.
fn router(app: &Arc<App>, here: bool) -> Router {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || http::not_found(PATHS));
    let router = if here {
        router.route("/debug/state", get(debug_state)).route("/debug/picture", get(debug_picture))
    } else {
        router.route("/debug/{*what}", get(async || (StatusCode::FORBIDDEN, ONLY_HERE)))
    };
    router.with_state(Arc::clone(app))
}

fn text(kind: &'static str, text: Result<Bytes, String>) -> Response {
    match text {
        Ok(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error + "\n").into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let make = |_: &Snapshot| app.metrics.text().map_err(|error| error.to_string());
    text(prometheus::TEXT_FORMAT, app.tell(|told| &mut told.metrics, make))
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    http::verdict(health(&app.published.latest(), app.started, unix_now(), app.patience))
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    http::verdict(readiness(&app.published.latest()))
}

async fn debug_state(State(app): State<Arc<App>>) -> Response {
    let make = |snapshot: &Snapshot| {
        serde_json::to_string_pretty(snapshot).map(|json| json + "\n").map_err(|error| error.to_string())
    };
    text("application/json", app.tell(|told| &mut told.state, make))
}

async fn debug_picture(State(app): State<Arc<App>>, uri: Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let value = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    };
    // A terminal has at most as many columns as this; a slip of the pen asks for no gigabytes.
    let size =
        |key, default: usize| value(key).and_then(|text| text.parse().ok()).unwrap_or(default).min(1000);
    let colour = value("colour") == Some("yes");
    let shown = Shown::of(&app.published.latest()).unwrap_or_default();
    live_picture(&shown, size("width", 100), size("height", 30), colour)
}

/// Whether the loop makes its rounds, at Unix time `now`. Before the first one, counted from `started`.
fn health(snapshot: &Snapshot, started: f64, now: f64, patience: Duration) -> Result<String, String> {
    let patience = patience.as_secs_f64();
    if snapshot.rounds == 0 {
        let waited = now - started;
        return if waited <= patience {
            Ok(format!("ok: started {waited:.1} s ago, the first round is not done yet"))
        } else {
            Err(format!(
                "no round has ended since the start {waited:.1} s ago; more than {patience:.0} s is too long"
            ))
        };
    }
    let age = now - snapshot.last_round_unix_seconds;
    let rounds = snapshot.rounds;
    if age <= patience {
        Ok(format!("ok: round {rounds} ended {:.1} s ago", age.max(0.0)))
    } else {
        Err(format!(
            "stalled: round {rounds} ended {age:.1} s ago; more than {patience:.0} s is too long. /debug/state has \
             what it saw; a write to the kernel may hang"
        ))
    }
}

/// Whether the agent does what it is there for. In a cluster, that is to know what is assigned to its node: from the API server, also
/// where the controller has not assigned anything yet, or as it was last known.
fn readiness(snapshot: &Snapshot) -> Result<String, String> {
    if let Some(cluster) = &snapshot.cluster {
        return match (snapshot.rounds, cluster.generation, cluster.last_contact_unix_seconds) {
            (0, ..) => Err("not ready: the first round is not done".to_owned()),
            (_, None, None) => {
                Err("not ready: the API server was not reached yet, and nothing is known from before"
                    .to_owned())
            }
            (_, None, Some(_)) => Ok(format!("ready: there is no NodeTiering {} yet", cluster.node)),
            (_, Some(_), _) if cluster.api_server_up => Ok("ready".to_owned()),
            (_, Some(_), _) => Ok("ready, with what was last known: the API server is away".to_owned()),
        };
    }
    let refused = snapshot.config.error.as_deref();
    if snapshot.config.loads == 0 {
        return Err(match refused {
            Some(error) => format!("not ready: the configuration was refused: {error}"),
            None => "not ready: no configuration is loaded".to_owned(),
        });
    }
    if snapshot.rounds == 0 {
        return Err("not ready: the first round is not done".to_owned());
    }
    Ok(match refused {
        Some(error) => format!("ready, with an older configuration: the newest was refused: {error}"),
        None => "ready".to_owned(),
    })
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::exit::{ExitCode, Failure};
    use crate::fixture;
    use crate::snapshot::ClusterView;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn serve(snapshot: Snapshot) -> ServerHandle {
        let published = Published::default();
        published.publish(snapshot);
        Server::start(LOOPBACK, published, Duration::from_secs(1)).unwrap()
    }

    fn ask(server: &ServerHandle, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        (status, body.to_owned())
    }

    fn just_now() -> Snapshot {
        Snapshot { last_round_unix_seconds: unix_now(), ..fixture::full() }
    }

    #[test]
    fn metrics_are_served_as_text() {
        let server = serve(just_now());
        let (status, body) = ask(&server, "/metrics");
        assert_eq!(status, 200);
        assert!(body.contains("\nthermocline_rounds_total 42\n"), "{body}");
    }

    #[test]
    fn the_state_is_json_with_sums_under_joined_keys() {
        let server = serve(just_now());
        let (status, body) = ask(&server, "/debug/state");
        assert_eq!(status, 200);
        let state: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(state["totals"]["demoted_bytes"]["lru-gen/cold"], 803 << 20);
        assert_eq!(state["cgroups"]["pods/web"]["decision"]["text"], "hold: nothing is cold");
        assert_eq!(state["conditions"][0]["type"], "Enforcing");
    }

    #[test]
    fn the_picture_has_the_size_and_colour_asked_for() {
        let server = serve(just_now());
        let (status, plain) = ask(&server, "/debug/picture?width=60&height=8");
        assert_eq!(status, 200);
        assert!(
            plain.lines().count() <= 8 && plain.lines().all(|line| line.chars().count() <= 60),
            "{plain}"
        );
        let (_, coloured) = ask(&server, "/debug/picture?width=60&height=8&colour=yes");
        assert_eq!(fixture::without_colours(&coloured), plain);
        assert_ne!(coloured, plain);
        assert!(ask(&server, "/debug/picture?width=wide").1.contains("thermocline"));
    }

    #[test]
    fn an_unknown_path_is_answered_with_the_known_ones() {
        let server = serve(just_now());
        let (status, body) = ask(&server, "/");
        assert_eq!(status, 404);
        assert!(body.contains("/metrics") && body.contains("/debug/state"), "{body}");
    }

    #[test]
    fn a_round_just_made_is_healthy_and_ready() {
        let server = serve(just_now());
        assert_eq!(ask(&server, "/healthz").0, 200);
        assert_eq!(ask(&server, "/readyz").0, 200);
    }

    #[test]
    fn a_loop_that_stopped_is_told_with_its_age() {
        let server = serve(Snapshot { last_round_unix_seconds: unix_now() - 31.0, ..fixture::full() });
        let (status, body) = ask(&server, "/healthz");
        assert_eq!(status, 503);
        assert!(body.starts_with("stalled: round 42 ended 31."), "{body}");
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_what_to_do() {
        let server = serve(just_now());
        let error =
            Server::start(server.address(), Published::default(), Duration::from_secs(1)).unwrap_err();
        let words = error.to_string();
        assert!(words.contains(&server.address().to_string()) && words.contains("`listen`"), "{words}");
        let failure = Failure::from(error);
        assert_eq!(failure.code(), ExitCode::Usage);
        assert!(!failure.to_string().contains("to do:"), "{failure}");
    }

    #[test]
    fn a_dropped_server_gives_its_port_back() {
        let server = serve(just_now());
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn slow_readers_are_put_off_and_health_is_answered_meanwhile() {
        let server = serve(just_now());
        let slow: Vec<TcpStream> = (0..200)
            .map(|_| {
                let mut stream = TcpStream::connect(server.address()).unwrap();
                write!(stream, "GET /debug/state HTTP/1.1\r\nHost: x\r\n").unwrap();
                stream
            })
            .collect();
        assert_eq!(ask(&server, "/healthz").0, 200);
        // The first had to make room: its end is seen.
        let mut first = slow.into_iter().next().unwrap();
        first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(first.read(&mut [0; 16]), Ok(0) | Err(_)));
        assert_eq!(ask(&server, "/healthz").0, 200);
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let server = serve(just_now());
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let long = "x".repeat(64 << 10);
        let _ = write!(stream, "GET / HTTP/1.1\r\nHost: {long}");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }

    #[test]
    fn debug_is_for_this_host_alone() {
        use tower::ServiceExt as _;

        let (background, published) = (Background::start().unwrap(), Published::default());
        published.publish(just_now());
        let app = Arc::new(App {
            metrics: Metrics::new(published.clone()).unwrap(),
            published,
            told: Mutex::default(),
            patience: LEAST_PATIENCE,
            started: unix_now(),
        });
        for (here, path, status) in [
            (true, "/debug/state", 200),
            (false, "/debug/state", 403),
            (false, "/debug/picture", 403),
            (false, "/metrics", 200),
            (false, "/healthz", 200),
        ] {
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let answer = background.handle().block_on(router(&app, here).oneshot(request)).unwrap();
            assert_eq!(answer.status().as_u16(), status, "{here} {path}");
        }
    }

    #[test]
    fn health_is_counted_in_intervals_but_at_least_ten_seconds() {
        let at = |snapshot: &Snapshot, now, patience| {
            health(snapshot, 100.0, now, Duration::from_secs(patience)).is_ok()
        };
        let fresh = Snapshot::default();
        assert!(at(&fresh, 109.0, 10) && !at(&fresh, 111.0, 10));
        let running = Snapshot { rounds: 1, last_round_unix_seconds: 200.0, ..Snapshot::default() };
        assert!(at(&running, 210.0, 10) && !at(&running, 210.5, 10) && at(&running, 290.0, 90));
        // A clock set back is no reason to restart the agent.
        assert!(at(&running, 150.0, 10));
    }

    #[test]
    fn ready_is_a_round_with_a_configuration() {
        let with = |rounds, loads, error: Option<&str>| {
            let mut snapshot = Snapshot { rounds, ..Snapshot::default() };
            snapshot.config.loads = loads;
            snapshot.config.error = error.map(str::to_owned);
            readiness(&snapshot)
        };
        assert_eq!(with(1, 1, None), Ok("ready".to_owned()));
        assert!(with(0, 1, None).unwrap_err().contains("first round"));
        assert!(with(1, 0, Some("a.yaml:1:2: bad")).unwrap_err().contains("a.yaml:1:2"));
        assert!(with(9, 1, Some("a.yaml:1:2: bad")).unwrap().contains("older configuration"));
    }

    #[test]
    fn ready_in_a_cluster_is_to_know_what_is_assigned() {
        let with = |rounds, generation, contact: Option<f64>, up| {
            let cluster = ClusterView {
                node: "n1".to_owned(),
                generation,
                last_contact_unix_seconds: contact,
                api_server_up: up,
                ..ClusterView::default()
            };
            readiness(&Snapshot { rounds, cluster: Some(cluster), ..Snapshot::default() })
        };
        assert!(with(0, Some(3), Some(1.0), true).unwrap_err().contains("first round"));
        assert!(with(1, None, None, false).unwrap_err().contains("not reached"));
        assert!(with(1, None, Some(1.0), true).unwrap().contains("no NodeTiering n1 yet"));
        assert_eq!(with(1, Some(3), Some(1.0), true).unwrap(), "ready");
        assert!(with(1, Some(3), None, false).unwrap().contains("last known"));
    }
}
