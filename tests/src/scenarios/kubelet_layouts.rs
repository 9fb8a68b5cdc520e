//! Pods laid out as kubelet and the runtimes lay them out, assigned by what was last known while the API server is away.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::STATE;
use crate::guest::{Cgroup, FAST, Guest, SLOW, Workload, numa_stat};
use crate::report::Verdict;
use crate::scenario::{Kernel, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kubelet-layouts",
    about: "pods of both cgroup drivers are found and accounted as pods, with policies of containers, drift and removal",
    applies: |machine| machine.kernel > Kernel::V6_1,
    agent: true,
    guest_timeout: Duration::from_mins(5),
    run,
};

const MIB: u64 = 1 << 20;
const ASSIGNED: &str = "/run/thermocline/nodetiering.json";
const KUBECONFIG: &str = "/run/kubeconfig";
const NODE: &str = "n1";
/// Nobody listens there.
const AWAY: &str = "http://127.0.0.1:9";
const HIGH: u64 = 128 * MIB;
const FLOOR: u64 = 48 * MIB;
/// Memory of each workload's cold region.
const COLD: u64 = 32 * MIB;

/// Uids as the API has them; the last is the hash of a static pod's manifest.
const WEB: &str = "c45b4909-5638-4e54-9055-67415c748543";
const CACHE: &str = "b51b4955-b4b5-4feb-8383-6ef0007f0674";
const STATIC: &str = "f0a4cf83a2fd8c2a4c5b0c3d4e5f6071";
const LIMITED: &str = "3bb80881-2752-40fd-b367-09094f3e9b36";
const PINNED: &str = "7d3f4a52-06b1-4f6e-a1c1-0c9b33a4e111";
const OTHER: &str = "0b5ab9a8-93c2-4b0e-8f4e-2f2a4f0f7777";

/// Cgroups of containers, one workload each.
struct Pods {
    /// Of containerd under the systemd driver: goes with the pod.
    app: Cgroup,
    /// Goes with the pod, too.
    helper: Cgroup,
    /// Has a policy of its own, which only observes.
    watched: Cgroup,
    /// Opted out.
    left: Cgroup,
    /// Of CRI-O under the cgroupfs driver, Guaranteed.
    cache: Cgroup,
    /// Of a static pod under a nested root of the cgroupfs driver.
    fixed: Cgroup,
    /// The pod that has a `memory.high` and tiers, under a nested root of the systemd driver.
    limited: Cgroup,
    /// A container whose memory nodes were chosen before us.
    pinned: Cgroup,
    /// Of a pod that is not assigned.
    other: Cgroup,
}

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

fn slice(uid: &str) -> String {
    uid.replace('-', "_")
}

impl Pods {
    fn create(guest: &Guest) -> Result<Self> {
        let web =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", slice(WEB));
        let limited =
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{}.slice", slice(LIMITED));
        let scope = |pod: &str, number| guest.cgroup(&format!("{pod}/cri-containerd-{}.scope", id(number)));
        // Each pod's sandbox, and the monitor that CRI-O has beside a container.
        scope(&web, 0xff)?;
        scope(&limited, 0xfe)?;
        guest.cgroup(&format!("/kubepods/pod{CACHE}/crio-conmon-{}", id(5)))?;
        let pinned = guest.cgroup(&format!("/kubepods/burstable/pod{PINNED}/{}", id(8)))?;
        pinned.write("cpuset.mems", "0")?;
        Ok(Self {
            app: scope(&web, 1)?,
            helper: scope(&web, 2)?,
            watched: scope(&web, 3)?,
            left: scope(&web, 4)?,
            cache: guest.cgroup(&format!("/kubepods/pod{CACHE}/crio-{}", id(5)))?,
            fixed: guest.cgroup(&format!("/kubelet/kubepods/burstable/pod{STATIC}/{}", id(6)))?,
            limited: {
                scope(&limited, 7)?;
                guest.cgroup(&limited)?
            },
            pinned,
            other: guest.cgroup(&format!("/kubepods/besteffort/pod{OTHER}/{}", id(9)))?,
        })
    }

    /// The container of the limited pod.
    fn in_limited(&self, guest: &Guest) -> Result<Cgroup> {
        guest.cgroup(&format!("{}/cri-containerd-{}.scope", self.limited.path(), id(7)))
    }
}

fn policy(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("demote".to_owned(), json!({ "after": "4s" }));
    }
    json!({ "name": "batch", "spec": spec })
}

fn pod(uid: &str, name: &str, spec: &Value) -> Value {
    json!({ "uid": uid, "namespace": "shop", "name": name, "policy": policy(spec) })
}

/// The `NodeTiering`; with or without the pod that has limits.
fn assigned(with_limited: bool) -> Value {
    let mut web = pod(WEB, "web", &json!({ "dram": { "floor": FLOOR } }));
    web["containers"] = json!([
        { "name": "watched", "id": id(3), "policy": policy(&json!({ "mode": "Observe" })) },
        { "name": "left", "id": id(4), "unmanaged": true },
    ]);
    let any = json!({});
    let mut pods = vec![
        web,
        pod(CACHE, "cache", &any),
        pod(STATIC, "fixed-n1", &any),
        pod(PINNED, "pinned", &any),
        pod("11111111-0000-4000-8000-000000000000", "absent", &any),
    ];
    if with_limited {
        let limits = json!({ "tiers": ["dram"], "memoryHigh": { "mode": "Fixed", "value": HIGH } });
        pods.push(pod(LIMITED, "limited", &limits));
    }
    let generation = if with_limited { 4 } else { 5 };
    json!({ "metadata": { "name": NODE, "generation": generation }, "spec": spec(pods) })
}

/// Each policy once, and pods that refer to it.
fn spec(mut pods: Vec<Value>) -> Value {
    let mut policies = serde_json::Map::new();
    let mut lift = |holder: &mut Value| {
        if let Some(policy) = holder.get_mut("policy").filter(|policy| policy.is_object()) {
            let key = format!("p{}", policies.len());
            policies.insert(key.clone(), std::mem::replace(policy, json!(key)));
        }
    };
    for pod in &mut pods {
        lift(pod);
        pod.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut lift);
    }
    json!({ "policies": policies, "pods": pods })
}

fn run(guest: &mut Guest) -> Result<Verdict> {
    std::fs::create_dir_all("/run/thermocline")?;
    std::fs::write(ASSIGNED, assigned(true).to_string())?;
    std::fs::write(KUBECONFIG, kubeconfig().to_string())?;
    let pods = Pods::create(guest)?;
    let cold = format!("--region cold:{}M", COLD / MIB);
    let containers = [&pods.app, &pods.helper, &pods.watched, &pods.left, &pods.cache, &pods.fixed];
    let in_limited = pods.in_limited(guest)?;
    let containers = containers.into_iter().chain([&in_limited, &pods.pinned, &pods.other]);
    let mut workloads: Vec<Workload> =
        containers.map(|container| guest.spawn_workload(container, &cold)).collect::<Result<_>>()?;

    let arguments = ["--kubernetes", "--node-name", NODE, "--kubeconfig", KUBECONFIG];
    let config = format!("stateFile: {STATE}\n");
    let agent = guest.spawn_agent(&config, &arguments)?;
    let sunk = |cgroup: &Cgroup| numa_stat(cgroup, "anon").map_or(0, |anon| anon[SLOW]);
    let web_in_dram = || {
        let dram = |cgroup: &Cgroup| numa_stat(cgroup, "anon").map_or(0, |anon| anon[FAST]);
        dram(&pods.app) + dram(&pods.helper)
    };
    let most = COLD / 100 * 95;
    let found = guest.expect_within(Duration::from_mins(2), "cold memory sinks", || {
        [&pods.cache, &pods.fixed].iter().all(|cgroup| sunk(cgroup) >= most)
            && web_in_dram() <= FLOOR + 4 * MIB
    });
    if found.is_err() {
        guest.say(agent.log()?);
    }
    found?;
    // Two more ages, for what must not sink.
    guest.sleep(Duration::from_secs(8));
    guest.at_least(
        "DRAM of a pod with a floor, its containers together, MiB",
        mib(web_in_dram()),
        mib(FLOOR - MIB),
    );
    for (who, cgroup) in [
        ("a container whose policy observes", &pods.watched),
        ("a container that opted out", &pods.left),
        ("a pod whose memory nodes another chose", &pods.pinned),
        ("a pod that is not assigned", &pods.other),
        ("a pod that keeps to DRAM", &in_limited),
    ] {
        guest.at_most(format_args!("sunk of {who}, MiB"), mib(sunk(cgroup)), 0.0);
    }
    told(guest)?;

    limits_are_kept(guest, &pods.limited)?;
    let cache = workloads.remove(4);
    drop(cache);
    pods.cache.clone().remove()?;
    guest.expect_within(Duration::from_secs(20), "a container that is gone is forgotten", || {
        state(guest).is_ok_and(|state| leaves(&state, CACHE) == Some(1))
    })?;

    // Killed, it goes on from the file; the pod that is not in it any more gets its values back.
    agent.kill()?;
    std::fs::write(ASSIGNED, assigned(false).to_string())?;
    let agent = guest.spawn_agent(&config, &arguments)?;
    guest.expect_within(
        Duration::from_secs(30),
        "a pod that lost its policy gets its values back",
        || pods.limited.read("memory.high").is_ok_and(|high| high == "max"),
    )?;
    let log = agent.log()?;
    let status = agent.stop(Duration::from_secs(20))?;
    guest.check("exit status after SIGTERM", status, "exit status: 0", status.success());
    let lines = log.lines().filter(|line| line.contains("pod") && line.contains("shop/"));
    guest.at_least("lines of the log that name a pod", lines.count() as f64, 3.0);
    for workload in &mut workloads {
        guest.equal("pages with wrong content", workload.verify()?.wrong, &0);
    }
    Ok(guest.verdict())
}

/// What the agent says of itself and of the pods.
fn told(guest: &mut Guest) -> Result<()> {
    let ready = guest.http_get(9440, "/readyz")?;
    guest.equal("/readyz", ready.trim(), &"ready, with what was last known: the API server is away");
    let metrics = guest.http_get(9440, "/metrics")?;
    for part in [
        "\nthermocline_api_server_up 0\n",
        "\nthermocline_assignment_generation 4\n",
        "\nthermocline_assigned_pods 6\n",
        "namespace=\"shop\",pod=\"web\",container=\"watched\"",
        "namespace=\"shop\",pod=\"fixed-n1\",policy=\"batch\"",
    ] {
        guest.check(
            format_args!("metrics with {}", part.trim()),
            metrics.contains(part),
            true,
            metrics.contains(part),
        );
    }
    let state = state(guest)?;
    let views = state["cgroups"].as_object().context("cgroups")?;
    let mut names: Vec<String> = views
        .values()
        .map(|view| {
            format!(
                "{} {}",
                view["pod"]["pod"].as_str().unwrap_or("?"),
                view["pod"]["container"].as_str().unwrap_or("-")
            )
        })
        .collect();
    names.sort();
    guest.equal(
        "managed",
        names.join(", "),
        &"cache -, fixed-n1 -, limited -, pinned -, web -, web watched".to_owned(),
    );
    let pinned =
        views.values().find(|view| view["pod"]["pod"] == "pinned").is_some_and(|view| view["pinned"] == true);
    guest.equal("the pod whose memory nodes another chose is known as such", pinned, &true);
    guest.equal(
        "leaves of the pod without those apart",
        format!("{:?}", leaves(&state, WEB)),
        &"Some(3)".to_owned(),
    );
    Ok(())
}

/// The limits of a pod stand, and are written again when kubelet or systemd writes others.
fn limits_are_kept(guest: &mut Guest, limited: &Cgroup) -> Result<()> {
    let stands = |file: &str, value: &str| limited.read(file).is_ok_and(|now| now == value);
    let high = HIGH.to_string();
    guest.equal("memory.high of the pod", limited.read("memory.high")?, &high);
    guest.equal("cpuset.mems of the pod", limited.read("cpuset.mems")?, &"0".to_owned());
    for (file, ours, theirs) in [("memory.high", high.as_str(), "max"), ("cpuset.mems", "0", "0-1")] {
        limited.write(file, theirs)?;
        let answered = guest
            .expect_within(Duration::from_secs(20), "the limit is written again", || stands(file, ours))?;
        guest.say(format_args!("{file} is ours again after {answered:?}"));
    }
    Ok(())
}

fn kubeconfig() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": AWAY } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "token": "t" } }],
    })
}

fn state(guest: &Guest) -> Result<Value> {
    Ok(serde_json::from_str(&guest.http_get(9440, "/debug/state")?)?)
}

/// Leaves of a pod's managed cgroup.
fn leaves(state: &Value, uid: &str) -> Option<u64> {
    let mut views = state["cgroups"].as_object()?.values();
    views.find(|view| view["pod"]["uid"] == uid && view["pod"]["container"].is_null())?["leaves"].as_u64()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
