use anyhow::{Result, ensure};
use api::QosClass;
use cluster_tests::{Cluster, Driver, NodeTree};
use serde_json::json;

use crate::{CLASS, Node, bytes, enforcing, high, pod, policy};

#[tokio::test]
async fn what_is_assigned_is_carried_out_and_what_is_not_any_more_is_put_back() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let mut node = Node::start(&cluster, &access, "n1", &["stays", "leaves", "dies", "formula"]).await?;
    let formula = |limit: &str| {
        let mut pod = pod("formula", &json!({ "memoryHigh": { "mode": "Formula", "factor": "0.5" } }));
        pod["memory"] = json!({ "request": "1Gi", "limit": limit });
        pod
    };
    let dram = json!({ "tiers": ["dram"], "memoryHigh": { "mode": "Fixed", "value": "512Mi" } });
    let (stays, leaves, dies) = (pod("stays", &high(1024)), pod("leaves", &dram), pod("dies", &high(512)));
    node.assign(&[stays.clone(), leaves, dies, formula("2Gi")]).await?;
    let leaving = node.tree.pod("leaves", CLASS).join("cpuset.mems");
    node.high("stays", &bytes(1024)).await?;
    node.high("leaves", &bytes(512)).await?;
    node.agent.writes(&leaving, "0").await?;
    node.high("dies", &bytes(512)).await?;
    node.high("formula", &bytes(1536)).await?;
    node.status("all are carried out", |status| {
        ["stays", "leaves", "dies", "formula"].iter().all(|uid| enforcing(status, uid) == "Enforced")
    })
    .await?;

    // Resized in place, up and down.
    node.assign(&[stays.clone(), formula("3Gi")]).await?;
    node.high("formula", &bytes(2048)).await?;
    node.assign(&[stays.clone(), formula("1536Mi")]).await?;
    node.high("formula", &bytes(1280)).await?;
    // Opted out.
    node.high("leaves", "max").await?;
    node.agent.writes(&leaving, "0-1").await?;
    node.high("dies", "max").await?;

    // A pod that dies before the controller says so is forgotten.
    let again = pod("dies", &high(512));
    node.assign(&[stays.clone(), again.clone()]).await?;
    node.high("formula", "max").await?;
    node.high("dies", &bytes(512)).await?;
    let state = node.tree.run().join("state");
    let kept = std::fs::read_to_string(&state)?;
    ensure!(kept.contains("podstays") && kept.contains("poddies"), "{kept}");
    node.tree.remove_pod("dies", CLASS)?;
    node.agent
        .eventually("its original values are forgotten", async |_| {
            let kept = std::fs::read_to_string(&state)?;
            Ok((kept.contains("podstays") && !kept.contains("poddies")).then_some(()))
        })
        .await?;
    // Its next life, and a pod that starts after it was assigned.
    node.assign(&[stays, again, pod("late", &high(256))]).await?;
    for uid in ["dies", "late"] {
        node.tree.add_pod(uid, CLASS, &["c"])?;
    }
    node.high("dies", &bytes(512)).await?;
    node.high("late", &bytes(256)).await?;

    // Told to end, it leaves nothing behind.
    ensure!(node.agent.terminate().await?.success());
    for uid in ["stays", "dies", "late"] {
        let file = node.tree.pod(uid, CLASS).join("memory.high");
        assert_eq!(std::fs::read_to_string(file)?.trim_end(), "max", "{uid}");
    }
    Ok(())
}

#[tokio::test]
async fn a_container_has_its_own_policy_in_both_layouts_of_every_class() -> Result<()> {
    let cluster = Cluster::start().await?;
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let name = if driver == Driver::Systemd { "slices" } else { "plain" };
        let access = cluster.agent(name).await?;
        let tree = NodeTree::new(driver)?;
        let classes = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];
        for (class, uid) in classes.into_iter().zip(["u-1", "u-2", "u-3"]) {
            tree.add_pod(uid, class, &["aa", "bb", "cc"])?;
        }
        let mut node = Node::of(&cluster, &access, name, tree, &[]).await?;
        let assigned = |policy_of_b: &serde_json::Value| -> Vec<serde_json::Value> {
            let of = |(class, uid): (QosClass, &str)| {
                let mut pod = pod(uid, &json!({}));
                pod["qosClass"] = json!(class);
                pod["containers"] = json!([
                    { "name": "b", "id": "bb", "policy": policy(policy_of_b) },
                    { "name": "c", "id": "cc", "unmanaged": true },
                    // Not started yet.
                    { "name": "d", "policy": policy(&high(64)) },
                ]);
                pod
            };
            classes.into_iter().zip(["u-1", "u-2", "u-3"]).map(of).collect()
        };
        node.assign(&assigned(&high(640))).await?;
        for (class, uid) in classes.into_iter().zip(["u-1", "u-2", "u-3"]) {
            let file = |id: &str| node.tree.container(uid, class, id).join("memory.high");
            node.agent.writes(&file("bb"), &bytes(640)).await?;
            for other in [file("aa"), file("cc"), node.tree.pod(uid, class).join("memory.high")] {
                assert_eq!(std::fs::read_to_string(&other)?.trim_end(), "max", "{}", other.display());
            }
        }
        node.status("all are carried out", |status| {
            ["u-1", "u-2", "u-3"].iter().all(|uid| enforcing(status, uid) == "Enforced")
        })
        .await?;
        // It follows the container's policy, and puts back when that goes.
        node.assign(&assigned(&json!({}))).await?;
        for (class, uid) in classes.into_iter().zip(["u-1", "u-2", "u-3"]) {
            let file = node.tree.container(uid, class, "bb").join("memory.high");
            node.agent.writes(&file, "max").await?;
        }
    }
    Ok(())
}
