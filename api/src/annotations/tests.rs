use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn parse(annotations: &[(&str, &str)]) -> Requests {
    Requests::parse(annotations.iter().copied())
}

fn problems(problems: &[Problem]) -> String {
    problems.iter().flat_map(|problem| [problem.to_string(), "\n".to_owned()]).collect()
}

#[test]
fn a_policy_is_named_or_opted_out_of() {
    let check = |value: &str, choice: PolicyChoice| {
        assert_eq!(parse(&[(Key::Policy.as_str(), value)]).policy, Some(choice.clone()), "{value}");
        let of_container = parse(&[("container.thermocline.io/db", value)]).containers;
        assert_eq!(of_container, BTreeMap::from([("db".to_owned(), choice)]), "{value}");
    };
    check("batch", PolicyChoice::Named("batch".to_owned()));
    check(" batch ", PolicyChoice::Named("batch".to_owned()));
    check("none", PolicyChoice::OptOut);
    check("", PolicyChoice::OptOut);
    assert_eq!(parse(&[]), Requests::default());
}

#[test]
fn annotations_of_others_are_passed_over() {
    let others =
        ["kubernetes.io/policy", "thermocline.iox/policy", "mythermocline.io/policy", "thermocline.io"];
    assert_eq!(parse(&others.map(|key| (key, "x"))), Requests::default());
}

#[test]
fn what_has_no_meaning_says_what_has() {
    let check = |key: &str, value: &str, expected: Expect| {
        expected.assert_eq(&problems(&parse(&[(key, value)]).problems));
    };
    check(
        "thermocline.io/polcy",
        "batch",
        expect![[r"
            annotation thermocline.io/polcy: there is no such key; did you mean thermocline.io/policy?
        "]],
    );
    check(
        "thermocline.io/colour",
        "blue",
        expect![[r"
            annotation thermocline.io/colour: there is no such key
        "]],
    );
    check(
        "Thermocline.io/Policy",
        "batch",
        expect![[r"
            annotation Thermocline.io/Policy: there is no such key; did you mean thermocline.io/policy?
        "]],
    );
    check(
        "containers.thermocline.io/main",
        "batch",
        expect![[r"
            annotation containers.thermocline.io/main: there is no such key; did you mean container.thermocline.io/main?
        "]],
    );
    check(
        "pod.thermocline.io/x",
        "batch",
        expect![[r"
            annotation pod.thermocline.io/x: there is no such key: keys start with thermocline.io/ or container.thermocline.io/
        "]],
    );
    check(
        "thermocline.io/mode",
        "observe",
        expect![[r"
            annotation thermocline.io/mode: `observe` is not a mode (modes are capitalised): write Observe or Enforce
        "]],
    );
    check(
        "thermocline.io/tiers",
        "dram,fast",
        expect![[r"
            annotation thermocline.io/tiers: `fast` is not a tier: write a name (dram, pmem, cxl, hbm, slow) or a rank (0 is the fastest), for example dram
        "]],
    );
    check(
        "thermocline.io/demote-after",
        "2",
        expect![[r"
            annotation thermocline.io/demote-after: `2` is not a duration (it has no unit): write numbers with h, m, s, ms, us or ns, for example 90s, 2m or 1h30m
        "]],
    );
    check(
        "thermocline.io/dram-floor",
        "256MB",
        expect![[r"
            annotation thermocline.io/dram-floor: `256MB` is not an amount of memory or a percentage (leave out the B): write an amount, for example 256Mi or 1.5Gi, or a share of the cgroup's anonymous memory, for example 60%
        "]],
    );
}

#[test]
fn overrides_hold_where_the_policy_allows_them_and_they_fit() {
    let check = |annotations: &[(&str, &str)], policy: &str, applied: &str, expected: Expect| {
        let policy: PolicySpec = serde_json::from_str(policy).unwrap();
        let (spec, left) = parse(annotations).overrides.apply("batch", &policy, None);
        let applied: PolicySpec = serde_json::from_str(applied).unwrap();
        assert_eq!(PolicySpec { allow_overrides: None, ..spec }, applied);
        expected.assert_eq(&problems(&left));
    };
    check(
        &[("thermocline.io/dram-floor", "1Gi"), ("thermocline.io/mode", "Observe")],
        r#"{ "allowOverrides": ["floor"] }"#,
        r#"{ "dram": { "floor": "1Gi" } }"#,
        expect![[r"
            annotation thermocline.io/mode: policy batch does not allow this override; its allowOverrides would have to list mode
        "]],
    );
    // Either alone would not fit, together they do.
    check(
        &[("thermocline.io/dram-floor", "1Gi"), ("thermocline.io/dram-ceiling", "2Gi")],
        r#"{ "allowOverrides": ["floor", "ceiling"], "dram": { "floor": "256Mi", "ceiling": "512Mi" } }"#,
        r#"{ "dram": { "floor": "1Gi", "ceiling": "2Gi" } }"#,
        expect![""],
    );
    check(
        &[("thermocline.io/dram-floor", "1Gi"), ("thermocline.io/demote-after", "5m")],
        r#"{ "allowOverrides": ["floor", "after"], "dram": { "ceiling": "512Mi" } }"#,
        r#"{ "dram": { "ceiling": "512Mi" }, "demote": { "after": "5m" } }"#,
        expect![[r"
            annotation thermocline.io/dram-floor: it does not fit policy batch: dram.floor is above dram.ceiling: no amount of DRAM satisfies both
        "]],
    );
    check(
        &[("thermocline.io/memory-high", "1Gi"), ("thermocline.io/tiers", "dram, 1")],
        r#"{ "allowOverrides": ["memoryHigh", "tiers"], "memoryHigh": { "mode": "Formula", "factor": "0.8" } }"#,
        r#"{ "memoryHigh": { "mode": "Fixed", "value": "1Gi" }, "tiers": ["dram", 1] }"#,
        expect![""],
    );
}

#[test]
fn an_override_beyond_its_bounds_does_not_apply() {
    let check = |annotation: (&str, &str), floor: Option<&str>, after: Option<&str>, expected: Expect| {
        let policy = r#"{
            "allowOverrides": ["floor", "ceiling", "after"], "dram": { "floor": "64Mi" },
            "overrideBounds": { "floor": { "max": "512Mi" }, "ceiling": { "min": "20%" }, "after": { "min": "1m", "max": "5m" } }
        }"#;
        let policy: PolicySpec = serde_json::from_str(policy).unwrap();
        let (spec, left) = parse(&[annotation]).overrides.apply("batch", &policy, None);
        assert_eq!(spec.dram.floor.map(|floor| floor.to_string()).as_deref(), floor.or(Some("64Mi")));
        assert_eq!(spec.demote.after.map(|after| after.to_string()).as_deref(), after);
        expected.assert_eq(&problems(&left));
    };
    check(("thermocline.io/dram-floor", "512Mi"), Some("512Mi"), None, expect![""]);
    check(
        ("thermocline.io/dram-floor", "513Mi"),
        None,
        None,
        expect![[r"
            annotation thermocline.io/dram-floor: policy batch does not let it go so far: its overrideBounds have floor at most 512Mi
        "]],
    );
    // Nobody knows here how much a percentage is.
    check(
        ("thermocline.io/dram-floor", "1%"),
        None,
        None,
        expect![[r"
            annotation thermocline.io/dram-floor: policy batch does not let it go so far: its overrideBounds have floor at most 512Mi
        "]],
    );
    check(("thermocline.io/dram-ceiling", "20%"), None, None, expect![""]);
    check(
        ("thermocline.io/dram-ceiling", "19.9%"),
        None,
        None,
        expect![[r"
            annotation thermocline.io/dram-ceiling: policy batch does not let it go so far: its overrideBounds have ceiling at least 20%
        "]],
    );
    check(("thermocline.io/demote-after", "300s"), None, Some("5m"), expect![""]);
    check(
        ("thermocline.io/demote-after", "168h"),
        None,
        None,
        expect![[r"
            annotation thermocline.io/demote-after: policy batch does not let it go so far: its overrideBounds have after at least 1m, at most 5m
        "]],
    );
}

#[test]
fn a_quota_has_a_meaning_on_a_namespace_alone() {
    expect![[r"
        annotation thermocline.io/dram-floor-quota: it has a meaning on a namespace alone
    "]]
    .assert_eq(&problems(&parse(&[("thermocline.io/dram-floor-quota", "8Gi")]).problems));
    let bad = NamespaceRequests::parse([("thermocline.io/dram-floor-quota", "lots")]);
    assert_eq!(bad.floor_quota, None);
    assert!(problems(&bad.problems).contains("`lots` is not an amount"), "{bad:?}");
}

#[test]
fn a_message_has_its_end_however_long_the_value_is() {
    let said = problems(&parse(&[("thermocline.io/demote-after", &"ü".repeat(1000))]).problems);
    assert!(said.contains(&format!("`{}…` is not a duration", "ü".repeat(64))), "{said}");
    let short = "x".repeat(64);
    let said = problems(&parse(&[("thermocline.io/mode", &short)]).problems);
    assert!(said.contains(&format!("`{short}` is not a mode")), "{said}");
}

#[test]
fn more_tiers_than_a_schema_lets_through_are_refused() {
    let check = |tiers: &str, expected: Expect| {
        let policy: PolicySpec = serde_json::from_str(r#"{ "allowOverrides": ["tiers"] }"#).unwrap();
        let (_, left) = parse(&[("thermocline.io/tiers", tiers)]).overrides.apply("batch", &policy, None);
        expected.assert_eq(&problems(&left));
    };
    check("0,1,2,3,4,5,6,7", expect![""]);
    check(
        "0,1,2,3,4,5,6,7,8",
        expect![[r"
            annotation thermocline.io/tiers: it does not fit policy batch: tiers names 9 tiers, and at most 8 may be: name those that the nodes have
        "]],
    );
}

#[test]
fn memory_high_is_an_amount_a_factor_or_none() {
    let check = |value: &str, spec: &str| {
        let expected: MemoryHighSpec = serde_json::from_str(spec).unwrap();
        assert_eq!(memory_high(value), Ok(expected), "{value}");
    };
    check("none", r#"{ "mode": "None" }"#);
    check("512Mi", r#"{ "mode": "Fixed", "value": "512Mi" }"#);
    check("80%", r#"{ "mode": "Formula", "factor": "80%" }"#);
    assert!(memory_high("lots").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever an owner writes, there is an answer, and what applies is a policy that makes sense.
    #[test]
    fn any_annotation_leaves_a_policy_that_makes_sense(
        annotations in prop::collection::vec((key(), value()), 0..6),
        allow in prop::sample::subsequence(
            vec!["mode", "tiers", "floor", "ceiling", "after", "memoryHigh"], 0..=6),
    ) {
        let requests = Requests::parse(annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let policy = serde_json::json!({ "allowOverrides": allow, "dram": { "floor": "64Mi", "ceiling": "90%" } });
        let policy: PolicySpec = serde_json::from_value(policy).unwrap();
        let (spec, _) = requests.overrides.apply("any", &policy, None);
        prop_assert!(spec.to_policy(None).is_ok());
        prop_assert_eq!(&spec.priority, &policy.priority);
    }
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(Key::ALL.to_vec()).prop_map(|key| key.as_str().to_owned());
    prop_oneof![8 => known, 1 => "thermocline.io/[a-z-]{0,12}", 1 => "container.thermocline.io/[a-z-]{0,12}", 1 => ".{0,20}"]
}

fn value() -> impl Strategy<Value = String> {
    let likely = [
        "none",
        "Observe",
        "Enforce",
        "observe",
        "dram",
        "dram,slow",
        "0",
        "slow,slow",
        "256Mi",
        "60%",
        "101%",
        "2m",
        "1ns",
        "9999h",
        "1e30",
    ];
    prop_oneof![4 => prop::sample::select(likely.to_vec()).prop_map(str::to_owned), 1 => "[0-9.]{0,6}[a-zA-Z%]{0,3}", 1 => ".{0,40}"]
}

#[test]
fn a_namespace_says_the_policy_of_its_pods_and_nothing_else() {
    let annotations = [
        ("thermocline.io/policy", "batch"),
        ("thermocline.io/mode", "Observe"),
        ("thermocline.io/polcy", "batch"),
        ("container.thermocline.io/db", "latency"),
        ("kubernetes.io/metadata", "x"),
        ("thermocline.io/dram-floor-quota", "8Gi"),
    ];
    let NamespaceRequests { policy, floor_quota, problems: found } = NamespaceRequests::parse(annotations);
    assert_eq!(floor_quota, Some(Quantity(tiering::Bytes::mib(8192))));
    assert_eq!(policy, Some(PolicyChoice::Named("batch".to_owned())));
    expect![[r"
        annotation thermocline.io/polcy: there is no such key; did you mean thermocline.io/policy?
        annotation thermocline.io/mode: it has no meaning on a namespace: only thermocline.io/policy and thermocline.io/dram-floor-quota have; annotate the pods
        annotation container.thermocline.io/db: it has no meaning on a namespace: only thermocline.io/policy and thermocline.io/dram-floor-quota have; annotate the pods
    "]]
    .assert_eq(&problems(&found));
}
