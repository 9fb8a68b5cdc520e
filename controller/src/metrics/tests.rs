use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use expect_test::expect_file;

use super::{families, reference, text};
use crate::index::FloorUse;
use crate::snapshot::{Snapshot, WriteKind};
use crate::watch::objects::Kind;

/// A controller that has seen one of everything.
fn full() -> Snapshot {
    let mut snapshot = Snapshot {
        leading: true,
        objects: BTreeMap::from([("pods", 2)]),
        assigned: BTreeMap::from([("batch".to_owned(), 1)]),
        unmanaged: BTreeMap::from([("no policy applies".to_owned(), 1)]),
        floors: BTreeMap::from([(
            "shop".to_owned(),
            FloorUse { granted: 1 << 30, quota: Some(1 << 30), denied_pods: 1 },
        )]),
        rejected: BTreeMap::from([("odd".to_owned(), "no such tier".to_owned())]),
        ..Snapshot::default()
    };
    snapshot.tallies.list_began(Kind::Pod);
    snapshot.tallies.watch_failed(Kind::Pod);
    snapshot.tallies.malformed(Kind::Pod);
    snapshot.tallies.write_ended(WriteKind::NodeTiering, None, Duration::from_millis(7));
    snapshot.tallies.event_to_write(Duration::from_millis(30));
    snapshot
}

#[test]
fn a_full_picture_has_every_family_of_the_reference_and_no_other() {
    let text = text(full().into()).unwrap();
    let found: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<_> =
        families::GROUPS.iter().flat_map(|group| group.families).map(|family| family.name).collect();
    assert_eq!(found, declared);
}

#[test]
fn names_help_and_labels_follow_the_conventions() {
    let found = telemetry::metrics::unconventional(families::GROUPS, families::LABELS);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_write_is_counted_by_what_how_and_how_long() {
    let text = text(full().into()).unwrap();
    for line in [
        "thermocline_controller_writes_total{kind=\"node_tiering\",result=\"ok\"} 1",
        "thermocline_controller_event_to_write_seconds_bucket{le=\"0.025\"} 0",
        "thermocline_controller_event_to_write_seconds_bucket{le=\"0.05\"} 1",
        "thermocline_controller_event_to_write_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_reference_is_up_to_date() {
    expect_file!["../../../docs/metrics-controller.md"].assert_eq(&reference());
}
