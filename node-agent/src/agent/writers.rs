//! What other writers do to files of ours: noticed, answered, and after a while left to them.

use host::cgroup::{CgroupId, ControlFile};
use host::watch::Writer;

use super::Agent;
use super::events::Event;
use super::membership::FILES;
use crate::drift::Drift;
use crate::limits::ours;
use crate::managed::Managed;
use crate::restore::read_file;
use crate::snapshot::Condition;
use crate::state::{StateError, Verdict};

impl Agent {
    /// Watches a file once something of ours stands in it.
    pub(super) fn watch_file(&mut self, id: CgroupId, file: ControlFile) {
        let Some(managed) = self.managed.get_mut(&id) else { return };
        if file == ControlFile::MemoryHigh {
            managed.max_beside_high = managed.cgroup.read_memory_max().ok().flatten();
        }
        if let Err(error) = self.sources.watch(&managed.cgroup, file)
            && !error.is_gone()
        {
            tracing::warn!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), %file, %error, "writes of others will not be noticed");
        }
    }

    /// A file of ours may have been written by another.
    pub(super) fn written(&mut self, cgroup: Option<CgroupId>, file: ControlFile, writer: Option<&Writer>) {
        let ids: Vec<CgroupId> = match cgroup {
            Some(id) => vec![id],
            None => self.managed.keys().copied().collect(),
        };
        for id in ids {
            if let Err(error) = self.check_drift(id, file, writer.cloned()) {
                tracing::error!(%error, "drift can't be recorded");
            }
        }
    }

    /// Call before stepping a cgroup's limits: whoever wrote to our files since the last event is noted first, else our next
    /// write would hide it.
    pub(super) fn settle_drift(&mut self, id: CgroupId) -> Result<(), StateError> {
        self.take_up_again(id);
        for file in FILES {
            if self.not_ours(id, file).is_none() {
                continue;
            }
            match self.sources.writes() {
                Ok(events) => {
                    for event in events {
                        if let Event::Written { cgroup, file, writer } = event {
                            self.written(cgroup, file, writer.as_ref());
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "writers can't be named"),
            }
            // No event tells of it: an agent before us left the record, or the watch failed. An original that stands may
            // also be a write of ours that never happened.
            if self.not_ours(id, file) == Some(Verdict::Foreign) {
                self.check_drift(id, file, None)?;
            }
        }
        Ok(())
    }

    /// Writes files again that were left to others, once these have been quiet for long enough.
    fn take_up_again(&mut self, id: CgroupId) {
        let now = self.now();
        let Some(managed) = self.managed.get_mut(&id) else { return };
        let mut any = false;
        for (file, drift) in &mut managed.drift {
            if drift.take_up_again(now) {
                any = true;
                tracing::info!(cgroup = %managed.cgroup.path(), %file, "nobody has changed it for long: it is written again");
            }
        }
        if any {
            note_fights(managed);
        }
    }

    /// What stands in a file of ours in the place of our last value.
    fn not_ours(&self, id: CgroupId, file: ControlFile) -> Option<Verdict> {
        let record = self.state.as_ref()?.file(id, file)?;
        let wrote = record.ours.last()?;
        let present = read_file(&self.managed.get(&id)?.cgroup, file).ok()??;
        (present != *wrote).then(|| record.verdict(&present))
    }

    fn check_drift(
        &mut self,
        id: CgroupId,
        file: ControlFile,
        writer: Option<Writer>,
    ) -> Result<(), StateError> {
        let now = self.now();
        let (Some(managed), Some(state)) = (self.managed.get_mut(&id), self.state.as_mut()) else {
            return Ok(());
        };
        if let Some(drift) = managed.drift.get_mut(&file).filter(|drift| drift.standing_down()) {
            // It is only of interest whether they are quiet.
            if writer.is_some() {
                drift.note(writer, now);
            }
            return Ok(());
        }
        let Some(record) = state.file(id, file) else { return Ok(()) };
        let Ok(Some(present)) = read_file(&managed.cgroup, file) else { return Ok(()) };
        // Either our own value stands, or ours was not written again since the last change was noticed.
        if record.verdict(&present) == Verdict::PutBack || record.ours.is_empty() {
            return Ok(());
        }
        let wrote = ours(state, &managed.cgroup, file).unwrap_or_default();
        let max = managed.cgroup.read_memory_max().ok().flatten();
        let resized = managed.max_beside_high.is_some_and(|before| max != Some(before));
        let drift = managed.drift.entry(file).or_default();
        let stand_down = drift.note_at(file, writer, resized, now);
        let path = managed.cgroup.path();
        let who = drift.writer();
        tracing::warn!(cgroup = %path, %file, present, ours = wrote, writer = who, "another writer changed it");
        *self.totals.drift.entry(file.name()).or_default() += 1;
        if stand_down {
            tracing::warn!(cgroup = %path, %file, "standing down: {who} wins");
            note_fights(managed);
            // It stays watched: once they are quiet for long, it is taken up again.
            state.forget_files([(id, file)])?;
        } else {
            state.adopt_original(id, file, &present)?;
        }
        managed.next_look = now;
        self.next_round = self.next_round.min(now);
        Ok(())
    }
}

/// Says which files are left to whom, and until when.
fn note_fights(managed: &mut Managed) {
    let fights = managed.drift.iter().filter(|(_, drift)| drift.standing_down());
    let left = |(file, drift): (&ControlFile, &Drift)| {
        let hours = drift.patience().as_secs() / 3600;
        format!("{file} is left to {} until nobody has changed it for {hours} h", drift.writer())
    };
    let fights: Vec<String> = fights.map(left).collect();
    if fights.is_empty() {
        managed.clear_condition("StandingDown");
        return;
    }
    let message = format!("{}, after {} bursts of changes", fights.join("; "), crate::drift::ROUNDS);
    managed.set_condition(Condition { kind: "StandingDown", status: true, reason: "Fight", message });
}
