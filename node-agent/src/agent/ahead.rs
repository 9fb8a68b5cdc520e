//! What keeps limits from hurting: reclaim ahead of them, and stalls that are told at once.

use std::time::Duration;

use host::cgroup::{CgroupId, CgroupRoot};
use tiering::MemoryHighPolicy;

use super::Agent;
use crate::ahead::{Failed, ReclaimAhead, Target};
use crate::managed::Managed;
use crate::snapshot::Condition;

/// The window of a trigger: that of Senpai's law, so that one that fires has decided what the law will say.
const WINDOW: Duration = Duration::from_secs(6);

const KIND: &str = "ReclaimsAhead";

impl Agent {
    /// Has those watched whose policies want something reclaimed ahead, and whose have changed since.
    pub(super) fn watch_ahead(&mut self) {
        let wants = |managed: &&Managed| managed.enforced() && managed.policy.reclaim_ahead;
        let wanted: Vec<CgroupId> = self
            .managed
            .values()
            .map(Box::as_ref)
            .filter(wants)
            .flat_map(|managed| std::iter::once(&managed.cgroup).chain(&managed.leaves))
            .map(host::cgroup::Cgroup::id)
            .collect();
        let (thread, watched) = &mut self.ahead;
        if *watched == wanted || self.state.is_none() {
            return;
        }
        if thread.is_none() {
            let started = CgroupRoot::open_unchecked(self.root.mount())
                .map_err(|error| error.to_string())
                .and_then(|root| {
                    ReclaimAhead::start(self.ground.roots.clone(), root).map_err(|error| error.to_string())
                });
            match started {
                Ok(started) => *thread = Some(started),
                Err(error) => {
                    return tracing::warn!(
                        error,
                        "nothing is reclaimed ahead of limits; tried again in the next round"
                    );
                }
            }
        }
        let targets = self.managed.values().map(Box::as_ref).filter(wants).map(|managed| Target {
            id: managed.cgroup.id(),
            // One that can't be opened once more is gone, or is tried again when the tree changes.
            cgroups: std::iter::once(&managed.cgroup)
                .chain(managed.leaves.iter().filter(|leaf| leaf.id() != managed.cgroup.id()))
                .filter_map(|cgroup| cgroup.try_clone().ok())
                .collect(),
        });
        if let Some(thread) = thread {
            thread.watch(targets.collect());
        }
        *watched = wanted;
    }

    /// Takes what was reclaimed ahead of limits; whose that changed.
    pub(super) fn note_ahead(&mut self) -> Vec<CgroupId> {
        let mut changed = Vec::new();
        for (id, managed) in &mut self.managed {
            if !managed.policy.reclaim_ahead || !managed.enforced() {
                managed.clear_condition(KIND);
                continue;
            }
            let Some(done) = self.ahead.0.as_ref().and_then(|thread| thread.of(*id)) else { continue };
            let more = done.bytes.saturating_sub(managed.reclaimed_bytes);
            self.totals.reclaimed_bytes += more;
            managed.reclaimed_bytes = done.bytes;
            let condition = condition(done.failed);
            let news = (!condition.status).then(|| condition.message.clone());
            let is_new = managed.set_condition(condition);
            if let Some(message) = news.filter(|_| is_new) {
                tracing::warn!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), "not reclaimed ahead of its limits: {message}");
            }
            if is_new || more > 0 {
                changed.push(*id);
            }
        }
        changed
    }

    /// Has the kernel tell of a cgroup's stalls where its limit follows them, and no longer where it does not.
    pub(super) fn watch_stalls(&mut self, id: CgroupId) {
        let Some(managed) = self.managed.get(&id) else { return };
        let MemoryHighPolicy::Pressure { target, .. } = managed.policy.memory_high else {
            return self.sources.unwatch_stalls(id);
        };
        if !managed.enforced() || self.state.is_none() {
            return self.sources.unwatch_stalls(id);
        }
        if let Err(error) = self.sources.watch_stalls(&managed.cgroup, target, WINDOW) {
            tracing::warn!(
                cgroup = %managed.cgroup.path(), pod = managed.pod_name(), %error,
                "memory.high follows pressure, and the kernel tells of none: it is left alone (boot with psi=1)"
            );
        }
    }

    /// Looks at a cgroup whose tasks stalled for longer than its policy aims at.
    pub(super) fn stalled(&mut self, id: CgroupId) {
        let now = self.now();
        if let Some(managed) = self.managed.get_mut(&id) {
            tracing::debug!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), "stalls");
            managed.next_look = now;
            self.next_round = now;
        }
    }
}

fn condition(failed: Option<Failed>) -> Condition {
    let (status, reason, message) = match failed {
        None => (
            true,
            "Reclaims",
            "usage is kept below its limits by reclaim of what can be uncharged".to_owned(),
        ),
        Some(Failed::Demotes) => (
            false,
            "KernelDemotes",
            "the kernel's demotion is on for the whole host, by another's wish: reclaim would move memory down and uncharge \
             nothing; switch it off (/sys/kernel/mm/numa/demotion_enabled)"
                .to_owned(),
        ),
        Some(Failed::NothingToUncharge) => (
            false,
            "NothingToUncharge",
            "usage is near its limit, and nothing of it is clean page cache or may be swapped: raise the limit"
                .to_owned(),
        ),
        Some(Failed::Host(error)) => (false, "Failed", error),
    };
    Condition { kind: KIND, status, reason, message }
}
