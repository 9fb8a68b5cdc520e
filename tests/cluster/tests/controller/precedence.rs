//! Which policy a pod gets: what its node is assigned, and the reason.

use anyhow::{Context as _, Result, ensure};
use cluster_tests::eventually;
use serde_json::{Value, json};

use crate::cluster::{DEFAULT_POLICY, annotated, policies, shared, split};

const POD: &str = "thermocline.io/policy";
const CONTAINER: &str = "container.thermocline.io/main";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod, what its node is assigned of it (`-`: nothing), and the reason.
struct Case {
    pod: &'static str,
    is: Value,
    assigned: &'static str,
    reason: &'static str,
}

fn case(pod: &'static str, is: Value, assigned: &'static str, reason: &'static str) -> Case {
    Case { pod, is, assigned, reason }
}

fn both(one: Value, other: &Value) -> Value {
    let mut both = one;
    let annotations = other["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    if let Some(all) = both["metadata"]["annotations"].as_object_mut() {
        all.extend(annotations);
    }
    both
}

fn cases() -> Vec<Case> {
    let web = json!({ "metadata": { "labels": { "app": "web" } } });
    let critical = |annotations: Value| json!({ "metadata": { "annotations": annotations }, "spec": { "priorityClassName": "system-node-critical" } });
    vec![
        // From the one that goes first to the one that goes last.
        case(
            "prec-named/container",
            both(annotated(CONTAINER, "by-container"), &annotated(POD, "by-pod")),
            "by-pod; main: by-container",
            "annotation of the pod",
        ),
        case("prec-named/pod", annotated(POD, "by-pod"), "by-pod", "annotation of the pod"),
        case("prec-named/namespace", json!({}), "by-namespace", "annotation of the namespace"),
        case("prec-plain/selector", web.clone(), "by-selector", "selector of the policy"),
        case("prec-plain/default", json!({}), DEFAULT_POLICY, "default of the cluster"),
        // Opting out goes by the same order.
        case("prec-named/opted-out", annotated(POD, "none"), "-", "opted out by annotation of the pod"),
        case("prec-named/empty", annotated(POD, ""), "-", "opted out by annotation of the pod"),
        case("prec-out/namespace", json!({}), "-", "opted out by annotation of the namespace"),
        case("prec-out/pod", annotated(POD, "by-pod"), "by-pod", "annotation of the pod"),
        case(
            "prec-named/one-out",
            annotated(CONTAINER, "none"),
            "by-namespace; main: -",
            "annotation of the namespace",
        ),
        case(
            "prec-named/one-in",
            both(annotated(CONTAINER, "by-container"), &annotated(POD, "none")),
            "-; main: by-container",
            "opted out by annotation of the pod",
        ),
        // Nothing is put in the place of a name that is none.
        case(
            "prec-named/typo",
            annotated(POD, "by-pdo"),
            "by-pdo",
            "annotation of the pod names by-pdo, of which there is no usable policy: it keeps what it had, or is observed",
        ),
        case(
            "prec-plain/typo",
            annotated(CONTAINER, "by-pdo"),
            "by-default; main: by-pdo",
            "default of the cluster",
        ),
        // What must not be slowed is named by its own annotation, or left alone.
        case("prec-named/critical", critical(json!({})), "-", "critical pod"),
        case(
            "prec-named/critical-named",
            critical(json!({ POD: "by-pod" })),
            "by-pod",
            "annotation of the pod",
        ),
        case("prec-named/static", annotated(MIRROR, "x"), "-", "mirror of a static pod"),
        case(
            "prec-named/static-named",
            both(annotated(MIRROR, "x"), &annotated(POD, "by-pod")),
            "by-pod",
            "annotation of the pod",
        ),
    ]
}

#[tokio::test]
async fn the_first_that_says_anything_gives_the_policy() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("prec-node").await?;
    let labels = json!({ "precedence": "tried" });
    for (namespace, policy) in
        [("prec-plain", None), ("prec-named", Some("by-namespace")), ("prec-out", Some("none"))]
    {
        let annotations = policy.map_or(json!({}), |policy| json!({ POD: policy }));
        objects.namespace(namespace, json!({ "labels": labels, "annotations": annotations })).await?;
    }
    for name in ["by-container", "by-pod", "by-namespace"] {
        objects.policy(name, json!({})).await?;
    }
    let selector = json!({
        "namespaces": { "matchLabels": labels }, "pods": { "matchLabels": { "app": "web" } },
    });
    for (name, priority) in [("by-selector-late", 5), ("by-selector", 5), ("by-selector-of-less", 4)] {
        objects.policy(name, json!({ "priority": priority, "selector": selector })).await?;
    }
    let cases = cases();
    for Case { pod, is, .. } in &cases {
        objects.pod(pod, "prec-node", is).await?;
    }
    for Case { pod, assigned, reason, .. } in &cases {
        let mut found = (String::new(), String::new());
        let what = format!("{pod} has {assigned} ({reason})");
        let waited = eventually(&what, async || {
            let (namespace, name) = split(pod);
            let path = format!("/debug/explain?pod={namespace}/{name}");
            let Some(explained) = shared.replica.lock().await.get(&path).await? else { return Ok(None) };
            let explained: Value = serde_json::from_str(&explained)?;
            let policy = objects.assigned("prec-node").await?.remove(*pod);
            found = (policy.unwrap_or_else(|| "-".to_owned()), explained["reason"].to_string());
            Ok((found.0 == *assigned && explained["reason"] == *reason).then_some(()))
        });
        waited.await.with_context(|| format!("{pod} has {found:?}"))?;
    }

    // What an agent must know: an annotation of the pod itself overrides exclusions, nothing else does.
    let spec = objects.node_tiering("prec-node").await?.context("it has an assignment")?.spec;
    for pod in &spec.pods {
        let case =
            cases.iter().find(|case| split(case.pod) == (&*pod.namespace, &*pod.name)).context("a case")?;
        assert_eq!(pod.explicit, case.reason.starts_with("annotation of the pod"), "{}", case.pod);
    }
    // Each policy comes once, without what says where it applies.
    let names: Vec<_> = spec.policies.values().map(|policy| policy.name.as_str()).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    ensure!(distinct.len() == names.len() && names.len() < spec.pods.len(), "{names:?}");
    ensure!(spec.policies.values().all(|policy| policy.spec.selector.is_none()), "{spec:?}");
    assert_eq!(policies(&spec).len(), spec.pods.len());
    Ok(())
}

#[tokio::test]
async fn each_change_of_what_gives_a_policy_is_followed() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("follow-node").await?;
    for name in ["follow-one", "follow-two"] {
        objects.policy(name, json!({ "allowOverrides": ["mode"] })).await?;
    }
    objects.namespace("follow", json!({})).await?;
    objects.pod("follow/web", "follow-node", &json!({})).await?;
    let check = async |policy: &str| objects.until_assigned("follow-node", &[("follow/web", policy)]).await;
    check(DEFAULT_POLICY).await?;
    objects.namespace("follow", json!({ "annotations": { POD: "follow-one" } })).await?;
    check("follow-one").await?;
    objects.name_policy("follow/web", "follow-two").await?;
    check("follow-two").await?;
    objects.change_pod("follow/web", &annotated(CONTAINER, "follow-one")).await?;
    check("follow-two; main: follow-one").await?;
    objects.change_pod("follow/web", &json!({ "metadata": { "annotations": null } })).await?;
    check("follow-one").await?;
    objects.namespace("follow", json!({})).await?;
    check(DEFAULT_POLICY).await?;

    objects
        .change_pod(
            "follow/web",
            &both(annotated(POD, "follow-one"), &annotated("thermocline.io/mode", "Observe")),
        )
        .await?;
    eventually("the override is assigned", async || {
        let spec = objects.node_tiering("follow-node").await?.context("it has an assignment")?.spec;
        let policy = spec.pods.first().and_then(|pod| spec.policy(pod.policy.as_ref()));
        Ok(policy.filter(|policy| policy.spec.mode == Some(api::ModeSpec::Observe)).map(|_| ()))
    })
    .await?;

    let id = "a".repeat(64);
    objects.change_pod("follow/web", &annotated(CONTAINER, "follow-two")).await?;
    let statuses = json!([{
        "name": "main", "containerID": format!("containerd://{id}"), "image": "none", "imageID": "", "ready": true, "restartCount": 0,
    }]);
    objects.change_pod_status("follow/web", json!({ "containerStatuses": statuses })).await?;
    eventually("the container's id is assigned", async || {
        let spec = objects.node_tiering("follow-node").await?.context("it has an assignment")?.spec;
        let container = spec.pods.first().and_then(|pod| pod.containers.first().cloned());
        Ok(container.filter(|found| found.id.as_deref() == Some(&*id)).map(|_| ()))
    })
    .await?;

    objects.change_pod_status("follow/web", json!({ "phase": "Succeeded" })).await?;
    objects.until_assigned("follow-node", &[]).await
}
