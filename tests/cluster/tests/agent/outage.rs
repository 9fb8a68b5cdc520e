use anyhow::{Result, ensure};
use cluster_tests::Cluster;

use crate::{CLASS, Node, bytes, condition, enforcing, high, pod, start_agent};

#[tokio::test]
async fn while_the_api_server_is_away_what_was_last_known_is_carried_out_also_by_the_next_agent() -> Result<()>
{
    let mut cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start(&cluster, &access, "n1", &["a"]).await?;
    node.assign(&[pod("a", &high(512)), pod("late", &high(256)), pod("later", &high(128))]).await?;
    node.high("a", &bytes(512)).await?;
    node.status("it is ready", |status| condition(status, "Ready")["status"] == "True").await?;
    assert_eq!(node.agent.metric("thermocline_api_server_up").await?.to_string(), "1");

    cluster.server.kill();
    node.agent
        .eventually("it notices", async |agent| {
            Ok((agent.metric("thermocline_api_server_up").await? == 0.0).then_some(()))
        })
        .await?;
    ensure!(node.agent.said(&["WARN", "the API server is away; what was last known is carried out"]));
    let last = node.agent.metric("thermocline_api_server_last_contact_timestamp_seconds").await?;
    ensure!(last > 1.6e9, "when it was last there: {last}");
    // Alive and ready: kubelet is not to restart it.
    for path in ["/healthz", "/readyz"] {
        node.agent.get(path).await?;
    }
    // It enforces: another writer's value is replaced, a pod that starts gets what was assigned to it.
    std::fs::write(node.tree.pod("a", CLASS).join("memory.high"), "max\n")?;
    node.high("a", &bytes(512)).await?;
    node.tree.add_pod("late", CLASS, &["c"])?;
    node.high("late", &bytes(256)).await?;

    // A crash of the agent, too.
    node.agent.kill();
    node.agent = start_agent(&node.tree, &access, "n1", &[])?;
    node.agent
        .eventually("it begins with what was last assigned", async |agent| {
            Ok(agent.said(&["INFO", "beginning with what was last assigned"]).then_some(()))
        })
        .await?;
    node.tree.add_pod("later", CLASS, &["c"])?;
    node.high("later", &bytes(128)).await?;
    for (uid, mebibytes) in [("a", 512), ("late", 256)] {
        let text = std::fs::read_to_string(node.tree.pod(uid, CLASS).join("memory.high"))?;
        assert_eq!(text.trim_end(), bytes(mebibytes), "{uid}");
    }
    node.agent
        .eventually("it says that the API server is away", async |agent| {
            Ok(agent.said(&["WARN", "the API server is away"]).then_some(()))
        })
        .await?;
    assert_eq!(node.agent.metric("thermocline_api_server_up").await?.to_string(), "0");
    node.agent.get("/readyz").await?;

    cluster.server.restart().await?;
    node.assign(&[pod("a", &high(768))]).await?;
    node.high("a", &bytes(768)).await?;
    node.high("late", "max").await?;
    node.high("later", "max").await?;
    node.agent
        .eventually("the API server is there", async |agent| {
            Ok((agent.metric("thermocline_api_server_up").await? > 0.0).then_some(()))
        })
        .await?;
    node.status("it is carried out", |status| {
        condition(status, "Ready")["status"] == "True" && enforcing(status, "a") == "Enforced"
    })
    .await?;

    // An agent that lives through it tells from when to when it was.
    cluster.server.kill();
    node.agent
        .eventually("it notices again", async |agent| {
            Ok((agent.metric("thermocline_api_server_up").await? == 0.0).then_some(()))
        })
        .await?;
    cluster.server.restart().await?;
    node.status("the condition tells of it", |status| {
        let ready = condition(status, "Ready");
        let told = "what was last known was carried out meanwhile";
        ready["status"] == "True" && ready["message"].as_str().is_some_and(|message| message.contains(told))
    })
    .await?;
    Ok(())
}
