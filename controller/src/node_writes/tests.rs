use super::*;

/// What is written when: `ms node` for each write, in a simulation where each write takes `took` ms and fails as `fails` says.
fn simulate(changes: &[(u64, &str)], took: u64, fails: impl Fn(&str, u64) -> bool) -> Vec<String> {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut writes = NodeWrites::default();
    let (mut under_way, mut log): (Vec<(u64, Due)>, Vec<String>) = Default::default();
    for ms in 0..10_000 {
        for (_, node) in changes.iter().filter(|(when, _)| *when == ms) {
            writes.changed(&Name::from(*node), Some(at(ms)), at(ms));
        }
        let (ended, rest): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|(began, _)| began + took == ms);
        under_way = rest;
        for (began, due) in ended {
            writes.finished(&due, !fails(&due.node, began), at(ms));
        }
        while let Some(due) = writes.take_due(at(ms)) {
            log.push(format!("{ms} {}", due.node));
            under_way.push((ms, due));
        }
        assert!(writes.in_flight() <= MOST_IN_FLIGHT && writes.in_flight() == under_way.len());
        for (_, due) in &under_way {
            assert_eq!(
                under_way.iter().filter(|(_, other)| other.node == due.node).count(),
                1,
                "{due:?} twice at once"
            );
        }
    }
    assert_eq!(writes.waiting(), 0);
    log
}

fn never(_: &str, _: u64) -> bool {
    false
}

#[test]
fn a_change_is_written_once_no_other_follows() {
    assert_eq!(simulate(&[(0, "a")], 5, never), ["20 a"]);
    assert_eq!(simulate(&[(0, "a"), (10, "a"), (15, "b")], 5, never), ["30 a", "35 b"]);
}

#[test]
fn a_change_does_not_wait_for_ever_for_others() {
    let steady: Vec<_> = (0..20).map(|n| (n * 10, "a")).collect();
    assert_eq!(simulate(&steady, 5, never), ["100 a", "250 a"]);
}

#[test]
fn writes_of_a_node_are_spaced() {
    assert_eq!(simulate(&[(0, "a"), (21, "a"), (300, "a")], 5, never), ["20 a", "170 a", "320 a"]);
    // A write that takes longer than the spacing is waited for.
    assert_eq!(simulate(&[(0, "a"), (21, "a")], 400, never), ["20 a", "420 a"]);
}

#[test]
fn a_burst_is_a_few_writes() {
    let burst: Vec<_> = (0..100).map(|n| (n * 10, "a")).collect();
    let writes = simulate(&burst, 15, never);
    assert_eq!(writes.len(), 7, "{writes:?}");
}

#[test]
fn a_failing_node_backs_off_and_holds_up_no_other() {
    let changes: Vec<_> = std::iter::once((0, "bad")).chain((0..5).map(|n| (n * 1000, "good"))).collect();
    let writes = simulate(&changes, 5, |node, ms| node == "bad" && ms < 4000);
    assert_eq!(
        writes,
        [
            "20 bad",
            "20 good",
            "525 bad",
            "1020 good",
            "1530 bad",
            "2020 good",
            "3020 good",
            "3535 bad",
            "4020 good",
            "7540 bad"
        ]
    );
}

#[test]
fn only_so_many_writes_are_under_way() {
    let names: Vec<String> = (0..40).map(|n| format!("n{n:02}")).collect();
    let changes: Vec<_> = names.iter().map(|name| (0, name.as_str())).collect();
    let writes = simulate(&changes, 100, never);
    let at = |ms: &str| writes.iter().filter(|write| write.starts_with(ms)).count();
    assert_eq!((at("20 "), at("120 "), at("220 ")), (16, 16, 8));
}

#[test]
fn the_event_that_waited_longest_is_the_one_that_is_timed() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut writes = NodeWrites::default();
    writes.changed(&"a".into(), None, now);
    writes.changed(&"a".into(), Some(now), now);
    writes.changed(&"a".into(), Some(later), later);
    let due = writes.take_due(later).unwrap();
    assert_eq!(due.event, Some(now));
    // It waits on where the write fails.
    writes.finished(&due, false, later);
    writes.changed(&"a".into(), Some(later), later);
    assert_eq!(writes.take_due(later + LAST_BACKOFF).unwrap().event, Some(now));
}

#[test]
fn what_needs_no_write_does_not_space_the_next() {
    let now = Instant::now();
    let mut writes = NodeWrites::default();
    writes.changed(&"a".into(), None, now);
    let due = writes.take_due(now + SETTLE).unwrap();
    writes.unneeded(&due);
    writes.changed(&"a".into(), None, now + SETTLE);
    assert_eq!(writes.next_due(), Some(now + SETTLE * 2));
}
