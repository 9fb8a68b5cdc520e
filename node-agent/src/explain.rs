//! `explain`: one cgroup on one screen, in plain words: its policy and why, what is cold, what holds it, what was done, what to change.

use tiering::Bytes;

use crate::savings::Savings;
use crate::shown::{Cgroup, Shown, bytes_by_age};
use crate::table::{age_words, touched_words};
use crate::text::short_time;

/// Names that are offered in the place of one that is not there.
const MOST_NAMES: usize = 10;

/// The cgroup of this name: a path, a pod as NAMESPACE/NAME, or the only one whose name contains it.
///
/// # Errors
/// In words, which ones there are.
pub fn find<'a>(shown: &'a Shown, name: &str) -> Result<&'a Cgroup, String> {
    let all = || shown.cgroups.values();
    let exact = all().find(|cgroup| cgroup.path == name || cgroup.name() == name);
    let path = format!("/{}", name.trim_start_matches('/'));
    if let Some(cgroup) = exact.or_else(|| all().find(|cgroup| cgroup.path == path)) {
        return Ok(cgroup);
    }
    let containing: Vec<&Cgroup> =
        all().filter(|cgroup| cgroup.name().contains(name) || cgroup.path.contains(name)).collect();
    if let [cgroup] = containing[..] {
        return Ok(cgroup);
    }
    let (words, mut names) = if containing.is_empty() {
        ("manages no cgroup of this name; it manages", all().map(Cgroup::name).collect::<Vec<_>>())
    } else {
        ("manages several of this name", containing.iter().map(|cgroup| cgroup.name()).collect())
    };
    if names.is_empty() {
        return Err(format!("{name}: the agent manages no cgroup at all"));
    }
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    Err(format!("{name}: the agent {words}: {}", names.join(", ")))
}

/// Everything about it, a paragraph a line; not wrapped.
#[must_use]
pub fn explain(shown: &Shown, cgroup: &Cgroup) -> Vec<String> {
    let age = cgroup.effective_age_seconds;
    let mut lines = vec![cgroup.name()];
    if cgroup.pod.is_some() {
        lines.push(format!("cgroup {}", cgroup.path));
    }
    lines.push(String::new());
    lines.push(format!("Policy {}, {}.", cgroup.policy, why(shown, cgroup)));
    lines.push(
        match (cgroup.pinned, cgroup.acts()) {
            (true, _) => "It is left alone: another program chose its memory nodes.",
            (_, true) => "Its decisions are carried out (mode Enforce).",
            (_, false) => "Its decisions are only reported (mode Observe): nothing of it is moved.",
        }
        .to_owned(),
    );
    lines.push(String::new());
    let savings = shown.savings_of(cgroup);
    let alone = Savings { would_touch_bytes_per_minute: None, ..savings };
    lines.push(format!("Saving: {alone} of its memory in {}.", shown.dram()));
    if savings.freed_bytes > 0 {
        lines.push(format!("Freed already: {} are on slower tiers.", Bytes(savings.freed_bytes)));
    }
    let tiers: Vec<String> =
        shown.tiers.iter().map(|tier| format!("{} {}", tier.name, Bytes(cgroup.on(&tier.name)))).collect();
    lines.push(format!("Memory: {}.", tiers.join(", ")));
    lines.push(format!(
        "Cold: {} of {} not accessed for {}; {}.",
        Bytes(cgroup.cold_bytes),
        Bytes(savings.dram_bytes),
        short_time(age),
        touched_words(cgroup).0
    ));
    let words = age_words(age);
    let classes = words.iter().zip(bytes_by_age(&cgroup.ages, age)).filter(|(_, bytes)| *bytes > 0);
    let classes: Vec<String> = classes.map(|(words, bytes)| format!("{words} {}", Bytes(bytes))).collect();
    if !classes.is_empty() {
        lines.push(format!("Ages: {}.", classes.join(", ")));
    }
    let ceiling =
        cgroup.ceiling_bytes.map_or("no ceiling".to_owned(), |bytes| format!("ceiling {}", Bytes(bytes)));
    lines.push(format!("Bounds: floor {}, {ceiling}.", Bytes(cgroup.floor_bytes)));
    lines.push(String::new());
    lines.push(format!("Now: {}.", cgroup.decision.text));
    if cgroup.decision.limit.is_some() {
        lines.push(format!("That has held it for {}.", short_time(cgroup.decision.limit_seconds.round())));
    }
    if let Some(done) = shown.last_hour.get(&cgroup.path) {
        lines.push(format!(
            "In the last hour: demoted {}, promoted {}; memory came back soon {} times; {} pages could not be moved.",
            Bytes(done.demoted_bytes),
            Bytes(done.promoted_bytes),
            done.comebacks,
            done.failed_pages
        ));
        if done.reclaimed_bytes > 0 {
            lines.push(format!("Reclaimed ahead of its limits meanwhile: {}.", Bytes(done.reclaimed_bytes)));
        }
    }
    if cgroup.slow_touched_bytes_per_minute > 0 {
        lines.push(format!(
            "Cost: it touches {} a minute on slow nodes.",
            Bytes(cgroup.slow_touched_bytes_per_minute)
        ));
    }
    if let Some(touched) = savings.would_touch_bytes_per_minute {
        lines.push(format!("Cost if enforced: it would touch {} a minute on slow nodes.", Bytes(touched)));
    }
    for drift in &cgroup.drift {
        let by = drift.comm.as_deref().unwrap_or("another program");
        lines.push(format!("{} was also written by {by}, {} times.", drift.file, drift.count));
    }
    for condition in cgroup.conditions.iter().filter(|condition| !condition.status) {
        lines.push(format!("! {}: {}", condition.reason, condition.message));
    }
    lines.push(String::new());
    lines.push(format!("To change: {}.", to_change(shown, cgroup)));
    lines
}

fn why(shown: &Shown, cgroup: &Cgroup) -> String {
    match (&shown.cluster, shown.command.as_str()) {
        (Some(cluster), _) => format!(
            "as the NodeTiering {} assigns it; `thermocline-controller --once` has the rule that chose it",
            cluster.node
        ),
        (None, "observe") => "the default one: no agent runs on this host".to_owned(),
        (None, _) => format!("the first of {} whose `cgroups` match {}", shown.config.path, cgroup.path),
    }
}

/// What to do for more, or that there is nothing to do.
fn to_change(shown: &Shown, cgroup: &Cgroup) -> String {
    if cgroup.pinned {
        return "have that program leave cpuset.mems, or leave it so".to_owned();
    }
    if !cgroup.acts() {
        return match (cgroup.would_free_bytes, shown.command.as_str()) {
            (0, _) => limit_remedy(cgroup),
            (_, "observe") => "write a policy for it and let `thermocline-agent run` enforce it; \
                               docs/policies-by-example.md has some"
                .to_owned(),
            _ => format!("set `mode: Enforce` in policy {} to free this", cgroup.policy),
        };
    }
    format!("{}. To undo: set `mode: Observe` in policy {}", limit_remedy(cgroup), cgroup.policy)
}

const OF_A_NEWER_AGENT: &str = "see docs/troubleshooting.md";

/// By what kept the decision from more.
fn limit_remedy(cgroup: &Cgroup) -> String {
    let words = match cgroup.decision.limit.as_deref() {
        None => "nothing",
        Some("nothing_cold") => {
            let half: u64 = cgroup
                .ages
                .iter()
                .filter(|(age, _)| *age >= cgroup.effective_age_seconds / 2.0)
                .map(|(_, b)| b)
                .sum();
            return if half == 0 {
                "nothing: all its memory is in use".to_owned()
            } else {
                format!("nothing, or a shorter `demote.after`: {} are older than half of it", Bytes(half))
            };
        }
        Some("floor") => "a lower `dram.floor` would let more of it sink",
        Some("rate_cap" | "node_rate") => {
            "nothing: it goes on in the next rounds; a greater `demote.maxRate` is faster"
        }
        Some("target_full") => "add slow memory, or give cgroups on it less: what sinks needs room there",
        Some("no_target") => "let its cpuset.mems have a slow node, or look at `tiers` of its policy",
        Some("may_swap") => "set its memory.swap.max to 0, or use engine pages",
        Some("memory_pressure") => {
            "find what it stalls for; if that is as it should be, raise `pressure.memory`"
        }
        Some("io_pressure") => "find what it stalls for; if that is as it should be, raise `pressure.io`",
        Some("slow_touch") => {
            "nothing, or accept more slow accesses: raise `demote.slowTouchRate`, or `demote.after`"
        }
        Some("fast_full") => "give fast memory to it: lower the ceilings or floors of others",
        Some("promotion_off") => "set `promote.enabled: true` to have it back what it uses",
        Some("bound") => "nothing: it is locked, bound to its node or in use; it is asked for again later",
        Some("too_few") => "nothing: so little is not worth the readings",
        Some("start_up") => "nothing: first it is watched for as long as `demote.after`",
        Some("portion") => "nothing: more sinks once it is known how much of the last portion is touched",
        Some("churn") => "a higher `dram.ceiling`, or less DRAM for others: it works with more than it has",
        Some("no_promoter" | "no_engine") => "`thermocline-agent probe` says what is missing, and what to do",
        Some(_) => OF_A_NEWER_AGENT,
    };
    words.to_owned()
}

#[cfg(test)]
// As expect-test writes them.
#[allow(clippy::needless_raw_string_hashes)]
mod tests {
    use expect_test::expect;
    use tiering::{Limit, Ratio};

    use super::*;
    use crate::fixture;

    fn shown() -> Shown {
        Shown::of(&fixture::full()).unwrap()
    }

    #[test]
    fn a_cgroup_is_explained_on_one_screen() {
        let shown = shown();
        let lines = explain(&shown, find(&shown, "jobs/batch/main").unwrap());
        assert!(lines.len() <= 24);
        expect![[r#"
            jobs/batch/main
            cgroup pods/batch

            Policy default, as the NodeTiering n1 assigns it; `thermocline-controller --once` has the rule that chose it.
            Its decisions are carried out (mode Enforce).

            Saving: would free 180 MiB of 300 MiB (60 %) of its memory in dram.
            Freed already: 600 MiB are on slower tiers.
            Memory: dram 300 MiB, pmem 600 MiB.
            Cold: 180 MiB of 300 MiB not accessed for 2m; touched within 1m: 120 MiB.
            Ages: <30s 100 MiB, 30s-2m 20 MiB, 2m-10m 80 MiB, >10m 100 MiB.
            Bounds: floor 64 MiB, ceiling 400 MiB.

            Now: demote 180 MiB: 180 MiB not accessed for 120s.
            Cost: it touches 6 MiB a minute on slow nodes.
            memory.high was also written by another program, 2 times.
            ! ForeignWriter: memory.high is written by kubelet

            To change: nothing. To undo: set `mode: Observe` in policy default.
        "#]]
        .assert_eq(&lines.iter().fold(String::new(), |text, line| text + line + "\n"));
    }

    #[test]
    fn a_name_is_a_path_a_pod_or_a_part_that_only_one_has() {
        let shown = shown();
        for name in ["pods/batch", "jobs/batch/main", "batch"] {
            assert_eq!(find(&shown, name).unwrap().path, "pods/batch", "{name}");
        }
        let several = find(&shown, "pods").unwrap_err();
        assert!(several.contains("several") && several.contains("pods/web"), "{several}");
        assert!(find(&shown, "none").unwrap_err().contains("it manages: "));
        assert!(find(&Shown::default(), "none").unwrap_err().contains("no cgroup at all"));
    }

    #[test]
    fn each_limit_has_its_own_remedy() {
        let all = [
            Limit::Floor,
            Limit::RateCap,
            Limit::TargetFull,
            Limit::NoTarget,
            Limit::MaySwap,
            Limit::MemoryPressure(Ratio::ZERO),
            Limit::IoPressure(Ratio::ZERO),
            Limit::SlowTouch { touched: Bytes::ZERO, allowed: Bytes::ZERO },
            Limit::FastFull,
            Limit::NothingCold,
            Limit::PromotionOff,
            Limit::Bound(Bytes::ZERO),
            Limit::TooFew(Bytes::ZERO),
            Limit::StartUp,
            Limit::NoPromoter,
            Limit::NoEngine,
            Limit::Portion(Bytes::ZERO),
            Limit::NodeRate,
            Limit::Churn,
        ];
        // The page for operators has a row for each, and each row is of one.
        let page = include_str!("../../docs/troubleshooting.md");
        let table =
            page.split("| reason | means | what to do |").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows = table.lines().filter_map(|row| row.split('|').nth(1));
        let named: std::collections::BTreeSet<&str> =
            rows.flat_map(|names| names.split('`').skip(1).step_by(2)).collect();
        assert_eq!(named, all.iter().map(|limit| limit.as_str()).collect());
        for limit in all {
            let mut cgroup = Cgroup::default();
            cgroup.decision.limit = Some(limit.as_str().to_owned());
            assert_ne!(limit_remedy(&cgroup), OF_A_NEWER_AGENT, "{limit}");
        }
    }

    #[test]
    fn what_is_observed_is_told_how_to_be_enforced_and_what_is_enforced_how_to_undo_it() {
        let mut shown = shown();
        let batch = shown.cgroups.get_mut("pods/batch").unwrap();
        batch.would_free_bytes = 1 << 20;
        let cgroup = batch.clone();
        assert!(to_change(&shown, &cgroup).contains("To undo: set `mode: Observe`"));
        let observed = Cgroup { mode: "Observe".to_owned(), ..cgroup };
        assert!(to_change(&shown, &observed).contains("`mode: Enforce`"));
    }

    #[test]
    fn what_is_only_observed_says_what_it_would_cost() {
        let shown = shown();
        let batch = &shown.cgroups["pods/batch"];
        let cost = |mode: &str| {
            let mut cgroup = Cgroup { mode: mode.to_owned(), ..batch.clone() };
            (cgroup.slow_touched_bytes_per_minute, cgroup.would_touch_bytes_per_minute) = (0, 5 << 20);
            explain(&shown, &cgroup).into_iter().find(|line| line.starts_with("Cost"))
        };
        let would = "Cost if enforced: it would touch 5 MiB a minute on slow nodes.";
        assert_eq!((cost("Observe").as_deref(), cost("Enforce")), (Some(would), None));
    }
}
