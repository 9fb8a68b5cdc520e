//! Other writers at files of ours.
//!
//! A foreign value is taken for what the other writer wants to stand when we are gone: it becomes the original. We
//! write ours again, but not for ever: after a few rounds within a while we stand down for that file and say so.

use std::collections::VecDeque;
use std::time::Duration;

use host::cgroup::ControlFile;
use host::watch::Writer;
use tiering::Instant;

use crate::snapshot::DriftView;

/// Rounds of a fight before we give up.
pub const ROUNDS: usize = 3;

/// A fight is rounds within this time of one another.
pub const WITHIN: Duration = Duration::from_mins(10);

/// What happened to one file.
#[derive(Debug, Default)]
pub struct Drift {
    count: u64,
    last: Option<Writer>,
    recent: VecDeque<Instant>,
    standing_down: bool,
}

impl Drift {
    /// Another writer's value was found; whether that makes us stand down now.
    pub fn note(&mut self, writer: Option<Writer>, now: Instant) -> bool {
        self.count += 1;
        if writer.is_some() {
            self.last = writer;
        }
        self.recent.push_back(now);
        self.recent.retain(|round| now.since(*round) <= WITHIN);
        let before = self.standing_down;
        self.standing_down |= self.recent.len() >= ROUNDS;
        self.standing_down && !before
    }

    /// Whether the file is left to the others.
    #[must_use]
    pub fn standing_down(&self) -> bool {
        self.standing_down
    }

    /// The last writer in words.
    #[must_use]
    pub fn writer(&self) -> String {
        match &self.last {
            None => "an unknown process".to_owned(),
            Some(writer) => {
                let comm = writer.comm.as_deref().unwrap_or("ended already");
                let cgroup = writer.cgroup.as_ref().map(|cgroup| format!(" in {cgroup}")).unwrap_or_default();
                format!("process {} ({comm}){cgroup}", writer.pid)
            }
        }
    }

    /// What users see of it.
    #[must_use]
    pub fn view(&self, file: ControlFile) -> DriftView {
        DriftView {
            file: file.name(),
            count: self.count,
            pid: self.last.as_ref().map(|writer| writer.pid),
            comm: self.last.as_ref().and_then(|writer| writer.comm.clone()),
            cgroup: self.last.as_ref().and_then(|writer| writer.cgroup.as_ref()).map(ToString::to_string),
            standing_down: self.standing_down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_of_three_rounds_is_given_up_and_rare_changes_are_not_a_fight() {
        let at = |s| Instant(Duration::from_secs(s));
        let mut fight = Drift::default();
        assert!(!fight.note(None, at(0)) && !fight.note(None, at(1)));
        assert!(fight.note(None, at(2)) && fight.standing_down());
        assert!(!fight.note(None, at(3)), "it is told once");

        let mut rare = Drift::default();
        assert!((0..20).all(|round| !rare.note(None, at(round * 400))));
    }
}
