//! How the controller fares in a large cluster: memory, cold start, work per change; beside kube's own reflector that keeps whole
//! pods, in the same run. `cargo xtask bench scale` builds what it measures and runs it.
//!
//! The API server and its store are real. Nodes and pods are put into the store as the server itself would have left them, with
//! the fields that kubelet and schedulers add: what they weigh is part of the question.
#![forbid(unsafe_code)]

mod measured;
mod objects;
mod reflector;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use cluster_tests::{Access, ApiServer, Etcd, apply, install_crds};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, CustomResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;

use measured::{Counts, Measured, cpu_seconds};
use objects::Cluster;

#[derive(Parser)]
#[command(name = "cargo xtask bench scale --", about = "Measures the controller in a large cluster")]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// The controller's binary
    #[arg(long, env = "THERMOCLINE_CONTROLLER")]
    controller: Option<PathBuf>,
    /// Nodes
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Pods, spread evenly
    #[arg(long, default_value_t = 100_000)]
    pods: u32,
    /// Changes of pods each second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long pods change
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

#[derive(Subcommand)]
enum Role {
    /// What the controller is compared with: kube's reflector of whole pods. Started by the benchmark itself
    Reflector {
        /// How to reach the cluster
        #[arg(long)]
        kubeconfig: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    match &args.role {
        Some(Role::Reflector { kubeconfig }) => reflector::run(kubeconfig).await,
        None => measure(&args).await,
    }
}

async fn measure(args: &Args) -> Result<()> {
    let binary = args.controller.as_deref().context("which controller? --controller FILE")?;
    let cluster = Cluster { nodes: args.nodes, pods: args.pods };
    table::head();

    let etcd = Etcd::start().await?;
    say(&format!("storing {} nodes and {} pods", args.nodes, args.pods));
    cluster.store(&etcd).await?;
    let server = ApiServer::start(&etcd).await?;
    let access = server.administrator();
    let client = access.client().await?;
    install_crds(&client, &[api::TieringPolicy::crd(), api::NodeTiering::crd()]).await?;
    apply(&client, Cluster::policies()).await?;

    say("listing all pods as the controller does, and throwing them away");
    let (listing, bytes) = list_all(&client).await?;
    table::row("pods in the store", f64::from(args.pods), "");
    table::row("size of a pod on the wire", bytes as f64 / f64::from(args.pods) / 1024.0, "KiB");
    table::row("the server's own list time", listing.as_secs_f64(), "s");

    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    access.write_kubeconfig(&kubeconfig)?;

    say("starting kube's reflector of whole pods");
    let mut reflector = Measured::reflector(&kubeconfig)?;
    let reflector_start = reflector.until_listed().await?;
    table::row("reflector of whole pods: cold start", reflector_start.as_secs_f64(), "s");
    table::bytes("reflector of whole pods: RSS", reflector.resident()?);
    table::bytes("reflector of whole pods: highest RSS", reflector.highest_resident()?);
    table::row("reflector of whole pods: CPU until then", reflector.cpu()?, "s");
    // It needs more than all the others together.
    drop(reflector);

    say("starting the controller in a cluster that it has never written to");
    let mut first = Measured::controller(binary, &kubeconfig)?;
    let ready = first.until_ready().await?;
    table::row("controller: cold start until it knows all", ready.as_secs_f64(), "s");
    table::row(
        "controller: beyond the server's own list time",
        ready.saturating_sub(listing).as_secs_f64(),
        "s",
    );
    table::bytes("controller: RSS when it knows all", first.resident()?);
    table::row("controller: CPU until then", first.cpu()?, "s");
    let written = first.until_written(f64::from(args.nodes)).await?;
    table::row("controller: until every node was written once", written.elapsed.as_secs_f64(), "s");
    let per_node = written.counts.node_writes / f64::from(args.nodes);
    table::row("controller: writes for that, per node", per_node, "");
    table::bytes("controller: highest RSS", first.highest_resident()?);
    first.stop().await?;

    say("starting it again: there is nothing to write");
    let mut controller = Measured::controller(binary, &kubeconfig)?;
    let ready = controller.until_ready().await?;
    table::row("controller: second start until it knows all", ready.as_secs_f64(), "s");
    let settled = controller.until_written(0.0).await?;
    table::row("controller: writes after a second start", settled.counts.node_writes, "");
    table::bytes("controller: RSS after a second start", controller.resident()?);

    say(&format!("changing {} pods a second for {} s", args.rate, args.seconds));
    let before = (controller.counts()?, controller.cpu()?, cpu_seconds(server.process_id())?);
    let churn = change_pods(&access, &cluster, args.rate, args.seconds).await?;
    let after = controller.until_written(0.0).await?;
    let seconds = churn.took.as_secs_f64();
    table::row("changes of pods that the server took, per second", f64::from(churn.changes) / seconds, "");
    table::row("controller: CPU", (controller.cpu()? - before.1) / seconds * 100.0, "% of a core");
    table::row(
        "API server: CPU",
        (cpu_seconds(server.process_id())? - before.2) / seconds * 100.0,
        "% of a core",
    );
    let writes = after.counts.node_writes - before.0.node_writes;
    table::row("controller: writes per changed pod", writes / f64::from(churn.changes), "");
    let (objects, bytes) = etcd.sizes("/registry/thermocline.io/nodetierings/").await?;
    let size = bytes as f64 / objects.max(1) as f64;
    table::row("size of a node's object in etcd, on average", size / 1024.0, "KiB");
    table::row(
        "etcd: bytes of nodes' objects per changed pod",
        size * writes / f64::from(churn.changes) / 1024.0,
        "KiB",
    );
    quantiles("pods change", &before.0, &after.counts);

    change_a_policy(args, &client, &etcd, &controller).await?;

    say("changing ten pods of each of a hundred nodes at once");
    let before = controller.counts()?;
    let changed = args.nodes.min(100);
    let burst = change_at_once(&access, &cluster, changed).await?;
    let after = controller.until_written(0.0).await?;
    let writes = after.counts.node_writes - before.node_writes;
    table::row("burst: pods changed per node", f64::from(burst) / f64::from(changed), "");
    table::row("burst: writes per changed node", writes / f64::from(changed), "");

    table::bytes("controller: RSS at the end", controller.resident()?);
    table::bytes("controller: highest RSS", controller.highest_resident()?);
    table::row(
        "controller: writes of nodes that the server refused or was too slow for",
        after.counts.failed_node_writes,
        "",
    );
    controller.stop().await?;
    Ok(())
}

async fn change_a_policy(args: &Args, client: &Client, etcd: &Etcd, controller: &Measured) -> Result<()> {
    say("changing one policy that every node has pods of");
    let (before, put) = (controller.counts()?, etcd.bytes_put().await?);
    let start = Instant::now();
    apply(client, [Cluster::changed_policy()]).await?;
    let after = controller.until_written(before.node_writes + f64::from(args.nodes)).await?;
    table::row("one policy changed: until every node was written", start.elapsed().as_secs_f64(), "s");
    let writes = after.counts.node_writes - before.node_writes;
    table::row("one policy changed: writes per changed node", writes / f64::from(args.nodes), "");
    let put = (etcd.bytes_put().await? - put) / f64::from(args.nodes);
    table::row("one policy changed: etcd bytes per node, everything counted", put / 1024.0, "KiB");
    Ok(())
}

fn quantiles(when: &str, before: &Counts, after: &Counts) {
    for quantile in [0.5, 0.99] {
        let what = format!("{when}: event to write, p{:.0}, at most", quantile * 100.0);
        table::row(&what, after.event_to_write(before, quantile) * 1000.0, "ms");
    }
}

/// Reads every page of all pods, and how many bytes that were.
async fn list_all(client: &Client) -> Result<(Duration, usize)> {
    let start = Instant::now();
    let (mut bytes, mut token) = (0, String::new());
    loop {
        let uri = format!("/api/v1/pods?limit=500&continue={token}");
        let text = client.request_text(http::Request::get(uri).body(Vec::new())?).await?;
        bytes += text.len();
        // The list's own metadata comes before the items.
        let head = text.get(..text.find("\"items\"").unwrap_or(text.len())).unwrap_or_default();
        match head.split_once("\"continue\":\"").and_then(|(_, rest)| rest.split_once('"')) {
            Some((next, _)) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok((start.elapsed(), bytes)),
        }
    }
}

struct Churn {
    changes: u32,
    took: Duration,
}

/// Changes an annotation of one pod after another, all over the cluster.
async fn change_pods(access: &Access, cluster: &Cluster, rate: u32, seconds: u32) -> Result<Churn> {
    let client = access.client().await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut under_way, mut changes) = (JoinSet::new(), 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(u64::from(seconds)) {
        ticks.tick().await;
        under_way.spawn(change(client.clone(), cluster.pod(scattered(changes, cluster.pods)), changes));
        changes += 1;
        // A server that is slower than the rate is not buried under requests.
        if under_way.len() > 200 {
            under_way.join_next().await.context("there are some")???;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(Churn { changes, took: start.elapsed() })
}

/// Changes ten pods of each of the first `nodes` nodes, as fast as the server takes it.
async fn change_at_once(access: &Access, cluster: &Cluster, nodes: u32) -> Result<u32> {
    let client = access.client().await?;
    let of_node = (cluster.pods / cluster.nodes).min(10);
    let mut changes = 0;
    for node in 0..nodes {
        let mut under_way = JoinSet::new();
        for pod in 0..of_node {
            // Pods are dealt to the nodes in turn.
            under_way.spawn(change(
                client.clone(),
                cluster.pod(pod * cluster.nodes + node),
                u32::MAX - changes,
            ));
            changes += 1;
        }
        while let Some(ended) = under_way.join_next().await {
            ended??;
        }
    }
    Ok(changes)
}

async fn change(client: Client, (namespace, name): (String, String), value: u32) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let after = format!("{}s", 30 + value % 1000);
    let patch =
        json!({ "metadata": { "annotations": { api::annotations::Key::DemoteAfter.as_str(): after } } });
    pods.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The `turn`th of `all` numbers in an order that jumps about.
fn scattered(turn: u32, all: u32) -> u32 {
    // Odd and no multiple of five: in a round number of pods, each comes once before one comes twice.
    turn.wrapping_mul(7919) % all
}

fn say(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{what}");
}
