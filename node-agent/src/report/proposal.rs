//! The policy to paste: the most cautious one that keeps nine tenths of what could be saved.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Floor, Saving};
use crate::record::{Held, LONGEST_NAME};
use crate::text::short_time;

/// The default `demote.after` in seconds: no shorter age is proposed.
const LEAST_AFTER: u64 = 120;

/// Of the greatest saving, in percent.
const KEPT: u64 = 90;

/// Cgroups that are named in a policy.
const MOST_NAMES: usize = 20;

/// What is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// `demote.after`, in seconds.
    pub after: u64,
    /// `dram.floor`.
    pub floor: Floor,
    /// What it would keep out of DRAM on average.
    pub bytes: u64,
    /// To paste: for the agent's file, or in a cluster a `TieringPolicy`.
    pub yaml: String,
}

impl Proposal {
    /// The longest age, and with it the greatest floor, that keep nine tenths. `None` where nothing is to be saved.
    pub(super) fn of(savings: &[Saving], cgroups: &[Held], cluster: bool) -> Option<Self> {
        let of =
            |floor| savings.iter().filter(move |saving| saving.floor == floor && saving.after >= LEAST_AFTER);
        let most = of(Floor::WorkingSet).map(|saving| saving.bytes.mean).max().filter(|most| *most > 0)?;
        let enough = |saving: &&Saving| saving.bytes.mean >= most / 100 * KEPT;
        let longest = of(Floor::WorkingSet).filter(enough).max_by_key(|saving| saving.after)?;
        let same_age = savings.iter().filter(|saving| saving.after == longest.after);
        let percent = |saving: &&Saving| match saving.floor {
            Floor::WorkingSet => 0,
            Floor::Percent(percent) => percent,
        };
        let chosen = same_age.filter(enough).max_by_key(percent).unwrap_or(longest);
        let (after, floor, bytes) = (chosen.after, chosen.floor, chosen.bytes.mean);
        Some(Self { after, floor, bytes, yaml: yaml(after, floor, cgroups, cluster) })
    }
}

fn is_whole(row: &Held) -> bool {
    let is_cut = row.name.chars().count() >= LONGEST_NAME;
    !row.policy.is_empty() && !is_cut && !row.name.contains(char::is_control)
}

fn yaml(after: u64, floor: Floor, cgroups: &[Held], cluster: bool) -> String {
    let after = short_time(after as f64);
    let floor = match floor {
        Floor::WorkingSet => String::new(),
        Floor::Percent(percent) => format!("dram: {{ floor: {percent}% }}\n"),
    };
    let spec = format!("mode: Enforce\n{floor}demote: {{ after: {after} }}\n");
    let indented = |by: &str| spec.lines().fold(String::new(), |text, line| text + by + line + "\n");
    // A sum has no name of its own, one that was cut is another's, and nothing is to be gained where nothing is cold.
    let named =
        cgroups.iter().filter(|row| is_whole(row) && row.would_free.max(row.slow) > 0).take(MOST_NAMES);
    if cluster {
        let mut text = format!(
            "# kubectl apply it, then give it to pods. `mode: Observe` only reports.\napiVersion: thermocline.io/v1alpha1\nkind: \
             TieringPolicy\nmetadata: {{ name: from-report }}\nspec:\n{}",
            indented("  ")
        );
        for row in named {
            let mut parts = row.name.split('/');
            if let (Some(namespace), Some(pod)) = (parts.next(), parts.next()) {
                let line = format!(
                    "# kubectl annotate pod -n {namespace} {pod} thermocline.io/policy=from-report --overwrite\n"
                );
                if !text.contains(&line) {
                    text.push_str(&line);
                }
            }
        }
        return text;
    }
    let mut text = "# Before the other policies of /etc/thermocline/agent.yaml: the first that matches counts. `mode: Observe` only \
                    reports.\npolicies:\n  - name: from-report\n    cgroups:\n"
        .to_owned();
    for row in named {
        // The file takes globs: what is special in them stands for itself in brackets.
        let glob = globset::escape(&row.name).replace('\'', "''");
        let _ = writeln!(text, "      - '/{}'", glob.trim_start_matches('/'));
    }
    let _ = write!(text, "    spec:\n{}", indented("      "));
    text
}
