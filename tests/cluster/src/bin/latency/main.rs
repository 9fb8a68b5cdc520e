//! How long it takes from an annotation on a pod to the file of its cgroup: through the API server, the controller, the node's
//! `NodeTiering` and its agent. `cargo xtask bench latency` builds what it measures and runs it.
//!
//! The API server, its store, the controller and the agent are real, each with the rights that the chart gives. The node is a tree of plain
//! files in memory, so what the kernel takes for a write is not in it. Other nodes are objects without an agent.
#![forbid(unsafe_code)]

mod probe;
mod storm;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::QosClass;
use clap::Parser;
use cluster_tests::{Agent, Cluster, Driver, NodeTree, Process, apply, free_port};
use kube::Client;
use manifest_tests::NAMESPACE;
use serde_json::json;

use probe::{Latency, Probe};

/// The bar at rest.
const BAR: Duration = Duration::from_millis(250);

/// The node that has an agent.
const NODE: &str = "node-0";

#[derive(Parser)]
#[command(
    name = "cargo xtask bench latency --",
    about = "Measures the way from an annotation to a cgroup's file"
)]
struct Args {
    /// The controller's binary
    #[arg(long, env = "THERMOCLINE_CONTROLLER")]
    controller: PathBuf,
    /// Annotations in each phase
    #[arg(long, default_value_t = 200)]
    annotations: u32,
    /// Time between two annotations
    #[arg(long, default_value_t = 170)]
    spacing_ms: u64,
    /// Nodes; one has an agent
    #[arg(long, default_value_t = 10)]
    nodes: u32,
    /// Pods that change in a storm, spread evenly over the nodes
    #[arg(long, default_value_t = 1000)]
    pods: u32,
    /// Changes a second in the storm
    #[arg(long, default_value_t = 100)]
    rate: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.annotations > 0 && args.nodes > 0, "there is nothing to measure");
    let cluster = Cluster::start().await?;
    let client = cluster.administrator().await?;
    let tree = NodeTree::new(Driver::Systemd)?;
    say(&format!("creating {} nodes and {} pods", args.nodes, args.pods));
    let probe = populate(&client, &tree).await?;
    storm::populate(&client, args.nodes, args.pods).await?;

    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    cluster.controller().await?.write_kubeconfig(&kubeconfig)?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--lease-namespace={NAMESPACE}"),
        format!("--http-address=127.0.0.1:{}", free_port()?),
        "--log-level=warn".to_owned(),
    ];
    let controller = Process::start(&args.controller, &arguments, &dir.path().join("controller.log"))?;
    let program = std::env::current_exe()?.with_file_name("agent-on-files");
    let mut agent = Agent::start(&program, &tree, &cluster.agent(NODE).await?, NODE, &["--log-level=warn"])?;

    let spacing = Duration::from_millis(args.spacing_ms);
    let phases = async {
        // What comes first finds nothing connected and nothing cached.
        probe.measure(10, spacing).await.context("the first annotations")?;
        say(&format!("at rest: {} annotations", args.annotations));
        let rest = probe.measure(args.annotations, spacing).await?;
        print("at rest", &rest)?;
        say(&format!(
            "in a storm: {} annotations beside {} other changes a second",
            args.annotations, args.rate
        ));
        let storm = storm::Storm::start(client.clone(), args.pods, args.rate);
        let stormy = probe.measure(args.annotations, spacing).await?;
        print("in the storm", &stormy)?;
        let storm::Changes { count, rate } = storm.end().await?;
        say(&format!("the storm was {count} changes of pods on {} nodes, {rate:.0} a second", args.nodes));
        anyhow::Ok(rest)
    };
    let measured = phases.await.with_context(|| controller.last_words());
    let rest = measured.with_context(|| agent.log().join("\n"))?;
    agent.terminate().await?;
    let [_, p99, _] = probe::percentiles(&rest, Latency::total);
    let bar = BAR.as_secs_f64() * 1000.0;
    ensure!(p99 <= bar, "p99 at rest is {p99:.1} ms, above {bar} ms");
    say(&format!("p99 at rest is at most {bar} ms"));
    Ok(())
}

/// Prints a phase as a table in Markdown.
fn print(phase: &str, latencies: &[Latency]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n| {phase}, {} annotations | p50 ms | p99 ms | longest ms |\n|---|---:|---:|---:|",
        latencies.len()
    )?;
    for (way, of) in [
        ("annotation sent to accepted", Latency::accepted as fn(&Latency) -> Duration),
        ("annotation sent to `NodeTiering` written, as a watch sees it", Latency::assigned),
        ("`NodeTiering` written to `memory.high` written", Latency::carried_out),
        ("annotation sent to `memory.high` written", Latency::total),
    ] {
        let [p50, p99, longest] = probe::percentiles(latencies, of);
        writeln!(out, "| {way} | {p50:.0} | {p99:.0} | {longest:.0} |")?;
    }
    Ok(())
}

/// Two policies that can be told apart in a file, and a pod whose cgroup is in the tree.
async fn populate(client: &Client, tree: &NodeTree) -> Result<Probe> {
    let policy = |name: &str, mebibytes: u64| {
        json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": name },
            "spec": { "memoryHigh": { "mode": "Fixed", "value": format!("{mebibytes}Mi") } },
        })
    };
    apply(
        client,
        [
            policy("lower", 512),
            policy("higher", 640),
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "probe" },
                "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none" }] },
            }),
        ],
    )
    .await?;
    let probe = Probe::of(client, NODE, "probe", [("lower", 512 << 20), ("higher", 640 << 20)]).await?;
    tree.add_pod(probe.uid(), QosClass::BestEffort, &["main"])?;
    let file = tree.pod(probe.uid(), QosClass::BestEffort).join("memory.high");
    Ok(probe.in_file(file))
}

fn say(what: &str) {
    eprintln!("latency: {what}");
}
