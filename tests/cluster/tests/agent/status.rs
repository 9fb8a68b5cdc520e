use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::Cluster;
use kube::api::{DeleteParams, Patch, PatchParams};
use manifest_tests::NAMESPACE;
use serde_json::json;

use crate::{CLASS, Node, bytes, condition, enforcing, high, pod};

/// The agent's own, where nobody says otherwise.
const BETWEEN_WRITES: Duration = Duration::from_secs(10);

/// When each of the writes so far came, in seconds after the first.
fn writes(cluster: &Cluster, node: &str) -> Result<Vec<f64>> {
    let uri = format!("/nodetierings/{node}/status?");
    let requests = cluster.requests.of(NAMESPACE, "thermocline-agent")?;
    let writes: Vec<_> = requests.iter().filter(|request| request.uri.contains(&uri)).collect();
    Ok(writes.iter().map(|write| write.at.duration_since(writes[0].at).as_secs_f64()).collect())
}

/// The writes so far, once none has followed for longer than one waits for the one before.
async fn until_quiet(cluster: &Cluster, node: &str) -> Result<Vec<f64>> {
    loop {
        let before = writes(cluster, node)?;
        tokio::time::sleep(BETWEEN_WRITES + Duration::from_secs(2)).await;
        let now = writes(cluster, node)?;
        if now.len() == before.len() {
            return Ok(now);
        }
    }
}

/// Makes a pod's use of memory another.
fn use_memory(node: &Node, uid: &str, mebibytes: u64) -> Result<()> {
    let bytes = mebibytes << 20;
    let cgroup = node.tree.pod(uid, CLASS);
    std::fs::write(cgroup.join("memory.current"), format!("{bytes}\n"))?;
    let stat = format!(
        "anon N0={bytes} N1=0\nfile N0=0 N1=0\ninactive_anon N0=0 N1=0\nactive_anon N0={bytes} N1=0\nunevictable N0=0 N1=0\n"
    );
    Ok(std::fs::write(cgroup.join("memory.numa_stat"), stat)?)
}

#[tokio::test]
async fn the_status_says_what_the_node_has_and_is_written_on_change_and_not_too_often() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a", "b"]).await?;
    node.assign(&[pod("a", &high(512))]).await?;
    let status = node.status("it is carried out", |status| enforcing(status, "a") == "Enforced").await?;

    let tiers = json!([
        { "name": "dram", "rank": 0, "nodes": "0", "capacity": "4Gi" },
        { "name": status["tiers"][1]["name"], "rank": 1, "nodes": "1", "capacity": "4Gi" },
    ]);
    assert_eq!(status["tiers"], tiers);
    let second = status["tiers"][1]["name"].as_str().unwrap_or_default();
    assert_eq!(status["memory"], format!("dram 4 GiB, {second} 4 GiB"));
    assert_eq!(status["engine"], "reclaim");
    assert_eq!(status["promotion"], "none");
    assert_eq!(status["agentVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(condition(&status, "TiersAvailable")["status"], "True");
    assert_eq!(condition(&status, "Ready")["status"], "True");
    let list = |key: &str| status["kernel"][key].as_array().cloned().unwrap_or_default();
    let (features, lacking) = (list("features"), list("lacking"));
    ensure!(features.contains(&json!("reclaim")), "{features:?}");
    let why = |name: &str| {
        lacking.iter().find(|feature| feature["name"] == name).map(|feature| &feature["message"])
    };
    ensure!(
        why("lru_gen_read").is_some_and(serde_json::Value::is_string),
        "what is lacking has no reason: {lacking:?}"
    );
    ensure!(status.to_string().len() <= api::MOST_STATUS_BYTES, "{} bytes", status.to_string().len());

    // What was found out only after the first write is in by now: a write more could come as late as this.
    let quiet = until_quiet(&cluster, "n1").await?;

    // Assignments that change, and memory that comes and goes all the time: nothing of it is in the status.
    for step in 0..30_u64 {
        node.assign(&[pod("a", &high(512 + step % 2)), pod("b", &high(512 + step))]).await?;
        use_memory(&node, "a", 200 + step)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    node.high("b", &bytes(541)).await?;
    assert_eq!(writes(&cluster, "n1")?.len(), quiet.len(), "it was written though nothing is to be told");

    // What is to be told comes and goes faster than it may be written.
    let bad = json!({ "dram": { "floor": "80%", "ceiling": "20%" } });
    for step in 0..50_u64 {
        let odd = if step % 2 == 0 { high(512) } else { bad.clone() };
        node.assign(&[pod("a", &high(512)), pod("b", &odd)]).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    node.assign(&[pod("a", &high(512)), pod("b", &bad)]).await?;
    node.status("the last is told of", |status| enforcing(status, "b") == "NotUnderstood").await?;
    let told = writes(&cluster, "n1")?;
    println!("writes of the status under changes, in seconds: {told:.1?}");
    let gaps: Vec<f64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Times are taken where requests arrive, so a slow one and a fast one are a little nearer than they were sent.
    ensure!(gaps.iter().all(|gap| *gap > 9.0), "two writes within 10 s: {told:?}");
    ensure!(told.len() > quiet.len(), "it told of changes: {told:?}");
    Ok(())
}

#[tokio::test]
async fn an_object_that_is_made_anew_gets_a_status_though_nothing_else_changed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a"]).await?;
    for _ in 0..2 {
        node.assign(&[pod("a", &high(512))]).await?;
        node.status("it is carried out", |status| enforcing(status, "a") == "Enforced").await?;
        node.tierings.delete("n1", &DeleteParams::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_write_of_its_own_that_comes_late_is_put_right() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start_with(&cluster, &access, "n1", &["a"], &["--status-interval=1s"]).await?;
    let odd = json!({ "dram": { "floor": "80%", "ceiling": "20%" } });
    node.assign(&[pod("a", &odd)]).await?;
    let old = node.status("it is not understood", |status| enforcing(status, "a") == "NotUnderstood").await?;
    node.assign(&[pod("a", &high(512))]).await?;
    node.status("it is carried out", |status| enforcing(status, "a") == "Enforced").await?;
    // The agent gave the first up before it arrived.
    let late = json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": "n1" }, "status": old,
    });
    let params = PatchParams::apply("thermocline-agent").force();
    node.tierings.patch_status("n1", &params, &Patch::Apply(&late)).await?;
    node.status("it is said again that it is carried out", |status| enforcing(status, "a") == "Enforced")
        .await?;
    // Once is enough.
    let written = writes(&cluster, "n1")?.len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(writes(&cluster, "n1")?.len(), written);
    Ok(())
}
