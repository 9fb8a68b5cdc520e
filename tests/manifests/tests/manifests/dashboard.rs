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

#[test]
fn prometheus_understands_every_query() {
    let dashboard = dashboard();
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    let queries: Vec<_> = queries(&dashboard)
        .into_iter()
        .map(|(_, query)| {
            let known = variables.iter().fold(query.replace("$__rate_interval", "5m"), |query, variable| {
                query.replace(&format!("${variable}"), ".*")
            });
            assert!(!known.contains('$'), "an unknown variable in {query}");
            known
        })
        .collect();
    prometheus_takes(&queries);
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
