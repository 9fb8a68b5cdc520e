use api::TieringPolicy;
use api::conditions::{reasons, types};
use serde_json::json;

use super::*;
use crate::event_queue::{Poster, Reason, Regarding, queue};
use crate::node_writes::LONGEST_SETTLE;
use crate::watch::Change;
use crate::watch::objects::{Guarded, NodeTiering, Pod};

/// One that leads and knows everything, and what its Events come to. Nobody is there where it writes to.
fn controller() -> (Controller, Poster) {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let writer = Writer::new(kube::Client::try_from(config).unwrap());
    let fence = Fence::new();
    let (event_queue, poster) = queue(writer.clone(), "one".to_owned(), fence.clone());
    let mut controller = Controller::new(Index::new(None), writer, event_queue, fence, mpsc::channel(1).0);
    controller.synced.extend(Kind::ALL);
    controller.resolved = true;
    controller.owned_by(Owner::Node);
    controller
        .index
        .apply_namespace(&serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap());
    controller.lead(true);
    (controller, poster)
}

fn pod(name: &str, annotations: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "namespace": "a", "name": name, "uid": name, "annotations": annotations },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] },
    }))
    .unwrap()
}

fn pods(events: &[KubeEvent]) -> BTreeSet<&str> {
    let names = events.iter().map(|event| match &event.regarding {
        Regarding::Pod { name, .. }
        | Regarding::Namespace(name)
        | Regarding::Policy { name, .. }
        | Regarding::Node { name, .. } => &**name,
    });
    names.collect()
}

#[tokio::test]
async fn a_warning_that_there_is_no_room_for_is_posted_once_there_is() {
    const PODS: usize = 5000;
    let (mut controller, mut poster) = controller();
    for n in 0..PODS {
        controller.index.apply_pod(&pod(&format!("pod-{n}"), &json!({ "thermocline.io/mode": "Sometimes" })));
    }
    let changes = controller.index.take_changes();
    controller.note(&changes, None);
    let mut events = poster.take_all();
    assert!(events.len() < PODS);
    while !controller.pending.is_empty() {
        controller.post_pending();
        events.append(&mut poster.take_all());
    }
    assert_eq!(pods(&events).len(), PODS);
    assert_eq!(controller.event_queue.counts().dropped, 0);
    let Reason::InvalidAnnotation(note) = &events[0].reason else { panic!("{:?}", events[0]) };
    assert!(note.ends_with("; what applies to the pod: no policy: no policy applies"), "{note}");

    // Whoever leads next posts them itself.
    controller.note(&changes, None);
    controller.lead(false);
    assert!(controller.pending.is_empty());
}

#[tokio::test]
async fn a_warning_that_the_server_refuses_is_posted_again_later_if_it_is_still_so() {
    let (mut controller, mut poster) = controller();
    controller.index.apply_pod(&pod("web", &json!({ "thermocline.io/mode": "Sometimes" })));
    controller.index.apply_pod(&pod("mended", &json!({ "thermocline.io/mode": "Sometimes" })));
    let changes = controller.index.take_changes();
    controller.note(&changes, None);
    let now = Instant::now();
    for refused in poster.take_all() {
        controller.not_posted(refused, now);
    }
    controller.index.apply_pod(&pod("mended", &json!({})));
    let mut posted_at = |now| {
        controller.post_postponed(now);
        controller.post_pending();
        pods(&poster.take_all()).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(posted_at(now).is_empty());
    assert_eq!(posted_at(now + POSTPONE_FOR), ["web"]);
    assert!(posted_at(now + 2 * POSTPONE_FOR).is_empty(), "once is enough");
}

#[tokio::test]
async fn each_namespace_has_its_turn_with_warnings_that_waited() {
    let (mut controller, mut poster) = controller();
    for namespace in ["b", "c"] {
        let named = json!({ "metadata": { "name": namespace } });
        controller.index.apply_namespace(&serde_json::from_value(named).unwrap());
    }
    for n in 0..4000 {
        for namespace in ["a", "b", "c"].into_iter().filter(|namespace| *namespace == "a" || n < 2) {
            let mut pod = pod(&format!("{namespace}-{n:04}"), &json!({ "thermocline.io/mode": "Sometimes" }));
            pod.metadata.namespace = Some(namespace.to_owned());
            controller.index.apply_pod(&pod);
        }
    }
    let changes = controller.index.take_changes();
    for pod in &changes.invalid {
        controller.postpone(warnings::Warning::Pod(pod.clone()), Instant::now());
    }
    controller.post_postponed(Instant::now() + POSTPONE_FOR);
    controller.post_pending();
    let events = poster.take_all();
    let first: Vec<&str> = events.iter().take(6).flat_map(|one| pods(std::slice::from_ref(one))).collect();
    assert_eq!(first, ["a-0000", "b-0000", "c-0000", "a-0001", "b-0001", "c-0001"]);
}

#[tokio::test]
async fn whoever_leads_next_warns_of_policies_whose_status_says_it_already() {
    let (mut controller, mut poster) = controller();
    let spec = json!({ "dram": { "floor": "2Gi", "ceiling": "1Gi" } });
    let policy: TieringPolicy = serde_json::from_value(json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy",
        "metadata": { "name": "odd", "uid": "u", "generation": 1 }, "spec": spec,
    }))
    .unwrap();
    let see = |controller: &mut Controller, policy: TieringPolicy| {
        let change = Change::Applied(Box::new(crate::watch::objects::Object::Policy(Box::new(policy))));
        controller.watched(Watched { kind: Kind::Policy, change, at: Instant::now() });
    };
    see(&mut controller, policy.clone());
    assert_eq!(pods(&poster.take_all()), BTreeSet::from(["odd"]));
    // Its status is written, and what was queued is lost with the lease.
    let (acceptance, matched) = controller.acceptance(&"odd".into()).unwrap();
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    let status =
        crate::policy_status::status(&acceptance, 1, matched, &[], &TieringPolicyStatus::default(), &time);
    see(&mut controller, TieringPolicy { status: Some(status), ..policy });
    assert!(poster.take_all().is_empty());
    controller.lead(false);
    controller.lead(true);
    assert_eq!(pods(&poster.take_all()), BTreeSet::from(["odd"]));
}

#[tokio::test]
async fn of_a_pod_with_endless_problems_some_are_posted_and_others_have_theirs() {
    let (mut controller, mut poster) = controller();
    let endless: BTreeMap<_, _> = (0..5000).map(|n| (format!("thermocline.io/none-{n}"), "x")).collect();
    controller.index.apply_pod(&pod("endless", &json!(endless)));
    controller.index.apply_pod(&pod("other", &json!({ "thermocline.io/mode": "Sometimes" })));
    let changes = controller.index.take_changes();
    controller.note(&changes, None);
    assert_eq!(pods(&poster.take_all()).len(), 2);
}

#[tokio::test]
async fn what_a_write_without_an_answer_did_is_posted_when_it_is_known() {
    let (mut controller, mut poster) = controller();
    let node = Name::from("n1");
    controller.index.apply_node(
        &serde_json::from_value(json!({ "metadata": { "name": "n1", "uid": "of-node" } })).unwrap(),
    );
    controller.index.apply_policy(&TieringPolicy::new("batch", api::PolicySpec::default()));
    controller.index.apply_pod(&pod("web", &json!({ "thermocline.io/policy": "batch" })));
    controller.index.take_changes();
    let spec = controller.index.assignment("n1", &()).unwrap();
    let due = Due { node: Name::clone(&node), event: None };
    let fail = |controller: &mut Controller| {
        let events = controller.assignment_events(&node, &spec);
        let error = WriteError { fault: WriteFault::Timeout, message: String::new() };
        let outcome = Outcome::Assigned {
            spec: spec.clone(),
            content: Content::of(&spec, "of-node"),
            renewed: 0,
            events,
            result: Err(error),
        };
        controller.node_written(NodeWrite { due: due.clone(), outcome, took: Duration::ZERO });
    };
    fail(&mut controller);
    fail(&mut controller);
    assert!(poster.take_all().is_empty());
    assert!(controller.failing.contains_key(&node));
    assert_eq!(controller.unconfirmed[&node].len(), 1, "of two tries");
    // The watch says that it was carried out after all.
    let object = json!({
        "metadata": {
            "name": "n1", "uid": "u", "generation": 1, "annotations": { api::RENEWED: unix_now().as_secs().to_string() },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "of-node" }],
        },
        "spec": spec,
        "status": { "agentVersion": "1" },
    });
    let object: NodeTiering = serde_json::from_str(&object.to_string()).unwrap();
    controller.tierings.observe(&node, &object);
    controller.write_node(due.clone());
    assert_eq!(pods(&poster.take_all()), BTreeSet::from(["web"]));
    assert!(controller.failing.is_empty() && controller.unconfirmed.is_empty());

    // What is not so any more is not posted.
    fail(&mut controller);
    controller.unconfirmed.get_mut(&node).unwrap().push(KubeEvent {
        regarding: Regarding::Pod {
            namespace: "a".to_owned(),
            name: "web".to_owned(),
            uid: "web".to_owned(),
        },
        reason: Reason::Assigned("policy of-before".to_owned()),
        occasion: 1,
    });
    controller.tierings.observe(&node, &object);
    controller.write_node(due);
    assert!(poster.take_all().is_empty());
}

#[tokio::test]
async fn what_everybody_has_by_default_and_what_is_only_observed_is_no_news() {
    let (mut controller, _poster) = controller();
    controller.index = Index::new(Some("everybodys"));
    let parse = |object: serde_json::Value| object.to_string();
    let namespace = parse(json!({ "metadata": { "name": "a" } }));
    controller.index.apply_namespace(&serde_json::from_str(&namespace).unwrap());
    let node = parse(json!({ "metadata": { "name": "n1", "uid": "of-node" } }));
    controller.index.apply_node(&serde_json::from_str(&node).unwrap());
    for (policy, mode) in [("everybodys", "Enforce"), ("watched", "Observe"), ("batch", "Enforce")] {
        let spec = serde_json::from_value(json!({ "mode": mode })).unwrap();
        controller.index.apply_policy(&TieringPolicy::new(policy, spec));
    }
    controller.index.apply_pod(&pod("says-nothing", &json!({})));
    controller.index.apply_pod(&pod("observed", &json!({ "thermocline.io/policy": "watched" })));
    controller.index.apply_pod(&pod("enforced", &json!({ "thermocline.io/policy": "batch" })));
    let spec = controller.index.assignment("n1", &()).unwrap();
    assert_eq!(spec.assigned_pods, Some(3));
    assert_eq!(pods(&controller.assignment_events(&"n1".into(), &spec)), BTreeSet::from(["enforced"]));
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_keeps_the_status_that_says_so() {
    let (mut controller, mut poster) = controller();
    let mut policy = json!({
        "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy",
        "metadata": { "name": "odd", "uid": "u", "generation": 1 }, "spec": { "mode": "Sometimes" },
    });
    let mut see = |controller: &mut Controller, policy: &serde_json::Value| {
        let guarded: Guarded<TieringPolicy> = serde_json::from_str(&policy.to_string()).unwrap();
        let change = Change::Malformed(guarded.0.unwrap_err());
        controller.watched(Watched { kind: Kind::Policy, change, at: Instant::now() });
        poster.take_all().len()
    };
    assert_eq!(see(&mut controller, &policy), 1);
    let message = controller.policies.get("odd").unwrap().unreadable.clone();
    policy["status"] = json!({ "observedGeneration": 1, "matchedPods": 0, "conditions": [{
        "type": types::ACCEPTED, "status": "False", "reason": reasons::UNREADABLE, "message": message,
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] });
    // There is nothing to say, also for one that has just started.
    assert_eq!(see(&mut controller, &policy), 0);
    let due = controller.statuses.take_due(Instant::now());
    assert_eq!(due, [Name::from("odd")]);
    for policy in due {
        controller.write_status(policy);
    }
    assert_eq!(controller.statuses.in_flight(), 0);
    let time = |controller: &Controller| {
        let status = controller.policies.get("odd").unwrap().status.clone();
        status.conditions[0].last_transition_time.0.to_string()
    };
    assert_eq!(time(&controller), "2026-01-01T00:00:00Z");
    // Of a status that can't be read either, what was known holds.
    policy["status"] = json!(5);
    see(&mut controller, &policy);
    assert_eq!(time(&controller), "2026-01-01T00:00:00Z");
}

#[tokio::test]
async fn whoever_begins_to_lead_does_not_look_at_all_nodes_in_one_turn() {
    let (mut controller, _poster) = controller();
    let now = Instant::now();
    controller.fence.extend(now + Duration::from_mins(1));
    let nodes = 3 * writes::NODES_IN_A_TURN;
    for node in 0..nodes {
        controller.nodes.changed(&format!("n{node}").into(), None, now);
    }
    tokio::time::sleep(LONGEST_SETTLE).await;
    for turn in 1..=3 {
        controller.write_what_is_due();
        assert_eq!(controller.nodes.waiting(), nodes - turn * writes::NODES_IN_A_TURN);
    }
}
