//! What people see: status of policies, Events on pods, namespaces and policies.

use anyhow::{Context as _, Result};
use api::TieringPolicy;
use api::conditions::{events, reasons, types};
use cluster_tests::eventually;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::{Objects, annotated, refused, shared};

/// Waits for an Event about an object whose note says all of this.
pub(crate) async fn until_event(
    objects: &Objects,
    namespace: &str,
    about: &str,
    reason: &str,
    says: &[&str],
) -> Result<Event> {
    let all: Api<Event> = Api::namespaced(objects.client.clone(), namespace);
    let mut notes = Vec::new();
    let what = format!("{reason} of {about}: {says:?}");
    let waited = eventually(&what, async || {
        let events = all.list(&ListParams::default()).await?.items.into_iter();
        let about =
            events.filter(|event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(about));
        let of_reason = |event: &Event| event.reason.as_deref() == Some(reason);
        let found: Vec<Event> = about.filter(of_reason).collect();
        notes = found.iter().filter_map(|event| event.note.clone()).collect();
        let says_all = |event: &Event| {
            let note = event.note.as_deref().unwrap_or_default();
            says.iter().all(|words| note.contains(words))
        };
        Ok(found.into_iter().find(says_all))
    });
    waited.await.with_context(|| format!("there were {notes:?}"))
}

#[tokio::test]
async fn a_pods_owner_has_events_of_what_became_of_it() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("events-node").await?;
    objects.namespace("events", json!({})).await?;
    objects.policy("events-one", json!({})).await?;
    let event = async |pod: &str, reason: &str, says: &[&str]| {
        until_event(&objects, "events", pod, reason, says).await
    };

    let uid = objects.pod_with("events/web", "events-node", "events-one").await?;
    let assigned = event("web", events::ASSIGNED, &["events-one", "annotation of the pod"]).await?;
    let regarding = assigned.regarding.clone().context("it is about the pod")?;
    assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some("Pod"), Some(&*uid)));
    assert_eq!(assigned.type_.as_deref(), Some("Normal"));

    // The agent stood down.
    let pod = json!({
        "uid": uid, "namespace": "events", "name": "web", "reason": reasons::STOOD_DOWN, "message": "systemd writes memory.high",
        "since": "2026-01-01T00:00:00Z",
    });
    let status = json!({ "status": { "pods": [pod] } });
    let nodes: Api<api::NodeTiering> = Api::all(objects.client.clone());
    nodes.patch_status("events-node", &PatchParams::default(), &Patch::Merge(&status)).await?;
    let suspended = event("web", events::SUSPENDED, &["systemd writes memory.high"]).await?;
    assert_eq!(suspended.type_.as_deref(), Some("Warning"));

    objects.name_policy("events/web", "none").await?;
    event("web", events::UNASSIGNED, &["opted out by annotation of the pod"]).await?;

    // Each key that does not apply, with the value or the name that was meant.
    let bad = json!({ "metadata": { "annotations": {
        "thermocline.io/policy": "events-one", "thermocline.io/demote-after": "soon", "thermocline.io/dram-flor": "1Gi",
        "thermocline.io/mode": "Observe", "container.thermocline.io/absent": "events-one",
    } } });
    objects.pod("events/bad", "events-node", &bad).await?;
    for says in [
        // With what applies instead.
        ["thermocline.io/demote-after", "policy events-one (annotation of the pod)"],
        ["thermocline.io/demote-after", "soon"],
        ["thermocline.io/dram-flor", "thermocline.io/dram-floor"],
        ["thermocline.io/mode", "allowOverrides"],
        ["container.thermocline.io/absent", "no container"],
    ] {
        event("bad", events::INVALID_ANNOTATION, &says).await?;
    }
    // The rest applies.
    objects.until_assigned("events-node", &[("events/bad", "events-one")]).await?;

    objects.namespace("events", annotated("thermocline.io/policy", "events-tow")["metadata"].clone()).await?;
    event("events", events::INVALID_ANNOTATION, &["events-tow"]).await?;
    Ok(())
}

/// The modes of a node's pods.
async fn modes(objects: &Objects, node: &str) -> Result<Vec<Option<api::ModeSpec>>> {
    let spec = objects.node_tiering(node).await?.context("it has an assignment")?.spec;
    let mode =
        |pod: &api::PodAssignment| spec.policy(pod.policy.as_ref()).and_then(|policy| policy.spec.mode);
    Ok(spec.pods.iter().map(mode).collect())
}

#[tokio::test]
async fn a_policys_status_says_whether_it_is_accepted_and_how_many_pods_have_it() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    let policies: Api<TieringPolicy> = Api::all(objects.client.clone());
    objects.node("status-node").await?;
    objects.namespace("status", json!({})).await?;
    objects.policy("status", json!({})).await?;
    let check = async |accepted: &str, reason: &str, matched: u32| {
        let mut found = None;
        let what = format!("{accepted}, {reason}, {matched} pods");
        let waited = eventually(&what, async || {
            let policy = policies.get("status").await?;
            let generation = policy.metadata.generation;
            found.clone_from(&policy.status);
            let Some(status) = policy.status else { return Ok(None) };
            let is_so = status.conditions.iter().any(|condition| {
                condition.type_ == types::ACCEPTED
                    && condition.status == accepted
                    && condition.reason == reason
                    && condition.observed_generation == generation
            });
            let counted = status.matched_pods == Some(matched) && status.observed_generation == generation;
            Ok((is_so && counted).then_some(()))
        });
        waited.await.with_context(|| format!("its status was {found:?}"))
    };
    check("True", reasons::VALID, 0).await?;
    for pod in ["status/a", "status/b", "status/c"] {
        objects.pod_with(pod, "status-node", "status").await?;
    }
    check("True", reasons::VALID, 3).await?;
    objects.delete_pod("status/a").await?;
    check("True", reasons::VALID, 2).await?;
    let before = policies.get("status").await?;

    objects.policy("status", refused()).await?;
    check("False", reasons::INVALID, 2).await?;
    let rejected = until_event(&objects, "kube-system", "status", events::REJECTED, &["ceiling"]).await?;
    assert_eq!(rejected.type_.as_deref(), Some("Warning"));
    // What made sense before stays, for new pods, too.
    objects.pod_with("status/d", "status-node", "status").await?;
    let assigned = [("status/b", "status"), ("status/c", "status"), ("status/d", "status")];
    objects.until_assigned("status-node", &assigned).await?;
    check("False", reasons::INVALID, 3).await?;
    objects.delete_pod("status/d").await?;

    objects.policy("status", json!({ "mode": "Observe" })).await?;
    check("True", reasons::VALID, 2).await?;
    assert!(policies.get("status").await?.metadata.generation > before.metadata.generation);
    // Its status says so at once; nodes are written a moment later, and what is gone before is never written.
    eventually("the two have Observe", async || {
        let modes = modes(&objects, "status-node").await?;
        Ok((modes == [Some(api::ModeSpec::Observe); 2]).then_some(()))
    })
    .await?;

    policies.delete("status", &kube::api::DeleteParams::default()).await?;
    // Gone: those that had it keep it, and nobody falls to the default.
    objects.pod_with("status/late", "status-node", "status").await?;
    until_event(
        &objects,
        "status",
        "late",
        events::INVALID_ANNOTATION,
        &["there is no TieringPolicy `status`", "or is observed"],
    )
    .await?;
    let assigned = [("status/b", "status"), ("status/c", "status"), ("status/late", "status")];
    objects.until_assigned("status-node", &assigned).await?;
    let modes = modes(&objects, "status-node").await?;
    assert_eq!(modes, [Some(api::ModeSpec::Observe); 3], "the two had Observe, the late one is observed");
    assert_eq!(before.name_any(), "status");
    Ok(())
}
