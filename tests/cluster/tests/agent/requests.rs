use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use cluster_tests::{Cluster, Proxy};
use jiff::Timestamp;
use manifest_tests::NAMESPACE;

use crate::{Node, assign, bytes, enforcing, high, pod, tierings};

/// All that an agent needs, over its whole life.
const ASKED: [&str; 3] = [
    "list nodetierings.thermocline.io",
    "patch nodetierings.thermocline.io/status",
    "watch nodetierings.thermocline.io",
];

#[tokio::test]
async fn the_agent_asks_for_its_own_node_tiering_writes_its_own_status_and_does_nothing_else() -> Result<()> {
    let cluster = Cluster::start().await?;
    let access = cluster.agent("n1").await?;
    let proxy = Proxy::to(access.address()).await?;
    // Others' objects are there to be seen.
    assign(&tierings(&cluster).await?, "other", &[pod("theirs", &high(512))]).await?;

    let began = Timestamp::now();
    let mut node = Node::start(&cluster, &access.clone().via(proxy.address()), "n1", &["a"]).await?;
    node.assign(&[pod("a", &high(1024))]).await?;
    node.high("a", &bytes(1024)).await?;
    node.status("the pod's policy is carried out", |status| enforcing(status, "a") == "Enforced").await?;
    proxy.cut();
    node.assign(&[pod("a", &high(768))]).await?;
    node.high("a", &bytes(768)).await?;
    node.agent.kill();
    node.agent = crate::start_agent(&node.tree, &access, "n1", &[])?;
    node.assign(&[]).await?;
    node.high("a", "max").await?;
    node.status("it tells of no pod", |status| status["pods"].as_array().is_none_or(Vec::is_empty)).await?;

    let mut requests = cluster.requests.of(NAMESPACE, "thermocline-agent")?;
    // Before it was the test, to see that the account may ask.
    requests.retain(|request| request.at >= began);
    // From 1.36 or so a list may come as a watch; this server has lists.
    let asked: BTreeSet<String> = requests.iter().map(cluster_tests::Request::right).collect();
    assert_eq!(asked.iter().collect::<Vec<_>>(), ASKED, "{requests:?}");
    for request in &requests {
        let own = match request.verb.as_str() {
            "patch" => request.uri.starts_with("/apis/thermocline.io/v1alpha1/nodetierings/n1/status?"),
            _ => {
                request.uri.starts_with("/apis/thermocline.io/v1alpha1/nodetierings?")
                    && request.uri.contains("fieldSelector=metadata.name%3Dn1")
            }
        };
        ensure!(own, "not its own object: {request:?}");
        // What was under way at the cut, or when the agent was killed, has a code of 500 or more, for nobody took the answer.
        ensure!(request.code == 200 || request.code >= 500, "{request:?}");
    }
    println!("{} requests of one agent's two lives, of {asked:?}", requests.len());
    Ok(())
}
