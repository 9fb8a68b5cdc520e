use serde_json::json;
use tiering::{MemoryHighPolicy, Mode};

use super::*;

fn tiering(generation: i64, pods: &Value) -> Value {
    json!({ "metadata": { "name": "node", "generation": generation }, "spec": crate::fixture::node_tiering_spec(pods) })
}

fn pod(uid: &str, policy: &Value) -> Value {
    json!({ "uid": uid, "namespace": "shop", "name": format!("web-{uid}"), "policy": policy })
}

fn policy(spec: &Value) -> Value {
    json!({ "name": "batch", "spec": spec })
}

fn read(pods: &Value) -> Assignment {
    Assignment::read(&tiering(1, pods), &Assignment::default())
}

fn place(uid: &str, container: Option<&str>, inner: bool) -> Place {
    Place { uid: uid.to_owned(), container: container.map(str::to_owned), inner }
}

#[test]
fn a_pods_policy_is_its_own_cgroups_and_not_that_of_what_is_below() {
    let assignment = read(&json!([pod("a", &policy(&json!({ "mode": "Observe" })))]));
    let found = assignment.policy_of(&place("a", None, false)).unwrap();
    assert_eq!((found.name.as_str(), found.policy.mode), ("batch", Mode::Observe));
    for below in [place("a", Some("c1"), false), place("a", None, true), place("b", None, false)] {
        assert_eq!(assignment.policy_of(&below), None, "{below:?}");
    }
    let identity = assignment.identity_of(&place("a", Some("c1"), false)).unwrap();
    assert_eq!(identity.to_string(), "shop/web-a");
}

#[test]
fn a_container_has_a_policy_of_its_own_by_its_id_or_is_left_alone() {
    let mut web = pod("a", &policy(&json!({})));
    web["containers"] = json!([
        { "name": "app", "id": "c1", "policy": { "name": "latency", "spec": { "tiers": ["dram"] } } },
        { "name": "proxy", "id": "c2", "unmanaged": true },
        { "name": "late", "unmanaged": true },
        { "name": "log", "id": "c4", "memory": { "limit": "1Gi" } },
    ]);
    let assignment = read(&json!([web]));
    let name = |id| assignment.policy_of(&place("a", Some(id), false)).map(|policy| policy.name.as_str());
    assert_eq!(["c1", "c2", "c3", "c4"].map(name), [Some("latency"), None, None, None]);
    assert_eq!(assignment.policy_of(&place("a", Some("c1"), true)), None);
    let apart: Vec<_> = assignment.pods["a"].apart.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(apart, ["app", "proxy", "late"]);
    let identity = assignment.identity_of(&place("a", Some("c1"), false)).unwrap();
    assert_eq!(identity.to_string(), "shop/web-a/app");
}

#[test]
fn a_formula_computes_with_the_memory_of_the_pod_or_of_the_container() {
    let formula = policy(&json!({ "memoryHigh": { "mode": "Formula", "factor": "0.5" } }));
    let mut web = pod("a", &formula);
    web["memory"] = json!({ "request": "1Gi", "limit": "3Gi" });
    web["containers"] =
        json!([{ "name": "app", "id": "c1", "policy": formula, "memory": { "limit": "2Gi" } }]);
    let assignment = read(&json!([web]));
    let inputs = |place| match assignment.policy_of(&place).unwrap().policy.memory_high {
        MemoryHighPolicy::Formula { request, limit, .. } => (request.0 >> 30, limit.0 >> 30),
        other => panic!("{other:?}"),
    };
    assert_eq!(inputs(place("a", None, false)), (1, 3));
    assert_eq!(inputs(place("a", Some("c1"), false)), (0, 2));
}

#[test]
fn a_pod_that_is_not_understood_keeps_what_it_had_and_the_rest_goes_on() {
    let before = read(&json!([pod("a", &policy(&json!({}))), pod("b", &policy(&json!({})))]));
    let check = |odd: &Value, says: &str| {
        let pods = json!([pod("a", odd), pod("b", &policy(&json!({ "mode": "Observe" })))]);
        let now = Assignment::read(&tiering(2, &pods), &before);
        assert_eq!(now.generation, Some(2));
        let problem = now.pods["a"].problem.as_deref().unwrap();
        assert!(problem.contains(says), "{problem}");
        assert_eq!(now.pods["a"].policy, before.pods["a"].policy);
        assert_eq!(now.pods["b"].policy.as_ref().unwrap().policy.mode, Mode::Observe);
        assert_eq!(now.differences(&before).collect::<Vec<_>>(), ["a", "b"]);

        let fresh = Assignment::read(&tiering(2, &pods), &Assignment::default());
        assert!(fresh.pods["a"].problem.is_some() && fresh.pods["a"].policy.is_none());
        assert_eq!(fresh.pods["a"].name, "web-a");
    };
    let mut newer = policy(&json!({ "swapOut": true }));
    newer["mustUnderstand"] = json!(["swapOut"]);
    check(&newer, "the field swapOut must be understood");
    check(&policy(&json!({ "mode": "Dream" })), "unknown variant `Dream`");
    check(
        &policy(&json!({ "memoryHigh": { "mode": "Formula" } })),
        "policy batch: memoryHigh.mode Formula needs",
    );
    check(&json!("batch"), "there is no policy batch in the object");
    check(&json!(5), "invalid type");
}

#[test]
fn fields_of_a_newer_version_are_passed_over() {
    let mut newer = pod("a", &policy(&json!({ "mode": "Observe", "demote": { "grace": "5s" } })));
    newer["added"] = json!({ "anything": 1 });
    let read = read(&json!([newer]));
    assert_eq!(read.pods["a"].problem, None);
    assert_eq!(read.pods["a"].policy.as_ref().unwrap().policy.mode, Mode::Observe);
}

#[test]
fn what_nobody_confirms_is_observed() {
    let mut web = pod("a", &policy(&json!({ "mode": "Enforce" })));
    web["containers"] =
        json!([{ "name": "app", "id": "c1", "policy": policy(&json!({ "tiers": ["dram"] })) }]);
    let mut object = tiering(1, &json!([web]));
    object["metadata"]["annotations"] =
        json!({ "thermocline.io/epoch": "7", "thermocline.io/renewed": "1000" });
    let fresh = Assignment::read(&object, &Assignment::default());
    assert_eq!((fresh.epoch, fresh.renewed, fresh.stale), (Some(7), Some(1000), false));
    let stale = fresh.observing();
    let mode = |place| stale.policy_of(&place).unwrap().policy.mode;
    assert_eq!(
        (mode(place("a", None, false)), mode(place("a", Some("c1"), false))),
        (Mode::Observe, Mode::Observe)
    );
}

#[test]
fn what_is_no_list_of_pods_assigns_none() {
    for object in [json!({}), json!({ "spec": { "pods": 7 } }), json!({ "spec": null }), json!([])] {
        assert_eq!(Assignment::read(&object, &Assignment::default()), Assignment::default(), "{object}");
    }
    let nameless = json!([{ "namespace": "shop" }, 5]);
    assert!(read(&nameless).pods.is_empty());
}

#[test]
fn differences_are_what_changed_came_or_went() {
    let one = read(&json!([pod("a", &policy(&json!({}))), pod("b", &policy(&json!({})))]));
    let two = read(&json!([pod("b", &policy(&json!({ "mode": "Observe" }))), pod("c", &policy(&json!({})))]));
    assert_eq!(two.differences(&one).collect::<Vec<_>>(), ["b", "c", "a"]);
    assert_eq!(one.differences(&one).count(), 0);
}
