//! Two replicas: one writes, and the other takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::NodeTieringSpec;
use cluster_tests::{Write, eventually};
use controller::lease;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::PostParams;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Cluster, Objects, REPLICAS, SYSTEM, policies};
use crate::replica::Replica;

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

async fn two_replicas(cluster: &Cluster) -> Result<(Replica, Replica)> {
    let mut leader = cluster.replica(REPLICAS[0], &[])?;
    leader.until_leading().await?;
    let mut other = cluster.replica(REPLICAS[1], &[])?;
    other.until_waiting().await?;
    Ok((leader, other))
}

async fn holder(objects: &Objects) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(objects.client.clone(), SYSTEM);
    let lease = leases.get_opt(lease::NAME).await?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity))
}

/// What this user wrote to nodes and policies: what only the leader may.
fn led(writes: &[Write], user: &str) -> Vec<usize> {
    let led = |write: &Write| {
        write.user == user
            && (write.resource.starts_with("nodetierings") || write.resource.starts_with("tieringpolicies"))
    };
    writes.iter().enumerate().filter(|(_, write)| led(write)).map(|(place, _)| place).collect()
}

/// The place in the log of the first write by which this user took the lease.
fn took_lease(writes: &[Write], user: &str) -> Option<usize> {
    writes.iter().position(|write| write.user == user && write.resource == "leases" && write.code < 300)
}

#[tokio::test]
async fn on_sigterm_the_lease_is_handed_over_and_not_waited_for() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    objects.node("node-a").await?;
    objects.policy("one", json!({})).await?;
    objects.policy("two", json!({})).await?;
    let (mut leader, mut other) = two_replicas(&cluster).await?;
    objects.pod_with("default/web", "node-a", "one").await?;
    objects.until_assigned("node-a", &[("default/web", "one")]).await?;

    let start = Instant::now();
    let status = leader.terminate().await?;
    ensure!(status.success(), "{status}: {}", leader.last_words());
    let ended = start.elapsed();
    eventually("the other takes it", async || {
        Ok((holder(&objects).await?.as_deref() == Some(REPLICAS[1])).then_some(()))
    })
    .await?;
    println!("SIGTERM: it ended after {ended:.2?}, the other held the lease after {:.2?}", start.elapsed());
    objects.name_policy("default/web", "two").await?;
    objects.until_assigned("node-a", &[("default/web", "two")]).await?;
    other.until_leading().await?;

    // It was given up, so that nobody had to wait for it to run out; and nothing was written after that.
    let writes = cluster.writes()?;
    let of_lease = writes.iter().rposition(|write| write.user == REPLICAS[0] && write.resource == "leases");
    let released = of_lease.context("it held the lease")?;
    assert_eq!(writes[released].body["spec"]["holderIdentity"], json!(""));
    assert!(led(&writes, REPLICAS[0]).iter().all(|place| *place < released));
    let taken = took_lease(&writes, REPLICAS[1]).context("the other took it")?;
    assert!(led(&writes, REPLICAS[1]).iter().all(|place| *place > taken));
    // The other only wrote what changed: not what the first had written before.
    let mut assigned: Vec<_> = cluster
        .written("node-a")?
        .iter()
        .map(|(user, spec)| (user.clone(), policies(spec).into_values().collect::<Vec<_>>()))
        .collect();
    assigned.dedup();
    assert_eq!(assigned.last(), Some(&(REPLICAS[1].to_owned(), vec!["two".to_owned()])));
    assert_eq!(assigned.iter().filter(|(user, _)| user == REPLICAS[1]).count(), 1);
    Ok(())
}

/// No replica wrote what another had written, and none took anything back: pods only came. One may repeat its own write whose
/// answer was late.
fn none_was_written_twice_or_taken_back(cluster: &Cluster) -> Result<()> {
    for node in NODES {
        let mut before: Option<(String, NodeTieringSpec)> = None;
        let mut known = BTreeSet::new();
        for (user, spec) in cluster.written(node)? {
            let pods: BTreeSet<String> = spec.pods.iter().map(|pod| pod.uid.clone()).collect();
            let repeats = before.is_some_and(|(other, before)| other != user && before == spec);
            ensure!(!repeats, "{user} wrote to {node} what was there already");
            ensure!(pods.is_superset(&known), "{user} took {:?} from {node}", known.difference(&pods));
            ensure!(
                policies(&spec).values().all(|policy| policy == "one"),
                "{user} wrote to {node}: {spec:?}"
            );
            (before, known) = (Some((user, spec)), pods);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_killed_in_a_burst_leaves_nothing_undone_and_nothing_done_twice() -> Result<()> {
    const PODS: usize = 90;
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    for node in NODES {
        objects.node(node).await?;
    }
    objects.policy("one", json!({})).await?;
    let (mut leader, mut other) = two_replicas(&cluster).await?;

    let mut expected: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for n in 0..PODS {
        let (node, pod) = (NODES[n % NODES.len()], format!("default/pod-{n}"));
        objects.pod_with(&pod, node, "one").await?;
        expected.entry(node).or_default().insert(pod, "one".to_owned());
        if n == PODS / 2 {
            leader.kill();
        }
    }
    let start = Instant::now();
    other.until_leading().await?;
    println!("SIGKILL: the other led {:.1?} after the end of the burst", start.elapsed());
    for (node, expected) in expected {
        let expected: Vec<_> = expected.iter().map(|(pod, policy)| (&**pod, &**policy)).collect();
        objects.until_assigned(node, &expected).await?;
    }
    let writes = cluster.writes()?;
    let taken = took_lease(&writes, REPLICAS[1]).context("the other took the lease")?;
    let (first, second) = (led(&writes, REPLICAS[0]), led(&writes, REPLICAS[1]));
    ensure!(!first.is_empty() && !second.is_empty(), "one of them wrote nothing");
    ensure!(
        first.iter().all(|place| *place < taken) && second.iter().all(|place| *place > taken),
        "both wrote at a time"
    );
    none_was_written_twice_or_taken_back(&cluster)
}

#[tokio::test]
async fn a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    objects.node("node-a").await?;
    objects.policy("one", json!({})).await?;
    objects.policy("two", json!({})).await?;
    let (mut leader, mut other) = two_replicas(&cluster).await?;
    let name = |n: usize| format!("default/pod-{n}");
    for n in 0..20 {
        objects.pod_with(&name(n), "node-a", "one").await?;
        if n == 10 {
            leader.signal(Signal::STOP)?;
        }
    }
    other.until_leading().await?;
    for n in 0..20 {
        objects.name_policy(&name(n), "two").await?;
    }
    let pods: Vec<String> = (0..20).map(name).collect();
    let all = |policy| pods.iter().map(|pod| (&**pod, policy)).collect::<Vec<_>>();
    objects.until_assigned("node-a", &all("two")).await?;
    let version = objects.version_of("node-a").await?;

    leader.signal(Signal::CONT)?;
    leader.until_waiting().await?;
    // It has taken in all that it missed.
    leader.until("it has seen the changes", |state| state["assigned"]["two"] == 20).await?;
    assert_eq!(objects.version_of("node-a").await?, version);
    let writes = cluster.writes()?;
    let taken = took_lease(&writes, REPLICAS[1]).context("the other took the lease")?;
    let late: Vec<_> = led(&writes, REPLICAS[0]).into_iter().filter(|place| *place > taken).collect();
    ensure!(late.is_empty(), "it wrote without the lease: {late:?}");

    // And it takes its turn again.
    other.terminate().await?;
    leader.until_leading().await?;
    objects.name_policy("default/pod-0", "one").await?;
    let mut expected = all("two");
    expected[0].1 = "one";
    objects.until_assigned("node-a", &expected).await
}

/// How long a rival's lease holds.
const RIVAL: Duration = Duration::from_secs(8);

/// Renews as one whose clock is `ahead`, for longer than the lease holds, without a pause that lets it run out; when it was renewed last.
async fn renew_for_long(leases: &Api<Lease>, ahead: SignedDuration) -> Result<Instant> {
    let mut since: Option<Instant> = None;
    let mut last = Instant::now();
    loop {
        let mut lease = leases.get(lease::NAME).await?;
        let spec = lease.spec.as_mut().context("a lease has a spec")?;
        assert_eq!(spec.holder_identity.as_deref(), Some("rival"), "it was taken from one who renews it");
        spec.renew_time = Some(MicroTime(Timestamp::now() + ahead));
        let (before, renewed) = (last, Instant::now());
        leases.replace(lease::NAME, &PostParams::default(), &lease).await?;
        // On a machine that stands still for so long, it may be taken, and this shows nothing: once more.
        let late = before.elapsed() > RIVAL / 2;
        last = renewed;
        let since = since.insert(since.filter(|_| !late).unwrap_or(last));
        if since.elapsed() > RIVAL * 5 / 4 {
            return Ok(last);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_lease_is_timed_by_ones_own_clock() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    let leases: Api<Lease> = Api::namespaced(objects.client.clone(), SYSTEM);
    let hour = SignedDuration::from_hours(1);
    let lease = json!({
        "metadata": { "name": lease::NAME },
        "spec": {
            "holderIdentity": "rival", "leaseDurationSeconds": RIVAL.as_secs(), "leaseTransitions": 3,
            "acquireTime": MicroTime(Timestamp::now() - hour), "renewTime": MicroTime(Timestamp::now() - hour),
        },
    });
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    let mut replica = cluster.replica(REPLICAS[0], &[])?;
    // Each clock is wrong by much more than the lease holds.
    renew_for_long(&leases, -hour).await?;
    replica.until_waiting().await?;
    let last = renew_for_long(&leases, hour).await?;
    replica.until_leading().await?;
    ensure!(last.elapsed() >= RIVAL, "it was taken {:?} after it was renewed", last.elapsed());
    let taken = leases.get(lease::NAME).await?.spec.context("a lease has a spec")?;
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some(REPLICAS[0]), Some(4)));
    Ok(())
}
