//! The table of `probe`: what this host allows, and what to do about the rest.

use host::probe::{Feature, ProbeReport, State};

use crate::promoter::Promoter;
use crate::text::{Ink, Line, wrapped};

const NAME_WIDTH: usize = 20;
const STATE_WIDTH: usize = 11;

/// A feature's name in tables, metrics and JSON.
#[must_use]
pub fn feature_name(feature: Feature) -> String {
    // Serialisation names it already; there shall be no second list.
    serde_json::to_value(feature).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The findings in `width` columns, with colours by ANSI sequences if `colour`. `tiers` in words, `engine` (or why there
/// is none) and `promoter` are what the agent would choose. Ends with a newline.
#[must_use]
pub fn probe_table(
    report: &ProbeReport,
    tiers: &str,
    engine: Result<&str, &str>,
    promoter: Promoter,
    width: usize,
    colour: bool,
) -> String {
    let mut lines = vec![Line::default()];
    lines[0].push(Ink::Strong, format!("{:NAME_WIDTH$}{:STATE_WIDTH$}SEEN", "FEATURE", "STATE"));
    for row in &report.rows {
        let (word, ink) = match row.state {
            State::Available => ("available", Ink::Good),
            State::Missing => ("missing", Ink::Heat(1)),
            State::Denied => ("denied", Ink::Bad),
        };
        let mut line = Line::default();
        line.push(Ink::Strong, feature_name(row.feature)).pad_to(NAME_WIDTH);
        line.push(ink, word).pad_to(NAME_WIDTH + STATE_WIDTH);
        push_wrapped(&mut lines, line, Ink::Plain, "", &row.detail, width);
        if let Some(remedy) = row.remedy.as_deref().filter(|_| row.state != State::Available) {
            push_wrapped(&mut lines, Line::default(), Ink::Strong, "→ ", remedy, width);
        }
    }
    lines.push(Line::default());
    let mut line = Line::default();
    line.push(Ink::Strong, "tiers");
    push_wrapped(&mut lines, line, Ink::Plain, "", tiers, width);
    match engine {
        Ok(engine) => push_choice(&mut lines, "engine", engine, &others(report, engine), width),
        Err(missing) => push_choice(&mut lines, "engine", "none", missing, width),
    }
    push_choice(&mut lines, "promoter", promoter.as_str(), "", width);
    let mut out = String::new();
    for line in lines {
        line.render(width, colour, &mut out);
    }
    out
}

/// `words` in the last column, on as many lines as they need.
fn push_wrapped(lines: &mut Vec<Line>, mut line: Line, ink: Ink, mark: &str, words: &str, width: usize) {
    let column = NAME_WIDTH + STATE_WIDTH;
    let room = width.saturating_sub(column + mark.chars().count()).max(24);
    line.pad_to(column).push(ink, mark);
    for (i, words) in wrapped(words, room).into_iter().enumerate() {
        if i > 0 {
            lines.push(std::mem::take(&mut line));
            line.pad_to(column + mark.chars().count());
        }
        line.push(ink, words);
    }
    lines.push(line);
}

fn push_choice(lines: &mut Vec<Line>, what: &str, chosen: &str, rest: &str, width: usize) {
    let mut line = Line::default();
    line.push(Ink::Strong, what).pad_to(NAME_WIDTH);
    let ink = if chosen == "none" { Ink::Bad } else { Ink::Good };
    line.push(ink, chosen);
    push_wrapped(lines, line, Ink::Faint, "", rest, width);
}

fn others(report: &ProbeReport, chosen: &str) -> String {
    let possible = [("lru-gen", report.lru_gen()), ("pages", report.pages()), ("reclaim", report.reclaim())];
    let rest: Vec<_> =
        possible.iter().filter(|(name, works)| *works && *name != chosen).map(|(name, _)| *name).collect();
    if rest.is_empty() { String::new() } else { format!("could also use {}", rest.join(", ")) }
}

#[cfg(test)]
// As expect-test writes them.
#[allow(clippy::needless_raw_string_hashes)]
mod tests {
    use expect_test::{Expect, expect};
    use host::probe::ProbeRow;

    use super::*;

    fn report() -> ProbeReport {
        let row = |feature, state, detail: &str, remedy: Option<&str>| ProbeRow {
            feature,
            state,
            detail: detail.to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        ProbeReport {
            rows: vec![
                row(Feature::Cgroup2, State::Available, "/sys/fs/cgroup: cpuset cpu io memory", None),
                row(Feature::Demotion, State::Available, "numa/demotion_enabled is false", None),
                row(Feature::Reclaim, State::Available, "takes swappiness", None),
                row(
                    Feature::LruGenRead,
                    State::Missing,
                    "/sys/kernel/debug/lru_gen: no such file",
                    Some(
                        "mount -t debugfs none /sys/kernel/debug; in a container, mount the host's directory read-write",
                    ),
                ),
                row(Feature::MovePages, State::Denied, "EPERM", Some("run as root on the host")),
            ],
            lru_gen_syntax: None,
            reclaim_syntax: None,
        }
    }

    const TIERS: &str = "dram 0, then cxl 2; node 0 demotes to 2";

    fn check(width: usize, table: &Expect) {
        table.assert_eq(&probe_table(&report(), TIERS, Ok("reclaim"), Promoter::None, width, false));
    }

    #[test]
    fn where_there_is_no_engine_it_says_why_and_offers_none() {
        let missing = "no engine works here: lru-gen: its debugfs file can't be used, see `thermocline-agent probe`; \
                       pages: not permitted";
        let table = probe_table(&report(), TIERS, Err(missing), Promoter::None, 80, false);
        let choices = table.split_once("\n\n").unwrap().1;
        expect![[r#"
            tiers                          dram 0, then cxl 2; node 0 demotes to 2
            engine              none       no engine works here: lru-gen: its debugfs file
                                           can't be used, see `thermocline-agent probe`;
                                           pages: not permitted
            promoter            none
        "#]]
        .assert_eq(choices);
    }

    #[test]
    fn what_is_missing_has_its_remedy_below() {
        check(
            120,
            &expect![[r#"
            FEATURE             STATE      SEEN
            cgroup2             available  /sys/fs/cgroup: cpuset cpu io memory
            demotion            available  numa/demotion_enabled is false
            reclaim             available  takes swappiness
            lru_gen_read        missing    /sys/kernel/debug/lru_gen: no such file
                                           → mount -t debugfs none /sys/kernel/debug; in a container, mount the host's directory
                                             read-write
            move_pages          denied     EPERM
                                           → run as root on the host

            tiers                          dram 0, then cxl 2; node 0 demotes to 2
            engine              reclaim
            promoter            none
        "#]],
        );
    }

    #[test]
    fn a_remedy_is_wrapped_and_never_cut() {
        check(
            80,
            &expect![[r#"
            FEATURE             STATE      SEEN
            cgroup2             available  /sys/fs/cgroup: cpuset cpu io memory
            demotion            available  numa/demotion_enabled is false
            reclaim             available  takes swappiness
            lru_gen_read        missing    /sys/kernel/debug/lru_gen: no such file
                                           → mount -t debugfs none /sys/kernel/debug; in a
                                             container, mount the host's directory
                                             read-write
            move_pages          denied     EPERM
                                           → run as root on the host

            tiers                          dram 0, then cxl 2; node 0 demotes to 2
            engine              reclaim
            promoter            none
        "#]],
        );
    }
}
