//! A cluster as its store has it: nodes, namespaces, pods with all that kubelet and the scheduler write, and policies.

use anyhow::Result;
use cluster_tests::Etcd;
use serde_json::{Value, json};

/// Namespaces, so that no one of them has everything.
const NAMESPACES: u32 = 50;
/// Objects stored at a time: etcd takes no more than 128 in a transaction.
const AT_A_TIME: usize = 100;
/// What pods are labelled with; each has its policy.
const CLASSES: [&str; 4] = ["latency", "web", "batch", "cache"];
const CREATED: &str = "2026-01-01T00:00:00Z";

/// How large it is.
#[derive(Clone, Copy)]
pub(crate) struct Cluster {
    pub(crate) nodes: u32,
    pub(crate) pods: u32,
}

impl Cluster {
    /// Namespace and name of the pod of a number. Pods are dealt to the nodes in turn.
    pub(crate) fn pod(self, number: u32) -> (String, String) {
        let number = number % self.pods;
        (
            format!("team-{:02}", number % NAMESPACES),
            format!("service-{:03}-7d9c5b6f4-{number:06}", number % 400),
        )
    }

    /// Puts everything but the policies into the store.
    pub(crate) async fn store(self, etcd: &Etcd) -> Result<()> {
        let namespaces = (0..NAMESPACES).map(namespace);
        let nodes = (0..self.nodes).map(node);
        let reports = (0..self.nodes).map(report);
        let pods = (0..self.pods).map(|number| self.stored_pod(number));
        let mut batch = Vec::with_capacity(AT_A_TIME);
        for stored in namespaces.chain(nodes).chain(reports).chain(pods) {
            batch.push(stored);
            if batch.len() == AT_A_TIME {
                etcd.store(&batch).await?;
                batch.clear();
            }
        }
        etcd.store(&batch).await
    }

    /// Four policies by label, so that every node has pods of each.
    pub(crate) fn policies() -> impl Iterator<Item = Value> {
        CLASSES.into_iter().zip(["600s", "120s", "60s", "300s"]).map(|(class, after)| policy(class, after))
    }

    /// One of them, changed.
    pub(crate) fn changed_policy() -> Value {
        policy("batch", "90s")
    }

    fn stored_pod(self, number: u32) -> (String, Value) {
        let (namespace, name) = self.pod(number);
        let node = format!("node-{:04}", number % self.nodes);
        let class = CLASSES[(number / self.nodes % 4) as usize];
        let uid = uid(1, number);
        let container = |name: &str| {
            let environment: Vec<Value> = (0..12)
                .map(|i| json!({ "name": format!("SETTING_{i}"), "value": format!("value-{i}-of-{name}") }))
                .collect();
            json!({
                "name": name,
                "image": format!("registry.example/{namespace}/{name}:1.{}.0", number % 40),
                "args": ["--listen=0.0.0.0:8080", "--log-level=info", format!("--shard={number}")],
                "env": environment,
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "resources": {
                    "requests": { "cpu": "250m", "memory": "256Mi" },
                    "limits": { "memory": "512Mi" },
                },
                "volumeMounts": [
                    { "name": "config", "mountPath": "/etc/service" },
                    { "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true },
                ],
                "livenessProbe": { "httpGet": { "path": "/live", "port": "http", "scheme": "HTTP" },
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3 },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http", "scheme": "HTTP" },
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3 },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            })
        };
        let status = |name: &str, nth: u32| {
            json!({
                "name": name,
                "state": { "running": { "startedAt": CREATED } },
                "lastState": {},
                "ready": true,
                "restartCount": 0,
                "image": format!("registry.example/{namespace}/{name}:1.{}.0", number % 40),
                "imageID": format!("registry.example/{namespace}/{name}@sha256:{:064x}", number % 40),
                "containerID": format!("containerd://{:064x}", u64::from(number) * 4 + u64::from(nth)),
                "started": true,
            })
        };
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": CREATED });
        let mut annotations =
            json!({ "kubernetes.io/psp": "restricted", "checksum/config": format!("{number:064x}") });
        // No divisor of a round number of nodes: else all pods of every tenth node would be these, and a changed policy no news there.
        if number.is_multiple_of(11) {
            annotations[api::annotations::Key::DemoteAfter.as_str()] = json!("75s");
        }
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "generateName": format!("service-{:03}-7d9c5b6f4-", number % 400),
                "namespace": namespace,
                "uid": uid,
                "creationTimestamp": CREATED,
                "labels": { "app": format!("service-{:03}", number % 400), "class": class, "pod-template-hash": "7d9c5b6f4" },
                "annotations": annotations,
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("service-{:03}-7d9c5b6f4", number % 400),
                    "uid": self::uid(2, number % 400), "controller": true, "blockOwnerDeletion": true }],
                "managedFields": [managed("kube-controller-manager"), managed("kubelet")],
            },
            "spec": {
                "nodeName": node,
                "containers": [container("service"), container("sidecar")],
                "volumes": [
                    { "name": "config", "configMap": { "name": "service", "defaultMode": 420 } },
                    { "name": "token", "secret": { "secretName": "default-token-x7k2p", "defaultMode": 420 } },
                ],
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "serviceAccount": "default",
                "securityContext": {},
                "schedulerName": "default-scheduler",
                "tolerations": [
                    { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                    { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                ],
                "priority": 0,
                "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
            },
            "status": {
                "phase": "Running",
                "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
                "hostIP": "10.1.0.1",
                "podIP": "10.2.0.1",
                "podIPs": [{ "ip": "10.2.0.1" }],
                "startTime": CREATED,
                "containerStatuses": [status("service", 0), status("sidecar", 1)],
                "qosClass": "Burstable",
            },
        });
        (format!("/registry/pods/{namespace}/{name}"), pod)
    }
}

/// What of an object who owns which field: about as much as controllers leave on a pod.
fn managed(by: &str) -> Value {
    let fields: serde_json::Map<String, Value> = (0..12)
        .map(|i| (format!("k:{{\"name\":\"SETTING_{i}\"}}"), json!({ ".": {}, "f:name": {}, "f:value": {} })))
        .collect();
    json!({
        "manager": by, "operation": "Update", "apiVersion": "v1", "time": CREATED, "fieldsType": "FieldsV1",
        "fieldsV1": { "f:spec": { "f:containers": { "k:{\"name\":\"service\"}": { ".": {}, "f:env": fields } } } },
    })
}

fn uid(kind: u32, number: u32) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

fn namespace(number: u32) -> (String, Value) {
    let name = format!("team-{number:02}");
    let stored = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "uid": uid(3, number), "creationTimestamp": CREATED },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    });
    (format!("/registry/namespaces/{name}"), stored)
}

fn node(number: u32) -> (String, Value) {
    let name = format!("node-{number:04}");
    let images: Vec<Value> = (0..30)
        .map(|i| json!({ "names": [format!("registry.example/image-{i}@sha256:{i:064x}"), format!("registry.example/image-{i}:1.0")], "sizeBytes": 50_000_000 }))
        .collect();
    let amounts = json!({ "cpu": "64", "memory": "263Gi", "pods": "250", "ephemeral-storage": "900Gi" });
    let stored = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "uid": uid(4, number), "creationTimestamp": CREATED,
            "labels": { "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name } },
        "spec": { "podCIDR": "10.2.0.0/24" },
        "status": { "capacity": amounts, "allocatable": amounts, "images": images },
    });
    (format!("/registry/minions/{name}"), stored)
}

/// The object of a node whose agent has reported, and that is assigned nothing yet.
fn report(number: u32) -> (String, Value) {
    let name = format!("node-{number:04}");
    let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": CREATED });
    let stored = json!({
        "apiVersion": "thermocline.io/v1alpha1",
        "kind": "NodeTiering",
        "metadata": { "name": name, "uid": uid(5, number), "creationTimestamp": CREATED, "generation": 1 },
        "spec": { "pods": [] },
        "status": {
            "agentVersion": "0.1.0", "engine": "lru-gen", "promotion": "kernel",
            "kernel": { "release": "6.12.48-amd64", "features": ["cgroup_v2", "lru_gen", "memory_reclaim", "numa_balancing"],
                "lacking": [{ "name": "damon", "message": "not built in" }] },
            "tiers": [{ "name": "dram", "rank": 0, "nodes": "0-1", "capacity": "256Gi" }, { "name": "cxl", "rank": 1, "nodes": "2", "capacity": "512Gi" }],
            "conditions": [condition("Ready", "Running", "what the cluster assigns is carried out"), condition("TiersAvailable", "Found", "dram, cxl")],
        },
    });
    (format!("/registry/thermocline.io/nodetierings/{name}"), stored)
}

fn policy(class: &str, after: &str) -> Value {
    json!({
        "apiVersion": "thermocline.io/v1alpha1",
        "kind": "TieringPolicy",
        "metadata": { "name": class },
        "spec": {
            "selector": { "pods": { "matchLabels": { "class": class } } },
            "demote": { "after": after },
            "allowOverrides": ["after"],
        },
    })
}
