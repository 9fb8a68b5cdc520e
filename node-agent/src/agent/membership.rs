//! Which cgroups are managed: found, assigned, adopted, dropped.

use std::sync::Arc;

use host::cgroup::{Cgroup, CgroupId, CgroupPath, ControlFile, charged_processes, list};
use host::watch::TreeEvent;
use tiering::Policy;

use super::lessons::subject;
use super::{Agent, Grain, log_restored};
use crate::kubernetes::layout;
use crate::managed::{Managed, ManagedPod};
use crate::restore::{restore_files, restore_kdamond, restore_tunables};
use crate::snapshot::Condition;
use crate::state::StateError;

/// Files of ours.
pub(super) const FILES: [ControlFile; 2] = [ControlFile::MemoryHigh, ControlFile::CpusetMems];

/// After lost events the tree is listed anew at most this often.
const BETWEEN_LISTINGS: std::time::Duration = std::time::Duration::from_secs(5);

/// Who makes and removes cgroups without end has them listed for one part in so many of the time.
const LISTING_SHARE: u32 = 50;

/// What a cgroup is to be managed by.
struct Assigned {
    policy_name: String,
    policy: Arc<Policy>,
    pod: Option<ManagedPod>,
}

impl Agent {
    /// Lists the tree and manages what matches. The backstop of [`Self::tree_changed`].
    pub(super) fn discover(&mut self) {
        let began = std::time::Instant::now();
        self.discovered = self.now();
        let gone: Vec<CgroupId> = self
            .managed
            .iter()
            .filter(|(_, m)| !m.cgroup.still_there(&self.root))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_gone(id);
        }
        match list(&self.root) {
            // Parents come before children, so the uppermost match is found first.
            Ok(paths) => {
                let known: Vec<CgroupId> = self.managed.keys().copied().collect();
                self.pod_cgroups.clear();
                for path in &paths {
                    self.consider(path);
                }
                for id in known {
                    self.refresh(id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the cgroup tree can't be listed; the next scan tries again");
            }
        }
        self.discovery_took = began.elapsed();
    }

    /// Takes in what happened to the tree. Leaves are listed anew once, however much happened in a cgroup.
    pub(super) fn tree_changed(&mut self, changes: Vec<TreeEvent>) {
        for change in changes {
            match change {
                TreeEvent::Created(path) => {
                    if self.consider(&path).is_none() {
                        self.note_stale(&path);
                    }
                }
                TreeEvent::Removed(path) => {
                    let below = self.by_path.range(&path..).take_while(|(at, _)| at.is_in(&path));
                    let gone: Vec<CgroupId> = below
                        .map(|(_, id)| *id)
                        .filter(|id| {
                            self.managed.get(id).is_some_and(|it| !it.cgroup.still_there(&self.root))
                        })
                        .collect();
                    for id in gone {
                        self.drop_gone(id);
                    }
                    // Another of the same name is reported after this.
                    let inside_pod = layout::place(&path).is_some_and(|place| !place.is_pod());
                    if !inside_pod {
                        self.pod_cgroups.retain(|_, pod| !pod.is_in(&path));
                    }
                    self.note_stale(&path);
                }
                TreeEvent::Rescan => self.rescan = true,
            }
        }
        self.list_anew();
    }

    /// Lists what changed: the leaves of cgroups, or after lost events the tree. Each at most once in a while; the rest waits for
    /// the next round.
    pub(super) fn list_anew(&mut self) {
        self.note_unwatched();
        let now = self.now();
        let between = BETWEEN_LISTINGS.max(self.discovery_took * LISTING_SHARE);
        if self.rescan && now.since(self.discovered) >= between {
            self.rescan = false;
            self.stale.clear();
            self.discover();
        }
        let due = |id: &CgroupId| {
            let took = self.listing_took.get(id).copied().unwrap_or_default();
            let between = self.config.interval.max(took * LISTING_SHARE);
            self.managed.get(id).is_none_or(|it| now.since(it.leaves_listed) >= between)
        };
        let due: Vec<CgroupId> = self.stale.iter().copied().filter(due).collect();
        for id in due {
            self.stale.remove(&id);
            self.refresh(id);
        }
    }

    fn note_stale(&mut self, path: &CgroupPath) {
        let above: Vec<CgroupId> = self.above(path).map(|managed| managed.cgroup.id()).collect();
        self.stale.extend(above);
    }

    /// Says how many cgroups can't be watched.
    fn note_unwatched(&mut self) {
        let unwatched = self.sources.unwatched();
        if unwatched == std::mem::replace(&mut self.unwatched, unwatched) {
            return;
        }
        if unwatched == 0 {
            self.conditions.remove("TreeWatched");
            return;
        }
        let message = format!(
            "{unwatched} cgroups can't be watched (their paths are too long, or fs.inotify.max_user_watches is used up: raise it); \
             what changes below them is seen every 5 minutes"
        );
        if !self.conditions.contains_key("TreeWatched") {
            tracing::warn!("{message}");
        }
        let condition = Condition { kind: "TreeWatched", status: false, reason: "Unwatched", message };
        self.conditions.insert(condition.kind, condition);
    }

    /// Manages a cgroup if a policy is for it and it is not a part of one that is managed; which it is, if it is newly so.
    pub(super) fn consider(&mut self, path: &CgroupPath) -> Option<CgroupId> {
        self.note_pod_cgroup(path);
        // It has no limits, and what is charged to it is the kernel's.
        if *path == CgroupPath::root() {
            return None;
        }
        let assigned = self.assigned_to(path)?;
        if self.is_part_of_managed(path, &assigned) || self.is_ours(path) {
            return None;
        }
        let Assigned { policy_name, policy, pod } = assigned;
        let now = self.now();
        let managed = self.root.cgroup(path).and_then(|cgroup| {
            if self.managed.contains_key(&cgroup.id()) || !self.right_grain(&cgroup)? {
                return Ok(None);
            }
            let within = self.config.interval / 2;
            let mut managed = Managed::new(cgroup, &policy_name, policy, within, now);
            managed.pod = pod;
            Ok(Some(managed))
        });
        match managed {
            Ok(None) => None,
            Ok(Some(managed)) => {
                let id = managed.cgroup.id();
                tracing::info!(cgroup = %path, pod = managed.pod_name(), policy = policy_name, "managed");
                self.totals.cgroups_found += 1;
                self.next_round = self.next_round.min(managed.next_look);
                let learned = self.learned.of(&subject(&managed));
                self.law.add(managed.key(), managed.policy.clone(), learned, now);
                self.by_path.insert(path.clone(), id);
                self.managed.insert(id, Box::new(managed));
                self.watch_stalls(id);
                self.refresh_above(path);
                Some(id)
            }
            Err(error) if error.is_gone() => None,
            Err(error) => {
                tracing::warn!(cgroup = %path, %error, "can't be managed");
                None
            }
        }
    }

    /// What a cgroup is to be managed by: as the globs of the configuration say, or the cluster.
    fn assigned_to(&self, path: &CgroupPath) -> Option<Assigned> {
        let Some(assignment) = &self.assignment else {
            let entry = self.config.policy_for(&path.to_string())?;
            return Some(Assigned {
                policy_name: entry.name.clone(),
                policy: entry.policy.clone(),
                pod: None,
            });
        };
        let place = layout::place(path)?;
        let (pod, named) = (assignment.pod(&place)?, assignment.policy_of(&place)?);
        let managed = ManagedPod {
            identity: assignment.identity_of(&place)?,
            explicit: pod.explicit,
            shared: place.is_pod() && !pod.apart.is_empty(),
            pinned: false,
        };
        Some(Assigned { policy_name: named.name.clone(), policy: named.policy.clone(), pod: Some(managed) })
    }

    fn right_grain(&self, cgroup: &Cgroup) -> host::Result<bool> {
        match self.grain {
            Grain::Uppermost => Ok(cgroup.has("memory.numa_stat")),
            Grain::Processes => Ok(cgroup.has("memory.numa_stat") && !charged_processes(cgroup)?.is_empty()),
        }
    }

    fn is_part_of_managed(&self, path: &CgroupPath, assigned: &Assigned) -> bool {
        self.grain == Grain::Uppermost
            && assigned.pod.is_none()
            && self
                .above(path)
                .any(|above| above.policy_name == assigned.policy_name && above.cgroup.path() != path)
    }

    /// Managed cgroups at a path and above it.
    fn above(&self, path: &CgroupPath) -> impl Iterator<Item = &Managed> {
        let paths = std::iter::successors(Some(path.clone()), CgroupPath::parent);
        paths.filter_map(|path| self.managed.get(self.by_path.get(&path)?).map(Box::as_ref))
    }

    /// The agent does not manage itself, nor what it is in.
    fn is_ours(&self, path: &CgroupPath) -> bool {
        let root = CgroupPath::root();
        self.own_cgroup.as_ref().is_some_and(|own| *own != root && own.is_in(path))
    }

    /// Lists the leaves of every managed cgroup at a path and above it anew. A part with a policy of its own is no leaf of ours,
    /// nor is a container that is left alone.
    pub(super) fn refresh_above(&mut self, path: &CgroupPath) {
        let above: Vec<CgroupId> = self.above(path).map(|managed| managed.cgroup.id()).collect();
        for id in above {
            self.refresh(id);
        }
    }

    /// Lists the leaves of one anew.
    fn refresh(&mut self, id: CgroupId) {
        let now = self.now();
        let Some(managed) = self.managed.get_mut(&id) else { return };
        managed.leaves_listed = now;
        let (by_path, assignment) = (&self.by_path, &self.assignment);
        let is_apart = |path: &CgroupPath| {
            let apart_of_pod = || {
                let place = layout::place(path).filter(|place| !place.inner)?;
                assignment.as_ref()?.pod(&place)?.apart(place.container.as_deref()?)
            };
            by_path.contains_key(path) || apart_of_pod().is_some()
        };
        let began = std::time::Instant::now();
        let listed = managed.refresh_leaves(&self.root, is_apart);
        // Only what is dear is remembered.
        let took = began.elapsed();
        if took * LISTING_SHARE > self.config.interval {
            self.listing_took.insert(id, took);
        } else {
            self.listing_took.remove(&id);
        }
        if let Err(error) = listed
            && !error.is_gone()
        {
            tracing::warn!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), %error, "its leaves can't be listed");
        }
    }

    fn remove(&mut self, id: CgroupId) -> Option<Managed> {
        self.listing_took.remove(&id);
        self.sources.unwatch_stalls(id);
        let managed = self.managed.remove(&id)?;
        if let Some(learned) = self.law.remove(managed.key(), self.now()) {
            self.learned.note(subject(&managed), &learned);
        }
        // Another may have taken its name already.
        let path = managed.cgroup.path();
        if self.by_path.get(path) == Some(&id) {
            self.by_path.remove(path);
            self.published.update(|snapshot| {
                snapshot.cgroups.remove(&path.to_string());
            });
        }
        Some(*managed)
    }

    /// Forgets a cgroup that is gone, with its records.
    pub(super) fn drop_gone(&mut self, id: CgroupId) {
        let Some(managed) = self.remove(id) else { return };
        tracing::info!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), "gone");
        self.totals.cgroups_gone += 1;
        for file in FILES {
            self.sources.unwatch(id, file);
        }
        if let Some(state) = &mut self.state
            && let Err(error) = state.forget_files(FILES.map(|file| (id, file)))
        {
            tracing::error!(%error, "the state file keeps records of a cgroup that is gone");
        }
    }

    /// After a change of the configuration: drops what matches no more, assigns the rest, finds what is new.
    pub(super) fn assign_anew(&mut self) {
        let all: Vec<CgroupId> = self.managed.keys().copied().collect();
        for id in all {
            if let Err(error) = self.reassign(id) {
                tracing::error!(%error, "values of a cgroup that is not enforced any more are still in place");
            }
        }
        self.discover();
    }

    /// Gives a managed cgroup the policy that is for it; without one it is managed no more.
    pub(super) fn reassign(&mut self, id: CgroupId) -> Result<(), StateError> {
        let now = self.now();
        let Some(path) = self.managed.get(&id).map(|managed| managed.cgroup.path().clone()) else {
            return Ok(());
        };
        let Some(assigned) = self.assigned_to(&path) else { return self.release(id, true) };
        let Some(managed) = self.managed.get_mut(&id) else { return Ok(()) };
        let pinned = managed.is_pinned();
        managed.policy_name = assigned.policy_name;
        managed.pod = assigned.pod.map(|pod| ManagedPod { pinned: pinned && !pod.explicit, ..pod });
        self.law.set_policy(managed.key(), assigned.policy.clone(), now);
        managed.set_policy(assigned.policy, now);
        self.watch_stalls(id);
        if self.managed.get(&id).is_some_and(|managed| managed.enforced()) {
            Ok(())
        } else {
            self.release(id, false)
        }
    }

    /// Puts back a cgroup's values; forgets it where it is not managed any more.
    pub(super) fn release(&mut self, id: CgroupId, leave: bool) -> Result<(), StateError> {
        if let Some(state) = &mut self.state {
            log_restored(&restore_files(&self.root, state, &FILES.map(|file| (id, file)))?);
        }
        for file in FILES {
            self.sources.unwatch(id, file);
        }
        if let Some(managed) = self.managed.get_mut(&id) {
            managed.clear_condition("MemoryHigh");
            managed.clear_condition("TiersAllowed");
        }
        if leave && let Some(managed) = self.remove(id) {
            tracing::info!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), "not managed any more");
        }
        Ok(())
    }

    /// Tries again to put back what could not be put back when a cgroup was enforced no more, and forgets records of cgroups that
    /// are gone.
    pub(super) fn put_back_leftovers(&mut self) -> Result<(), StateError> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let leftover: Vec<_> = state
            .files()
            .filter(|(id, ..)| !self.managed.get(id).is_some_and(|managed| managed.enforced()))
            .map(|(id, file, ..)| (id, file))
            .collect();
        if !leftover.is_empty() {
            log_restored(&restore_files(&self.root, state, &leftover)?);
        }
        Ok(())
    }

    /// After a crash: goes on with what the agent before left where it is still wanted, and puts the rest back.
    pub(super) fn adopt(&mut self) -> Result<(), StateError> {
        let Some(state) = &mut self.state else { return Ok(()) };
        if state.is_empty() {
            return Ok(());
        }
        let mut kept = 0;
        let mut leftover = Vec::new();
        for (id, file, _, _) in state.files() {
            if self.managed.get(&id).is_some_and(|managed| managed.enforced()) {
                kept += 1;
            } else {
                leftover.push((id, file));
            }
        }
        tracing::info!(
            adopted = kept,
            to_put_back = leftover.len(),
            "an agent before this one did not end in order"
        );
        log_restored(&restore_files(&self.root, state, &leftover)?);
        log_restored(restore_kdamond(&self.ground.roots, state)?.as_slice());
        log_restored(&restore_tunables(&self.ground.roots, state)?);
        let adopted: Vec<_> = state.files().map(|(id, file, _, _)| (id, file)).collect();
        for (id, file) in adopted {
            self.watch_file(id, file);
        }
        Ok(())
    }
}
