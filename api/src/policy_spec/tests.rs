use super::*;
use tiering::{Bytes, MemoryHighPolicy, Policy, Ratio, TierName};

fn spec(json: &str) -> PolicySpec {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_spec_that_says_nothing_is_the_default_policy() {
    assert_eq!(Policy::try_from(&PolicySpec::default()), Ok(Policy::default()));
    assert_eq!(spec("{}"), PolicySpec::default());
}

#[test]
fn a_spec_reads_back_as_it_is_written() {
    let full = spec(
        r#"{ "mode": "Observe", "priority": 10, "tiers": ["dram", 1],
             "selector": { "namespaces": { "matchLabels": { "tier": "batch" } },
                           "pods": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] } },
             "dram": { "floor": "256Mi", "ceiling": "60%", "weight": 7 },
             "demote": { "after": "90s", "slowTouchRate": "0.2%", "maxRate": "200Mi" },
             "promote": { "enabled": false }, "memoryHigh": { "mode": "Fixed", "value": "1Gi" },
             "pressure": { "memory": "1%", "io": "2%" }, "allowOverrides": ["ceiling", "memoryHigh"] }"#,
    );
    assert_eq!(spec(&serde_json::to_string(&full).unwrap()), full);
    let policy = Policy::try_from(&full).unwrap();
    assert_eq!(policy.tiers, [TierRef::Name(TierName::Dram), TierRef::Rank(1)]);
    assert_eq!(policy.demote.after_max, policy.demote.after * 16);
    assert_eq!(policy.memory_high, MemoryHighPolicy::Fixed(Bytes::mib(1024)));
}

#[test]
fn what_does_not_fit_together_is_refused_with_its_field() {
    let check = |json: &str, path: &[&str], starts: &str| {
        let error = Policy::try_from(&spec(json)).unwrap_err();
        assert_eq!(error.path(), path, "{error}");
        assert!(error.to_string().starts_with(starts), "{error}");
    };
    check(r#"{"tiers": []}"#, &["tiers"], "tiers is empty");
    check(r#"{"tiers": [0, 1, 2, 3, 4, 5, 6, 7, 8]}"#, &["tiers"], "tiers names 9 tiers");
    check(r#"{"tiers": ["dram", "dram"]}"#, &["tiers"], "tiers names");
    check(r#"{"demote": {"after": "1s"}}"#, &["demote", "after"], "demote.after is 1s");
    check(r#"{"demote": {"afterMax": "1m"}}"#, &["demote", "afterMax"], "demote.afterMax is 60s");
    check(r#"{"dram": {"floor": "2Gi", "ceiling": "1Gi"}}"#, &["dram", "floor"], "dram.floor is above");
    check(r#"{"dram": {"weight": 0}}"#, &["dram", "weight"], "dram.weight is 0");
    check(r#"{"demote": {"maxRate": 0}}"#, &["demote", "maxRate"], "demote.maxRate is zero");
    check(r#"{"memoryHigh": {"mode": "Fixed"}}"#, &["memoryHigh"], "memoryHigh.mode Fixed needs");
    check(r#"{"memoryHigh": {"mode": "Formula"}}"#, &["memoryHigh"], "memoryHigh.mode Formula needs");
    check(
        r#"{"memoryHigh": {"target": "0.2%"}}"#,
        &["memoryHigh", "target"],
        "memoryHigh.target has no meaning",
    );
    check(
        r#"{"memoryHigh": {"mode": "Pressure", "target": "0%"}}"#,
        &["memoryHigh", "target"],
        "memoryHigh.target is zero",
    );
    check(r#"{"memoryHigh": {"value": "1Gi"}}"#, &["memoryHigh", "value"], "memoryHigh.value has no meaning");
}

#[test]
fn the_formula_computes_with_what_the_caller_knows() {
    let inputs = MemoryHighInputs { request: Bytes::mib(256), limit: Bytes::mib(1024) };
    let policy = spec(r#"{"memoryHigh": {"mode": "Formula"}}"#).to_policy(Some(inputs)).unwrap();
    let factor = Ratio::of_parts(9, 10);
    let MemoryHighInputs { request, limit } = inputs;
    assert_eq!(policy.memory_high, MemoryHighPolicy::Formula { factor, request, limit });
}

#[test]
fn pressure_has_a_target_and_a_floor() {
    let high = |json| spec(json).to_policy(None).unwrap().memory_high;
    let (target, floor) = (Ratio::of_parts(1, 1000), Bytes::mib(100));
    assert_eq!(high(r#"{"memoryHigh": {"mode": "Pressure"}}"#), MemoryHighPolicy::Pressure { target, floor });
    let (target, floor) = (Ratio::of_parts(2, 1000), Bytes::mib(64));
    let said = r#"{"memoryHigh": {"mode": "Pressure", "target": "0.2%", "floor": "64Mi"}}"#;
    assert_eq!(high(said), MemoryHighPolicy::Pressure { target, floor });
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_policy() {
    let crd = serde_json::to_value(<TieringPolicy as kube::CustomResourceExt>::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let defaulted: PolicySpec = serde_json::from_value(defaults(schema)).unwrap();
    assert_eq!(defaulted, PolicySpec::default().complete());
    assert_eq!(Policy::try_from(&defaulted), Ok(Policy::default()));
}

fn defaults(schema: &serde_json::Value) -> serde_json::Value {
    let fields = schema["properties"].as_object().unwrap().iter();
    let defaulted = fields.filter_map(|(name, field)| match &field["default"] {
        serde_json::Value::Null => None,
        serde_json::Value::Object(_) => Some((name.clone(), defaults(field))),
        scalar => Some((name.clone(), scalar.clone())),
    });
    serde_json::Value::Object(defaulted.collect())
}

#[test]
fn a_policy_is_checked_with_its_selector_and_whatever_the_memory() {
    let check = |json: &str, refused: Option<&str>| {
        assert_eq!(spec(json).check().err().map(|error| error.to_string()).as_deref(), refused, "{json}");
    };
    let values = "selector: app In: operators In and NotIn need values, Exists and DoesNotExist take none";
    check(
        r#"{ "selector": { "pods": { "matchExpressions": [{ "key": "app", "operator": "In" }] } } }"#,
        Some(values),
    );
    check(
        r#"{ "selector": { "namespaces": { "matchExpressions": [{ "key": "app", "operator": "Exists" }] } } }"#,
        None,
    );
    check(r#"{ "memoryHigh": { "mode": "Formula" } }"#, None);
    check(r#"{ "tiers": ["dram", "dram"] }"#, Some("tiers names dram twice"));
}

#[test]
fn an_error_behind_its_field_names_the_field_once() {
    let check = |json: &str, says: &str| {
        let spec: PolicySpec = serde_json::from_str(json).unwrap();
        assert_eq!(spec.to_policy(None).unwrap_err().with_path(), says);
    };
    check(
        r#"{"dram": {"floor": "2Gi", "ceiling": "1Gi"}}"#,
        "dram.floor is above dram.ceiling: no amount of DRAM satisfies both",
    );
}
