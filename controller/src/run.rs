//! Starts everything, and ends with it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch as watch_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::controller::{Controller, Event};
use crate::event_queue;
use crate::exit::{ExitCode, Failure};
use crate::http;
use crate::lease::Candidate;
use crate::once;
use crate::owner::{self, Owner};
use crate::watch::objects::{Kind, Namespace, Node, NodeTiering, Pod, Policy};
use crate::watch::{LONGEST, watch, with_causes};
use crate::write::Writer;

/// Events of watches and writes that may wait for the loop.
const EVENTS: usize = 1024;
/// A connection on which a request waits for so long is given up. Longer than a watch without events lasts: the client times those
/// itself, but not the wait for a watch to begin.
const SILENCE: Duration = Duration::from_secs(LONGEST as u64 + 30);
/// The task that ends last.
const LOOP: &str = "loop";

/// Does what the command line says: the text to print, where there is one.
pub async fn run(args: &Args) -> Result<Option<String>, Failure> {
    telemetry::init(args.log_format, &args.log_level)
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let client = connect(args).await?;
    if let Some(pod) = &args.explain {
        let index = once::read(&client, args.index()).await?;
        return once::explain(&index, pod).map(Some);
    }
    if args.once {
        let index = once::read(&client, args.index()).await?;
        return once::show(&index, args.output).map(Some);
    }
    is_installed(&client).await?;
    serve(args, client).await.map(|()| None)
}

async fn connect(args: &Args) -> Result<Client, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(ExitCode::NoCluster, format!("no cluster to talk to: {}", with_causes(error)))
    };
    let mut config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| failed(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| failed(&error))?
        }
        None => Config::infer().await.map_err(|error| failed(&error))?,
    };
    config.read_timeout = Some(SILENCE);
    // A client that tries again by itself hides for minutes that the server is away: whoever asks tries again, and says so.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| failed(&error))
}

/// Fails where waiting would not help: the definitions are missing, or the right to read them. A cluster that does not answer may
/// yet.
async fn is_installed(client: &Client) -> Result<(), Failure> {
    let one = ListParams::default().limit(1);
    let policies: Api<crate::watch::objects::Guarded<api::TieringPolicy>> = Api::all(client.clone());
    if let Err(error) = policies.list(&one).await {
        let failure = Failure::of_list(Kind::Policy.plural(), &error);
        if matches!(failure.code, ExitCode::Forbidden | ExitCode::NotInstalled) {
            return Err(failure);
        }
        tracing::warn!(error = failure.message, "the cluster does not answer; waiting for it");
    }
    Ok(())
}

async fn serve(args: &Args, client: Client) -> Result<(), Failure> {
    let listener = http::listen(args.http_address).await.map_err(|error| {
        let message = format!(
            "cannot listen on {}: {error}; choose a free port with --http-address",
            args.http_address
        );
        Failure::new(ExitCode::Usage, message)
    })?;
    let identity = args.identity.clone().unwrap_or_else(default_identity);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.lease_namespace);
    let (owner, owner_of_lease) = watch_channel::channel(None);
    let candidate = Candidate::new(leases, identity.clone(), owner_of_lease);
    let fence = candidate.fence();
    let writer = Writer::new(client.clone());
    let (event_queue, poster) = event_queue::queue(writer.clone(), identity, fence.clone());
    let (events, taken) = mpsc::channel(EVENTS);
    let controller = Controller::new(args.index(), writer, event_queue, fence, events.clone());
    let controller = if args.slow_tier_label { controller.with_slow_tier_labels() } else { controller };

    let mut tasks = JoinSet::new();
    tasks.spawn(named("watch of pods", watch::<Pod, _>(client.clone(), Kind::Pod, events.clone())));
    tasks.spawn(named(
        "watch of namespaces",
        watch::<Namespace, _>(client.clone(), Kind::Namespace, events.clone()),
    ));
    tasks.spawn(named("watch of policies", watch::<Policy, _>(client.clone(), Kind::Policy, events.clone())));
    tasks.spawn(named("watch of nodes", watch::<Node, _>(client.clone(), Kind::Node, events.clone())));
    let loop_of_owners = events.clone();
    let found = async move |found: Owner| {
        owner.send_replace(Some(found.clone()));
        let _ = loop_of_owners.send(Event::Owner(found)).await;
    };
    tasks.spawn(named("watch of the owner", owner::watch(client.clone(), args.owner_role.clone(), found)));
    tasks.spawn(named(
        "watch of NodeTierings",
        watch::<NodeTiering, _>(client, Kind::NodeTiering, events.clone()),
    ));
    let loop_of_refused = events.clone();
    let refused = async move |event| {
        let _ = loop_of_refused.send(Event::NotPosted(Box::new(event))).await;
    };
    tasks.spawn(named("poster of Events", poster.run(refused)));
    tasks.spawn(named("HTTP server", http::serve(listener, events.clone(), controller.published())));
    let stop = CancellationToken::new();
    let announcements = events.clone();
    let (hand_back, candidate_again) = oneshot::channel();
    let stopped = stop.clone();
    tasks.spawn(named("candidacy for the lease", async move {
        let announce = async move |leading| {
            let _ = announcements.send(Event::Leading(leading)).await;
        };
        let _ = hand_back.send(candidate.run(stopped, announce).await);
    }));
    tasks.spawn(named(LOOP, controller.run(taken)));

    let ended = first_to_end(&mut tasks, terminated()).await;
    tracing::info!(because = ended.as_deref().unwrap_or("somebody asked"), "stopping");
    // Where the loop is gone, so is its receiver.
    if events.send(Event::Stop).await.is_ok() {
        while tasks.join_next().await.is_some_and(|ended| ended.is_ok_and(|name| name != LOOP)) {}
    }
    stop.cancel();
    // Released only after the last write: whoever takes it next may write at once.
    if let Ok(Ok(candidate)) = tokio::time::timeout(Duration::from_secs(10), candidate_again).await {
        candidate.release().await;
    }
    match ended {
        None => Ok(()),
        Some(task) => {
            Err(Failure::new(ExitCode::Unexpected, format!("{task}, without which nothing can be done")))
        }
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Which task ended by itself before somebody asked for an end: every one is needed.
async fn first_to_end(tasks: &mut JoinSet<&'static str>, asked: impl Future<Output = ()>) -> Option<String> {
    tokio::select! {
        () = asked => None,
        Some(ended) = tasks.join_next() => Some(match ended {
            Ok(name) => format!("the {name} ended"),
            Err(error) => format!("a task ended badly ({error})"),
        }),
    }
}

/// Waits for SIGTERM or SIGINT; for ever where they can't be had.
async fn terminated() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use clap::Parser as _;

    const UNAVAILABLE: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_balancer_without_a_server_is_noticed_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(UNAVAILABLE).unwrap();
        });
        let file =
            std::env::temp_dir().join(format!("thermocline-{}-{}", std::process::id(), address.port()));
        let kubeconfig = serde_json::json!({
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "" } }],
            "current-context": "test",
        });
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let args = Args::parse_from(["controller".as_ref(), "--kubeconfig".as_ref(), file.as_os_str()]);
        let client = connect(&args).await;
        std::fs::remove_file(file).unwrap();
        let leases: Api<Lease> = Api::namespaced(client.unwrap(), "any");
        // Nobody is there a second time.
        match leases.get("any").await {
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 503),
            other => panic!("{other:?}"),
        }
        answering.join().unwrap();
    }

    async fn ended(task: impl Future<Output = ()> + Send + 'static) -> Option<String> {
        let mut tasks = JoinSet::new();
        tasks.spawn(named("watch of pods", pending()));
        tasks.spawn(named("watch of nodes", task));
        first_to_end(&mut tasks, pending()).await
    }

    #[tokio::test]
    async fn any_task_that_ends_is_the_end() {
        assert_eq!(ended(ready(())).await.as_deref(), Some("the watch of nodes ended"));
        let panicked = ended(async { panic!("on purpose") }).await.unwrap();
        assert!(panicked.contains("on purpose"), "{panicked}");
    }

    #[tokio::test]
    async fn whoever_asks_for_an_end_has_it() {
        let mut tasks = JoinSet::new();
        tasks.spawn(named("watch of pods", pending()));
        assert_eq!(first_to_end(&mut tasks, ready(())).await, None);
    }
}
