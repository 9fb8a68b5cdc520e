use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Proxy};
use manifest_tests::NAMESPACE;

use crate::{Node, bytes, high, pod};

#[tokio::test]
async fn the_agent_follows_over_cuts_expired_revisions_and_a_slow_server() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let proxy = Proxy::to(access.address()).await?;
    let mut node = Node::start(&cluster, &access.via(proxy.address()), "n1", &["a"]).await?;
    node.assign(&[pod("a", &high(512))]).await?;
    node.high("a", &bytes(512)).await?;

    proxy.cut();
    node.assign(&[pod("a", &high(513))]).await?;
    node.high("a", &bytes(513)).await?;

    // In the middle of an event.
    proxy.cut_after(300);
    node.assign(&[pod("a", &high(514))]).await?;
    node.high("a", &bytes(514)).await?;

    proxy.slow(Duration::from_secs(1));
    node.assign(&[pod("a", &high(515))]).await?;
    node.high("a", &bytes(515)).await?;
    proxy.slow(Duration::ZERO);

    // What the agent would go on from is compacted: 410.
    proxy.hold(true);
    node.assign(&[pod("a", &high(516))]).await?;
    node.assign(&[pod("a", &high(517))]).await?;
    cluster.etcd.compact().await?;
    cluster.server.restart().await?;
    proxy.hold(false);
    proxy.cut();
    node.high("a", &bytes(517)).await?;
    let requests = cluster.requests.of(NAMESPACE, "thermocline-agent")?;
    let codes: Vec<i64> = requests.iter().map(|request| request.code).filter(|code| *code != 200).collect();
    println!("{} requests, those not answered with 200: {codes:?}", requests.len());
    ensure!(!codes.contains(&403), "{requests:?}");

    node.assign(&[pod("a", &high(518))]).await?;
    node.high("a", &bytes(518)).await?;
    assert_eq!(node.agent.metric("thermocline_api_server_up").await?.to_string(), "1");
    Ok(())
}
