//! The metrics that the binaries serve, as their generated references list them, and what queries use of them.

use std::collections::{BTreeMap, BTreeSet};

use manifest_tests::root;

/// Labels that a scrape adds.
const OF_THE_SCRAPE: [&str; 7] = ["job", "instance", "node", "namespace", "pod", "container", "endpoint"];

/// What kube-state-metrics serves, for an alert that says that it needs it.
const OF_KUBE_STATE_METRICS: &str = "kube_daemonset_status_number_unavailable";

/// References that are made from the code.
const REFERENCES: [&str; 2] = ["docs/metrics.md", "docs/metrics-controller.md"];

/// Metrics and their labels.
pub(crate) fn served() -> BTreeMap<String, BTreeSet<String>> {
    let mut served = BTreeMap::from([
        ("up".to_owned(), BTreeSet::new()),
        (OF_KUBE_STATE_METRICS.to_owned(), BTreeSet::from(["daemonset".to_owned()])),
    ]);
    for reference in REFERENCES {
        let page = std::fs::read_to_string(root().join(reference)).unwrap();
        for line in page.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            // | `name` | type | `label`, `label` | meaning |
            let ["", name, kind @ ("counter" | "gauge" | "histogram"), labels, _, ""] = cells[..] else {
                continue;
            };
            let name = name.trim_matches('`');
            let labels: BTreeSet<_> =
                labels.split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
            if kind == "histogram" {
                let with_bound = labels.iter().cloned().chain(["le".to_owned()]).collect();
                served.insert(format!("{name}_bucket"), with_bound);
                served.insert(format!("{name}_sum"), labels.clone());
                served.insert(format!("{name}_count"), labels);
            } else {
                served.insert(name.to_owned(), labels);
            }
        }
    }
    assert!(served.len() > 30, "the references have changed shape");
    served
}

/// What of a query exists nowhere: metrics, and labels of metrics.
pub(crate) fn unknown(query: &str, served: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut metrics = Vec::new();
    let mut labels = Vec::new();
    let mut previous = "";
    let words: Vec<&str> = words(query).collect();
    let mut depth_of_grouping = false;
    for (i, &word) in words.iter().enumerate() {
        let next = words.get(i + 1).copied().unwrap_or_default();
        if depth_of_grouping {
            match word {
                ")" => depth_of_grouping = false,
                "(" | "," => {}
                label => labels.push(label),
            }
        } else if matches!(word, "by" | "on" | "group_left" | "without" | "ignoring") && next == "(" {
            depth_of_grouping = true;
        } else if matches!(next, "=" | "!=" | "=~" | "!~") && matches!(previous, "{" | ",") {
            labels.push(word);
        } else if ["thermocline_", "process_", "kube_"].iter().any(|prefix| word.starts_with(prefix))
            || word == "up"
        {
            metrics.push(word);
        }
        previous = word;
    }
    let mut known: BTreeSet<&str> = OF_THE_SCRAPE.into();
    // What `label_replace` makes: strings of its own, and not values of a selector.
    let made = words.windows(2).filter(|two| two[0] == "," && two[1].starts_with('"'));
    known.extend(made.map(|two| two[1].trim_matches('"')));
    for metric in &metrics {
        match served.get(*metric) {
            Some(labels) => known.extend(labels.iter().map(String::as_str)),
            None => unknown.push(format!("metric {metric}")),
        }
    }
    unknown
        .extend(labels.iter().filter(|label| !known.contains(*label)).map(|label| format!("label {label}")));
    if metrics.is_empty() {
        unknown.push("no metric at all".to_owned());
    }
    unknown
}

/// Names, strings and signs of a query.
fn words(query: &str) -> impl Iterator<Item = &str> {
    let mut rest = query;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '$');
        let length = if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else if name(first) {
            rest.find(|c| !name(c)).unwrap_or(rest.len())
        } else if ["!=", "=~", "!~"].iter().any(|sign| rest.starts_with(sign)) {
            2
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        rest = after;
        Some(word)
    })
}

#[test]
fn what_does_not_exist_is_found() {
    let served = BTreeMap::from([
        ("up".to_owned(), BTreeSet::new()),
        ("thermocline_walks_total".to_owned(), BTreeSet::from(["reason".to_owned()])),
    ]);
    let check = |query: &str, expected: &[&str]| assert_eq!(unknown(query, &served), expected, "{query}");
    check(r#"sum by (node, reason) (rate(thermocline_walks_total{reason!="x", job="y"}[5m])) > 0"#, &[]);
    check("rate(thermocline_walk_total[5m])", &["metric thermocline_walk_total"]);
    check("sum by (reasons) (thermocline_walks_total)", &["label reasons"]);
    check(r#"up{reason=~"a|b"}"#, &["label reason"]);
    check(r#"sum by (owner) (label_replace(up, "owner", "$1", "pod", "(.+)-0"))"#, &[]);
    check(r#"sum by (owners) (label_replace(up, "owner", "$1", "pod", "(.+)-0"))"#, &["label owners"]);
    check("time() > 5", &["no metric at all"]);
}
