//! A real node: kubelet and containerd in the guest, the API server and the controller outside of it, the agent as the chart
//! runs it. Whoever annotates a pod is this scenario.

mod agent;
mod policies;
mod resizes;
mod rewrites;

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::guest::{Cgroup, Cluster, Guest, Node, pod};
use crate::node::NAME;
use crate::report::Verdict;
use crate::workload::Ledger;

/// Whatever a loaded machine needs: only what never comes fails.
const PATIENCE: Duration = Duration::from_mins(5);
/// The namespace of the pods.
const NAMESPACE: &str = "default";
const MIB: u64 = 1 << 20;
const MEMORY_HIGH: &str = "memory.high";

pub(super) fn run(guest: &mut Guest) -> Result<Verdict> {
    let mut node = Node::start(guest)?;
    let done = steps(guest, &mut node);
    let verdict = guest.verdict();
    if done.is_err() || !verdict.pass {
        guest.say(node.last_words());
    }
    done.map(|()| verdict)
}

/// The steps, each on what the one before left.
fn steps(guest: &mut Guest, node: &mut Node) -> Result<()> {
    let cluster = Cluster::connect()?;
    let ready = guest.expect_within(PATIENCE, "the node is ready", || {
        cluster.get::<NodeObject>(NAME).is_ok_and(|node| node.is_some_and(|node| is_ready(&node)))
    })?;
    guest.say(format_args!("the node is ready after {ready:?}"));
    let subjects = Subjects::start(guest, &cluster)?;

    let before = agent::Tunables::read()?;
    agent::install(guest, &cluster)?;
    policies::create(&cluster)?;
    let Subjects { guaranteed, burstable, besteffort } = &subjects;
    policies::sink(guest, &cluster, &[guaranteed, burstable, besteffort])?;
    policies::follow(guest, &cluster, guaranteed)?;
    policies::change(guest, &cluster, &subjects)?;
    policies::misspell(guest, &cluster, besteffort)?;
    rewrites::by_another(guest, guaranteed)?;
    rewrites::by_kubelet(guest, node, guaranteed)?;
    agent::kill(guest, &cluster, guaranteed)?;
    resizes::by_an_autoscaler(guest, &cluster, node)?;
    policies::opt_out(guest, &cluster, burstable)?;
    agent::cost(guest, &cluster)?;
    agent::uninstall(guest, &cluster, &before, &[guaranteed, besteffort])?;
    for subject in subjects.all() {
        let now = subject.now(&cluster)?;
        guest.equal(
            format_args!("restarts of the {}", subject.name),
            pod::restarts(&now, pod::CONTAINER)?,
            &0,
        );
    }
    Ok(())
}

/// A pod with one generator.
struct Subject {
    name: &'static str,
    pod: Pod,
    /// Of the pod: what a policy says of a pod is written here.
    cgroup: Cgroup,
    cold: u64,
}

impl Subject {
    /// The pod as the API server has it now.
    fn now(&self, cluster: &Cluster) -> Result<Pod> {
        cluster.get_in(NAMESPACE, self.name)?.with_context(|| format!("{} is gone", self.name))
    }

    /// What the generator said last.
    fn ledger(&self) -> Result<Ledger> {
        pod::last_report(&self.pod)
    }

    /// Share of the cold bytes that lie on the slow node.
    fn sunk(&self) -> Result<f64> {
        let bytes = self.ledger()?.sum(|region| region.name == "cold", |region| region.slow_bytes);
        Ok(bytes as f64 / self.cold as f64)
    }

    fn annotate(&self, cluster: &Cluster, annotations: &Value) -> Result<()> {
        cluster.annotate(NAMESPACE, self.name, annotations)
    }

    /// Whether a file of its cgroup has this value.
    fn has(&self, file: &str, value: &str) -> bool {
        self.cgroup.read(file).is_ok_and(|now| now == value)
    }
}

/// A pod of each `QoS` class: each has its place in kubelet's tree of cgroups.
struct Subjects {
    guaranteed: Subject,
    burstable: Subject,
    besteffort: Subject,
}

impl Subjects {
    /// Starts them and waits until their memory is populated.
    fn start(guest: &mut Guest, cluster: &Cluster) -> Result<Self> {
        let enough = json!({ "cpu": "500m", "memory": "256Mi" });
        let classes = [
            ("guaranteed", json!({ "limits": enough }), 96, "/kubepods/pod"),
            ("burstable", json!({ "requests": { "memory": "64Mi" } }), 32, "/kubepods/burstable/pod"),
            ("besteffort", json!({}), 32, "/kubepods/besteffort/pod"),
        ];
        for (name, resources, cold, _) in &classes {
            let regions = format!("--region hot:16M --region cold:{cold}M");
            cluster.create(pod::manifest(name, resources, &regions))?;
        }
        let [guaranteed, burstable, besteffort] =
            classes.map(|(name, _, cold, place)| Self::wait(guest, cluster, name, cold * MIB, place));
        Ok(Self { guaranteed: guaranteed?, burstable: burstable?, besteffort: besteffort? })
    }

    fn wait(
        guest: &mut Guest,
        cluster: &Cluster,
        name: &'static str,
        cold: u64,
        place: &str,
    ) -> Result<Subject> {
        let running = guest.expect_within(PATIENCE, "the pod runs", || {
            cluster
                .get_in::<Pod>(NAMESPACE, name)
                .is_ok_and(|pod| pod.is_some_and(|pod| pod::is_running(&pod)))
        })?;
        guest.say(format_args!("{name} runs after {running:?}"));
        let pod: Pod = cluster.get_in(NAMESPACE, name)?.context("the pod is gone")?;
        let container = pod::workload_cgroup(&pod)?;
        let expected = format!("{place}{}", pod.uid().context("uid")?);
        let cgroup = container.parent().context("a container in no pod")?;
        guest.equal(format_args!("cgroup of the {name} pod"), cgroup.path(), &expected.as_str());
        let subject = Subject { name, pod, cgroup, cold };
        guest.equal(format_args!("sunk of {name} before there is an agent, share"), subject.sunk()?, &0.0);
        Ok(subject)
    }

    fn all(&self) -> [&Subject; 3] {
        [&self.guaranteed, &self.burstable, &self.besteffort]
    }
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}
