use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::Cluster;
use kube::api::DeleteParams;
use manifest_tests::NAMESPACE;
use serde_json::{Value, json};

use crate::{CLASS, Node, bytes, condition, enforcing, high, pod, pod_status};

/// When each of the writes so far came, in seconds after the first.
fn writes(cluster: &Cluster, node: &str) -> Result<Vec<f64>> {
    let uri = format!("/nodetierings/{node}/status?");
    let requests = cluster.requests.of(NAMESPACE, "thermocline-agent")?;
    let writes: Vec<_> = requests.iter().filter(|request| request.uri.contains(&uri)).collect();
    Ok(writes.iter().map(|write| write.at.duration_since(writes[0].at).as_secs_f64()).collect())
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

fn used(status: &Value, uid: &str) -> Value {
    pod_status(status, uid)["usage"]["dram"].clone()
}

#[tokio::test]
async fn the_status_says_what_the_node_has_and_is_written_on_change_and_not_too_often() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent().await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a", "b"]).await?;
    // Usage so often that a test sees it twice.
    let often = ["--usage-interval=20s"];
    let mut teller = Node::start_with(&cluster, &access, "n2", &["c"], &often).await?;
    // So that it is looked at often, too.
    teller.assign(&[pod("c", &json!({ "demote": { "after": "5s" } }))]).await?;
    node.assign(&[pod("a", &high(512))]).await?;
    let status = node.status("it is carried out", |status| enforcing(status, "a") == "Enforced").await?;
    let first = teller.status("usage is told of", |status| used(status, "c") == "100Mi").await?;

    let tiers = json!([
        { "name": "dram", "rank": 0, "nodes": "0", "capacity": "4Gi", "used": "2Gi" },
        { "name": status["tiers"][1]["name"], "rank": 1, "nodes": "1", "capacity": "4Gi", "used": status["tiers"][1]["used"] },
    ]);
    assert_eq!(status["tiers"], tiers);
    assert_eq!(status["engine"], "reclaim");
    assert_eq!(status["promotion"], "none");
    assert_eq!(status["agentVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(condition(&status, "TiersAvailable")["status"], "True");
    assert_eq!(condition(&status, "Ready")["status"], "True");
    let features = status["kernel"]["features"].as_array().map(Vec::as_slice).unwrap_or_default();
    let feature = |name: &str| features.iter().find(|feature| feature["name"] == name);
    ensure!(feature("reclaim").is_some_and(|feature| feature["available"] == true), "{features:?}");
    let lacking = feature("lru_gen_read").is_some_and(|feature| feature["message"].is_string());
    ensure!(lacking, "what is lacking has no reason: {features:?}");
    let object = node.tierings.get("n1").await?;
    assert_eq!(status["observedGeneration"], json!(object.metadata.generation));

    // Changes as fast as they come, and memory that comes and goes all the time.
    for step in 0..50_u64 {
        node.assign(&[pod("a", &high(512 + step % 2)), pod("b", &high(512 + step))]).await?;
        for (node, uid) in [(&node, "a"), (&teller, "c")] {
            use_memory(node, uid, 200 + step)?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    node.high("b", &bytes(561)).await?;
    let generation = json!(node.tierings.get("n1").await?.metadata.generation);
    node.status("the last is told of", |status| status["observedGeneration"] == generation).await?;
    let told = writes(&cluster, "n1")?;
    println!("writes of the status under changes, in seconds: {told:.1?}");
    let gaps: Vec<f64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Times are taken where requests arrive, so a slow one and a fast one are a little nearer than they were sent.
    ensure!(gaps.iter().all(|gap| *gap > 9.0), "two writes within 10 s: {told:?}");
    ensure!(told.len() >= 3, "it told of changes: {told:?}");

    // Nothing changes but usage, which has its own time.
    for step in 0..30_u64 {
        for (node, uid) in [(&node, "a"), (&teller, "c")] {
            use_memory(node, uid, 300 + step)?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let quiet = writes(&cluster, "n1")?;
    assert_eq!(quiet.len(), told.len(), "usage alone was written within 5 min: {quiet:?}");
    let later =
        teller.status("usage is told of again", |status| status["usageTime"] != first["usageTime"]).await?;
    ensure!(used(&later, "c") != used(&first, "c"), "{later}");
    let usages = writes(&cluster, "n2")?;
    println!("writes of a status with usage every 20 s: {usages:.1?}");
    // The conditions settle in the first writes; then each is 20 s after the one before.
    let settled: Vec<f64> = usages.iter().copied().filter(|at| *at > 12.0).collect();
    ensure!(settled.windows(2).all(|pair| pair[1] - pair[0] > 19.0), "usage more often: {usages:?}");
    Ok(())
}

#[tokio::test]
async fn an_object_that_is_made_anew_gets_a_status_though_nothing_else_changed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent().await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a"]).await?;
    for _ in 0..2 {
        node.assign(&[pod("a", &high(512))]).await?;
        node.status("it is carried out", |status| enforcing(status, "a") == "Enforced").await?;
        node.tierings.delete("n1", &DeleteParams::default()).await?;
    }
    Ok(())
}
