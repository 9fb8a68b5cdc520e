//! What a controller survives: a bad network, and a server that dies and forgets.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_tests::{ApiServer, Proxy, eventually};
use serde_json::json;

use crate::cluster::{Cluster, Objects, REPLICAS, policies};
use crate::replica::{Replica, failed_writes};

const NODES: [&str; 2] = ["node-a", "node-b"];

/// Pods that follow one change after another: each names a policy that none named before.
struct Followed<'a> {
    objects: &'a Objects,
    changes: usize,
}

impl<'a> Followed<'a> {
    async fn new(objects: &'a Objects) -> Result<Self> {
        let followed = Self { objects, changes: 0 };
        objects.policy(&followed.policy(), json!({})).await?;
        for node in NODES {
            objects.node(node).await?;
            objects.pod_with(&format!("default/on-{node}"), node, &followed.policy()).await?;
        }
        Ok(followed)
    }

    fn policy(&self) -> String {
        format!("policy-{:02}", self.changes)
    }

    /// Has every pod name the next policy, by another way to the store where there is one.
    async fn change(&mut self, by: &Objects) -> Result<()> {
        self.changes += 1;
        by.policy(&self.policy(), json!({})).await?;
        for node in NODES {
            by.name_policy(&format!("default/on-{node}"), &self.policy()).await?;
        }
        Ok(())
    }

    /// Waits until every node has the last change.
    async fn until_event(&self, replica: &Replica, after: &str) -> Result<()> {
        for node in NODES {
            let pod = format!("default/on-{node}");
            let assigned = self.objects.until_assigned(node, &[(&pod, &self.policy())]).await;
            assigned.with_context(|| format!("after {after}; {}", replica.last_words()))?;
        }
        Ok(())
    }

    async fn follow(&mut self, replica: &Replica, after: &str) -> Result<()> {
        self.change(self.objects).await?;
        self.until_event(replica, after).await
    }
}

/// No node was assigned what was no longer so. Where an answer was lost, the same may have been written again.
fn nothing_was_taken_back(cluster: &Cluster) -> Result<()> {
    for node in NODES {
        let assigned = cluster.written(node)?;
        let assigned: Vec<_> = assigned.iter().flat_map(|(_, spec)| policies(spec).into_values()).collect();
        ensure!(assigned.is_sorted(), "{node} was assigned {assigned:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_network_delays_and_loses_nothing() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    let mut followed = Followed::new(&objects).await?;
    let access = cluster.server.user(REPLICAS[0])?;
    let proxy = Proxy::to(access.address()).await?;
    let mut replica = Replica::start(&access.via(proxy.address()), REPLICAS[0], &[])?;
    followed.until_event(&replica, "its start").await?;

    proxy.cut();
    followed.follow(&replica, "all connections were cut").await?;

    // In the middle of what the server sends: events and answers to writes alike.
    for bytes in [300, 1500, 4000, 700] {
        proxy.cut_after(bytes);
        followed.follow(&replica, &format!("a cut in {bytes} bytes")).await?;
    }

    // For so long that it must take its lease for lost.
    proxy.hold(true);
    followed.change(&objects).await?;
    replica.until("it stops leading", |state| state["leading"] == false).await?;
    proxy.hold(false);
    followed.until_event(&replica, "nothing had passed for long").await?;
    replica.until_leading().await?;

    proxy.slow(Duration::from_millis(300));
    followed.follow(&replica, "the server became slow").await?;
    nothing_was_taken_back(&cluster)
}

#[tokio::test]
async fn a_server_that_dies_and_forgets_is_listed_again() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    let mut followed = Followed::new(&objects).await?;
    let mut replica = cluster.replica(REPLICAS[0], &[])?;
    followed.until_event(&replica, "its start").await?;

    cluster.server.kill();
    replica.until("it stops leading", |state| state["leading"] == false).await?;
    cluster.server.restart().await?;
    followed.follow(&replica, "a restart of the server").await?;

    // Another server of the same store goes on while this one is down, and what it says is compacted away: 410.
    cluster.server.kill();
    let other = ApiServer::start(&cluster.etcd).await?;
    let elsewhere = Objects { client: other.administrator().client().await? };
    followed.change(&elsewhere).await?;
    elsewhere.delete_pod("default/on-node-b").await?;
    elsewhere.pod_with("default/new", "node-a", "policy-00").await?;
    elsewhere.delete_node("node-b").await?;
    cluster.etcd.compact().await?;
    drop(other);
    cluster.server.restart().await?;
    let last = followed.policy();
    objects.until_assigned("node-a", &[("default/new", "policy-00"), ("default/on-node-a", &last)]).await?;
    eventually("the object of the vanished node is removed", async || {
        Ok(objects.node_tiering("node-b").await?.is_none().then_some(()))
    })
    .await?;
    let lists = |state: &serde_json::Value| state["tallies"]["lists"]["pods"].as_u64() >= Some(2);
    let state = replica.until("it has listed again", lists).await?;
    // A list costs no write of what was written before.
    let assigned: Vec<_> = cluster.written("node-a")?.into_iter().map(|(_, spec)| spec).collect();
    let repeated = assigned.windows(2).filter(|pair| pair[0] == pair[1]).count();
    ensure!(repeated as u64 <= failed_writes(&state), "the same was written again: {assigned:?}");
    Ok(())
}
