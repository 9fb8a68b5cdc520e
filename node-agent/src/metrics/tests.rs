use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use expect_test::expect_file;
use prometheus::TextEncoder;

use super::{Metrics, all_families, families, reference};
use crate::fixture;
use crate::snapshot::{Published, Snapshot};

fn scrape(snapshot: Snapshot) -> String {
    let published = Published::default();
    published.publish(snapshot);
    Metrics::new(published).unwrap().text().unwrap()
}

/// Families by name, as the TYPE lines tell.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Samples without comments: series and value.
fn samples(text: &str) -> Vec<(&str, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series, value.parse().unwrap()))
        .collect()
}

#[test]
fn a_full_picture_has_every_family_of_the_reference_and_no_other() {
    let text = scrape(fixture::full());
    let found: BTreeSet<_> = types(&text).into_keys().collect();
    let declared: BTreeSet<_> = all_families().map(|family| family.name).collect();
    assert_eq!(found, declared);
    let page = reference();
    assert!(declared.iter().all(|name| page.contains(&format!("| `{name}` |"))));
}

#[test]
fn names_help_and_labels_follow_the_conventions() {
    let found = telemetry::metrics::unconventional(families::GROUPS, families::LABELS);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_series_is_there_once_and_is_finite() {
    let text = scrape(fixture::full());
    let samples = samples(&text);
    let series: BTreeSet<_> = samples.iter().map(|(series, _)| series).collect();
    assert_eq!(series.len(), samples.len());
    assert!(samples.iter().all(|(_, value)| value.is_finite() && *value >= 0.0));
}

#[test]
fn a_decision_that_is_only_observed_is_counted_apart() {
    let text = scrape(fixture::full());
    let count = |labels: [&str; 3]| {
        let of = |series: &str| {
            series.starts_with("thermocline_decisions_total")
                && labels.iter().all(|label| series.contains(label))
        };
        samples(&text).into_iter().find(|(series, _)| of(series)).map(|(_, count)| count)
    };
    assert_eq!(count([r#"mode="Enforce""#, r#"action="demote""#, r#"reason="cold""#]), Some(7.0));
    assert_eq!(count([r#"mode="Observe""#, r#"action="hold""#, r#"reason="nothing_cold""#]), Some(30.0));
}

#[test]
fn only_cgroup_series_grow_with_the_cgroups() {
    let mut snapshot = fixture::full();
    let few = scrape(snapshot.clone());
    let (_, cgroup) = snapshot.cgroups.first_key_value().unwrap();
    let cgroup = cgroup.clone();
    for n in 0..100 {
        snapshot.cgroups.insert(format!("pods/{n}"), cgroup.clone());
    }
    let many = scrape(snapshot);
    let node =
        |text: &str| samples(text).into_iter().filter(|(series, _)| !series.contains("cgroup=")).count();
    assert_eq!(node(&few), node(&many));
    let each = (samples(&many).len() - samples(&few).len()) / 100;
    assert!(each <= 24, "{each} series for each cgroup");
}

#[test]
fn a_cgroup_that_is_gone_leaves_no_series() {
    let published = Published::default();
    let metrics = Metrics::new(published.clone()).unwrap();
    published.publish(fixture::full());
    assert!(metrics.text().unwrap().contains("cgroup=\""));
    published.publish(Snapshot { cgroups: BTreeMap::new(), ..fixture::full() });
    assert!(!metrics.text().unwrap().contains("cgroup=\""));
}

#[test]
fn a_name_with_quotes_and_newlines_is_escaped() {
    let mut snapshot = fixture::full();
    let (_, mut cgroup) = snapshot.cgroups.pop_first().unwrap();
    Arc::get_mut(&mut cgroup).unwrap().path = "odd\"\n\\name".to_owned();
    snapshot.cgroups.insert(cgroup.path.clone(), cgroup);
    assert!(scrape(snapshot).contains(r#"cgroup="odd\"\n\\name""#));
}

#[test]
fn a_registry_accepts_them_and_tells_the_same() {
    let published = Published::default();
    published.publish(fixture::full());
    let registry = Metrics::registry(published.clone()).unwrap();
    let gathered = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let text = Metrics::new(published).unwrap().text().unwrap();
    assert_eq!(types(&gathered), types(&text));
    let ours = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.starts_with("thermocline_")).map(str::to_owned).collect()
    };
    assert_eq!(ours(&gathered), ours(&text));
}

#[test]
fn the_reference_is_up_to_date() {
    expect_file!["../../../docs/metrics.md"].assert_eq(&reference());
}
