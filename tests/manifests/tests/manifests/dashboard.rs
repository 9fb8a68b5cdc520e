//! The dashboard asks for what is served, in queries that Prometheus understands.

use manifest_tests::{root, run};
use serde_json::Value;

use crate::metrics;

fn dashboard() -> Value {
    let path = root().join("charts/thermocline/files/dashboard/thermocline.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Title of the panel and query.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<_> = panels
        .iter()
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap().to_owned();
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
        })
        .collect();
    assert!(queries.len() > 15, "the dashboard has changed shape");
    queries
}

#[test]
fn every_query_is_about_metrics_and_labels_that_exist() {
    let served = metrics::served();
    for (title, query) in queries(&dashboard()) {
        assert!(
            metrics::unknown(&query, &served).is_empty(),
            "{title}: {:?}",
            metrics::unknown(&query, &served)
        );
    }
}

/// With values for its variables. `$1` is not one: it is what a pattern found.
fn with_values(query: &str) -> String {
    let values = [
        ("$__rate_interval", "5m"),
        ("$node", ".*"),
        ("$namespace", ".*"),
        ("$pod", ".*"),
        ("$policy", ".*"),
        ("$dramPrice", "4"),
        ("$slowPrice", "1"),
    ];
    let query = values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.replace("$1", "").contains('$'), "an unknown variable in {query}");
    query
}

#[test]
fn prometheus_understands_every_query() {
    let queries: Vec<_> = queries(&dashboard()).iter().map(|(_, query)| with_values(query)).collect();
    prometheus_takes(&queries);
}

/// Of two pods of a Deployment, one of a `StatefulSet` that is only observed and a service of a host, by each grouping.
#[test]
fn savings_are_told_by_node_policy_namespace_and_workload_in_bytes_and_in_money() {
    let dashboard = dashboard();
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
    for price in ["dramPrice", "slowPrice"] {
        assert!(variables.iter().any(|it| it["name"] == price && it["type"] == "textbox"), "{price}");
    }
    let gib = |count: u64| count << 30;
    let series = |name: &str, labels: &str, value: u64| {
        format!("      - {{ series: '{name}{{{labels}}}', values: '{value}' }}\n")
    };
    let mut input = String::new();
    for (node, would, freed) in [("a", 3, 1), ("b", 2, 0)] {
        let node = format!("node=\"{node}\"");
        input += &series("thermocline_would_free_bytes", &node, gib(would));
        let policy = format!("{node},policy=\"batch\"");
        input += &series("thermocline_policy_would_free_bytes", &policy, gib(would));
        input += &series("thermocline_policy_freed_bytes", &policy, gib(freed));
    }
    // Touched a second; what would be of what is enforced is not what it costs.
    for (labels, mode, would, slow, touched, would_touch) in [
        (r#"node="a",cgroup="/k/1",namespace="shop",pod="web-7d4b9c6f8-x2x5q""#, "Enforce", 1, 1, 7, 100),
        (r#"node="b",cgroup="/k/2",namespace="shop",pod="web-7d4b9c6f8-zz42b""#, "Enforce", 1, 0, 0, 100),
        (r#"node="a",cgroup="/k/3",namespace="shop",pod="db-0""#, "Observe", 2, 5, 100, 5),
        (r#"node="b",cgroup="/system.slice/a.service""#, "Enforce", 1, 0, 2, 100),
    ] {
        input += &series("thermocline_cgroup_slow_touched_bytes_per_second", labels, touched);
        input += &series("thermocline_cgroup_would_touch_bytes_per_second", labels, would_touch);
        input += &series("thermocline_cgroup_would_free_bytes", labels, gib(would));
        input += &series("thermocline_cgroup_anon_bytes", &format!("{labels},tier=\"pmem\""), gib(slow));
        input += &series("thermocline_cgroup_info", &format!("{labels},policy=\"batch\",mode=\"{mode}\""), 1);
    }
    let all = queries(&dashboard);
    let mut cases = Vec::new();
    // What it would free, what is freed, what both are worth at 3 a GiB, and what is touched a minute.
    let mut check = |title: &str, expected: [&[(&str, u64)]; 4]| {
        let found: Vec<&String> =
            all.iter().filter(|(panel, _)| panel == title).map(|(_, query)| query).collect();
        assert_eq!(found.len(), 4, "{title}");
        for (query, samples) in found.into_iter().zip(expected) {
            let samples: Vec<String> = samples
                .iter()
                .map(|(labels, value)| format!("{{ labels: '{{{labels}}}', value: {value} }}"))
                .collect();
            let query = Value::from(with_values(query));
            cases.push(format!(
                "      - {{ expr: {query}, eval_time: 0m, exp_samples: [{}] }}\n",
                samples.join(", ")
            ));
        }
    };
    let (a, b) = (r#"node="a""#, r#"node="b""#);
    check(
        "By node",
        [
            &[(a, gib(3)), (b, gib(2))],
            &[(a, gib(1)), (b, 0)],
            &[(a, 12), (b, 6)],
            &[(a, 12 * 60), (b, 2 * 60)],
        ],
    );
    let batch = r#"policy="batch""#;
    check("By policy", [&[(batch, gib(5))], &[(batch, gib(1))], &[(batch, 18)], &[(batch, 14 * 60)]]);
    let shop = r#"namespace="shop""#;
    check(
        "By namespace",
        [
            &[(shop, gib(4)), ("", gib(1))],
            &[(shop, gib(1)), ("", 0)],
            &[(shop, 15), ("", 3)],
            &[(shop, 12 * 60), ("", 2 * 60)],
        ],
    );
    let (web, db) = (r#"namespace="shop",workload="web""#, r#"namespace="shop",workload="db""#);
    let host = r#"workload="/system.slice/a.service""#;
    check(
        "By workload",
        [
            &[(web, gib(2)), (db, gib(2)), (host, gib(1))],
            &[(web, gib(1)), (host, 0)],
            &[(web, 9), (db, 6), (host, 3)],
            &[(web, 7 * 60), (db, 5 * 60), (host, 2 * 60)],
        ],
    );
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let cases = cases.concat();
    let text = format!("tests:\n  - interval: 1m\n    input_series:\n{input}    promql_expr_test:\n{cases}");
    std::fs::write(file.path(), text).unwrap();
    run("promtool", ["test".as_ref(), "rules".as_ref(), file.path().as_os_str()]).unwrap();
}

#[test]
fn what_is_of_a_pod_or_a_policy_can_be_narrowed_down_to_it() {
    for (title, query) in queries(&dashboard()) {
        for (of, wanted) in [
            ("thermocline_cgroup_", &["$node", "$namespace", "$pod"][..]),
            ("thermocline_policy_", &["$node", "$policy"]),
        ] {
            let parts = query.split(of).skip(1);
            let mut narrowed = parts.map(|part| part.split('}').next().unwrap_or_default());
            assert!(
                narrowed.all(|part| wanted.iter().all(|variable| part.contains(variable))),
                "{title}: {query}"
            );
        }
    }
}

/// Fails where promtool finds no sense in a query.
pub(crate) fn prometheus_takes(queries: &[String]) {
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(i, query)| format!("      - {{ record: 'query:{i}', expr: {} }}", Value::from(query.as_str())))
        .collect();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), format!("groups:\n  - name: dashboard\n    rules:\n{}\n", rules.join("\n")))
        .unwrap();
    run("promtool", ["check".as_ref(), "rules".as_ref(), file.path().as_os_str()]).unwrap();
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels {
        let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        for x in side("x")..side("x") + side("w") {
            assert!(x < 24);
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}
