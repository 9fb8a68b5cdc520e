//! Other writers at files of ours.
//!
//! A foreign value is taken for what the other writer wants to stand when we are gone: it becomes the original. We
//! write ours again, but not for ever: who comes back a minute later, and again, wants it so, and we stand down for that file.
//! What comes within a minute is one burst, as of a package upgrade that reloads systemd several times. After an hour without
//! a change the file is taken up again; each time that this was wrong we wait twice as long.

use std::collections::VecDeque;
use std::time::Duration;

use host::cgroup::ControlFile;
use host::watch::Writer;
use tiering::Instant;

use crate::snapshot::DriftView;

/// Bursts of a fight before we give up.
pub const ROUNDS: usize = 3;

/// A fight is bursts within this time of one another.
pub const WITHIN: Duration = Duration::from_mins(10);

/// Changes within this time are one burst.
pub const BURST: Duration = Duration::from_mins(1);

/// After the first fight a file is taken up again when nobody has changed it for this long.
const PATIENCE: Duration = Duration::from_hours(1);

/// We wait no longer than this, however often there was a fight.
const MOST_PATIENCE: Duration = Duration::from_hours(24);

/// Container runtimes. They write the limits of a container when somebody resizes it, and not of themselves: with kubelet's
/// `MemoryQoS` that has a `memory.high` of kubelet's in it, each time.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// What happened to one file.
#[derive(Debug, Default)]
pub struct Drift {
    count: u64,
    last: Option<Writer>,
    /// When bursts began.
    bursts: VecDeque<Instant>,
    /// Since when nobody has changed it, where it is left to the others.
    quiet_since: Option<Instant>,
    fights: u32,
}

impl Drift {
    /// Another writer's value was found; whether that makes us stand down now.
    pub fn note(&mut self, writer: Option<Writer>, now: Instant) -> bool {
        self.count += 1;
        if writer.is_some() {
            self.last = writer;
        }
        if let Some(quiet_since) = &mut self.quiet_since {
            *quiet_since = now;
            return false;
        }
        if self.bursts.back().is_none_or(|began| now.since(*began) >= BURST) {
            self.bursts.push_back(now);
        }
        self.bursts.retain(|began| now.since(*began) <= WITHIN);
        if self.bursts.len() < ROUNDS {
            return false;
        }
        self.quiet_since = Some(now);
        self.fights += 1;
        true
    }

    /// The same, for a file by which a runtime follows a resize: such a value is another's wish for later, and no fight. A runtime that
    /// has ended before it could be named is known by the limit that changed, too (`resized`).
    pub fn note_at(
        &mut self,
        file: ControlFile,
        writer: Option<Writer>,
        resized: bool,
        now: Instant,
    ) -> bool {
        let by = writer.as_ref().and_then(|writer| writer.comm.as_deref());
        if file == ControlFile::MemoryHigh && by.map_or(resized, |comm| RUNTIMES.contains(&comm)) {
            self.count += 1;
            self.last = writer;
            return false;
        }
        self.note(writer, now)
    }

    /// Whether the file is left to the others.
    #[must_use]
    pub fn standing_down(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// How long nobody may have changed the file before it is taken up again.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let doublings = self.fights.saturating_sub(1).min(8);
        (PATIENCE * 2_u32.pow(doublings)).min(MOST_PATIENCE)
    }

    /// Takes the file up again where it was left to the others and they were quiet for long enough; whether it is so now.
    pub fn take_up_again(&mut self, now: Instant) -> bool {
        let is_over = self.quiet_since.is_some_and(|since| now.since(since) >= self.patience());
        if is_over {
            self.quiet_since = None;
            self.bursts.clear();
        }
        is_over
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
            standing_down: self.standing_down(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    /// Three bursts from then on; whether the last ends in standing down.
    fn fight(drift: &mut Drift, from: u64) -> bool {
        let calm = !drift.note(None, at(from)) && !drift.note(None, at(from + 60));
        calm && drift.note(None, at(from + 120))
    }

    #[test]
    fn a_fight_of_three_bursts_is_given_up_and_rare_changes_are_not_a_fight() {
        let mut drift = Drift::default();
        assert!(fight(&mut drift, 0) && drift.standing_down());
        assert!(!drift.note(None, at(121)), "it is told once");

        let mut rare = Drift::default();
        assert!((0..20).all(|round| !rare.note(None, at(round * 400))));
    }

    #[test]
    fn a_resize_that_a_runtime_follows_is_no_fight_and_any_other_writer_is() {
        let by = |comm: &str| Some(Writer { pid: 7, comm: Some(comm.to_owned()), cgroup: None });
        let mut followed = Drift::default();
        let fought = |drift: &mut Drift, file, comm| {
            (0..8).any(|minute| drift.note_at(file, by(comm), false, at(minute * 61)))
        };
        assert!(!fought(&mut followed, ControlFile::MemoryHigh, "runc"));
        assert_eq!((followed.standing_down(), followed.view(ControlFile::MemoryHigh).count), (false, 8));
        assert!(fought(&mut Drift::default(), ControlFile::MemoryHigh, "systemd"));
        // One that has ended already.
        let nameless = |file, resized| {
            let mut drift = Drift::default();
            (0..8).any(|minute| {
                let writer = Writer { pid: 7, comm: None, cgroup: None };
                drift.note_at(file, Some(writer), resized, at(minute * 61))
            })
        };
        assert!(!nameless(ControlFile::MemoryHigh, true));
        assert!(nameless(ControlFile::MemoryHigh, false) && nameless(ControlFile::CpusetMems, true));
        // kubelet's CPU manager has a runtime write this one again and again.
        assert!(fought(&mut Drift::default(), ControlFile::CpusetMems, "runc"));
    }

    #[test]
    fn a_package_upgrade_that_reloads_many_times_within_a_minute_counts_once() {
        let mut upgrade = Drift::default();
        assert!((0..40).all(|reload| !upgrade.note(None, at(reload))));
        assert!((0..5).all(|reload| !upgrade.note(None, at(100 + 10 * reload))), "and another one");
        assert!(!upgrade.standing_down());
    }

    #[test]
    fn a_file_is_taken_up_again_after_a_quiet_hour_and_later_each_time() {
        const HOUR: u64 = 3600;
        let mut drift = Drift::default();
        assert!(fight(&mut drift, 0));
        assert!(!drift.take_up_again(at(120 + HOUR - 1)));
        drift.note(None, at(HOUR));
        assert!(!drift.take_up_again(at(2 * HOUR - 1)), "it was not quiet");
        assert!(drift.take_up_again(at(2 * HOUR)) && !drift.standing_down());

        assert!(fight(&mut drift, 3 * HOUR));
        let over = 3 * HOUR + 120;
        assert!(!drift.take_up_again(at(over + 2 * HOUR - 1)) && drift.take_up_again(at(over + 2 * HOUR)));
        for round in 1..20 {
            assert!(fight(&mut drift, round * 100 * HOUR));
            assert!(drift.patience() <= MOST_PATIENCE && drift.take_up_again(at((round * 100 + 25) * HOUR)));
        }
    }
}
