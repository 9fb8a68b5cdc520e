//! One round: sample, model, decide, apply, publish.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant as Clock, SystemTime};

use host::cgroup::{CgroupId, ControlFile};
use tiering::arbiter::{Claim, arbitrate};
use tiering::{Bytes, DemoteReason, Instant, Limit, Target};

use super::topology::WITHOUT_SLOW_TIER;
use super::{Agent, Grain, LONGEST_PAUSE, errno_name, log_restored};
use crate::engine::{Engine, EngineError, Found, Look, Moved, Order};
use crate::limits::{
    LimitError, Movers, Progress, Relocated, destinations, ours, step_memory_high, step_tiers,
};
use crate::managed::{Left, Managed, action, mode_name, reason};
use crate::promoter::Promoter;
use crate::savings;
use crate::state::StateError;

/// A round begins no new step after this much time; what is left is due in the next.
const ROUND_BUDGET: Duration = Duration::from_secs(1);

/// One cgroup's moves of one round. Who has more to move than that has its next turn when the others had theirs.
const MOVE_BUDGET: Duration = Duration::from_millis(300);

/// Of the anonymous memory in DRAM, what is taken in a round where the kernel chooses which.
const BLIND_PART: u64 = 16;

/// Between two rounds events are taken in, and others have the processor.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// A limit that waits for usage to fall or for room is looked at again after so many intervals.
const WAITING_ROUNDS: u32 = 5;

/// While a fast node runs short, what is known of a cgroup is read anew after so many intervals. Nor is anything decided about an older
/// sample.
const STALE_ROUNDS: u32 = 5;

/// So many managed cgroups wait longer for each other: every walk reads what the kernel lists of all of them, before and after.
const MANY: usize = 100;

/// The tree is listed anew this often, in case an event was missed. The kernel says itself when it drops events.
const DISCOVER_EVERY: Duration = Duration::from_mins(5);

/// Where only cgroups with processes count, the kernel says nothing when the first process comes.
const DISCOVER_PROCESSES_EVERY: Duration = Duration::from_secs(5);

impl Agent {
    /// One round.
    pub(super) fn round(&mut self) -> Result<(), StateError> {
        let began = Clock::now();
        let now = self.now();
        self.rounds += 1;
        let discover_every = match self.grain {
            Grain::Uppermost => DISCOVER_EVERY,
            Grain::Processes => DISCOVER_PROCESSES_EVERY,
        };
        if now.since(self.discovered) >= discover_every {
            self.discover();
            self.put_back_leftovers()?;
        }
        self.list_anew();
        self.look_at_topology(now)?;
        self.choose_engine_again(now);
        if let Err(error) = self.node.read(&self.ground.roots, &self.ground.tiers, now) {
            tracing::warn!(%error, "memory of the nodes can't be read; decisions use what was known");
        }
        self.hold_numa_balancing()?;
        self.hold_promote_rate()?;
        self.hold_demotion()?;

        let due = self.due(now);
        self.observe(&due, now);
        self.promote_by_damon(now)?;
        let give_up = self.arbitrate();
        for id in &due {
            if began.elapsed() >= ROUND_BUDGET || self.sources.has_assignment() {
                break;
            }
            self.act(*id, give_up.get(id).copied().unwrap_or_default())?;
        }
        self.schedule(now);
        self.publish(&due, began);
        Ok(())
    }

    /// The cgroups to look at in this round. Where one can't wait, those whose time is near come along: an engine may look at
    /// many for the price of one.
    fn due(&self, now: Instant) -> Vec<CgroupId> {
        let asked = self.arbitrate();
        // Who gives up how much follows from what each holds now, not from what it held at its last walk.
        let short = !self.node.fast(&self.ground.fast).shortfall().is_zero();
        let fresh = self.config.interval * STALE_ROUNDS;
        let is_stale = |managed: &Managed| {
            managed.enforced() && managed.track.model().is_none_or(|model| now.since(model.at) >= fresh)
        };
        let is_due = |id: &CgroupId, managed: &Managed| {
            (self.counts(managed) && managed.next_look <= now)
                || asked.get(id).is_some_and(|give_up| !give_up.is_zero())
                || (short && is_stale(managed))
        };
        if !self.managed.iter().any(|(id, managed)| is_due(id, managed)) {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .managed
            .iter()
            .filter(|(id, managed)| is_due(id, managed) || (self.counts(managed) && managed.joins(now)))
            .map(|(id, managed)| (managed.next_look, *id))
            .collect();
        // Whoever waits longest comes first, so that a busy round starves nobody.
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Samples the cgroups that are due, but those that no time was left to decide about in the round before.
    fn observe(&mut self, due: &[CgroupId], now: Instant) {
        let fresh = self.config.interval * STALE_ROUNDS;
        let is_to_be_sampled =
            |id: &CgroupId| self.managed.get(id).is_some_and(|managed| !managed.awaits_decision(now, fresh));
        let known: Vec<CgroupId> = due.iter().copied().filter(is_to_be_sampled).collect();
        let walks = self.walks();
        let slack_part = if self.managed.len() < MANY { 8 } else { 4 };
        let looks: Vec<Look<'_>> = known
            .iter()
            .filter_map(|id| self.managed.get(id))
            .map(|managed| Look { leaves: &managed.leaves, walk: walks && managed.walk_due(now) })
            .collect();
        let found = match &mut self.engine {
            Some(engine) => engine.look(&self.ground, &looks, ROUND_BUDGET, now),
            None => Ok(looks.iter().map(|_| Ok(Found::default())).collect()),
        };
        drop(looks);
        let found = found.unwrap_or_else(|error| {
            self.note_error("look", &error);
            known.iter().map(|_| Ok(Found::default())).collect()
        });
        for (id, found) in known.into_iter().zip(found) {
            let found = found.unwrap_or_else(|error| {
                if !error.is_gone() {
                    self.note_error("look", &error);
                }
                Found::default()
            });
            let Some(managed) = self.managed.get_mut(&id) else { continue };
            if let Some(error) = found.unread.first() {
                let (path, pod, processes) = (managed.cgroup.path(), managed.pod_name(), found.unread.len());
                tracing::warn!(cgroup = %path, pod, processes, %error, "processes can't be looked at; nothing of them is moved");
            }
            for error in &found.unread {
                *self.totals.write_errors.entry(("look", errno_name(error.errno()))).or_default() += 1;
            }
            if found.slow_touched.is_some() || self.engine.is_none() {
                let scan = self
                    .engine
                    .as_ref()
                    .map_or(self.config.interval * 5, |engine| engine.scan_interval(&managed.track));
                managed.walked(now, scan, scan / slack_part);
                self.totals.walks += 1;
            }
            let comebacks = managed.track.comebacks();
            match managed.sample(found, &self.ground.tiers, now) {
                Ok(Some(sample)) => {
                    let promoted = managed.track.observe(sample, &self.ground.fast).promoted;
                    managed.sampled(now);
                    if self.promoter == Promoter::Kernel && !promoted.is_zero() {
                        managed.note_kernel_promoted(promoted);
                        *self.totals.promoted_bytes.entry(Promoter::Kernel).or_default() += promoted.0;
                    }
                    if managed.track.comebacks() > comebacks {
                        self.totals.comebacks += 1;
                        let age = managed.track.age().get();
                        tracing::info!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), ?age, "memory came back: cold is older now");
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_gone() => self.drop_gone(id),
                Err(error) => {
                    let (path, pod) = (managed.cgroup.path(), managed.pod_name());
                    tracing::warn!(cgroup = %path, pod, %error, "can't be read");
                }
            }
        }
    }

    /// What each enforced cgroup is to give up for headroom.
    fn arbitrate(&self) -> BTreeMap<CgroupId, Bytes> {
        let nodes = self.node.fast(&self.ground.fast);
        if nodes.shortfall().is_zero() {
            return BTreeMap::new();
        }
        let claims: Vec<(CgroupId, Claim)> = self
            .managed
            .iter()
            .filter(|(_, managed)| managed.enforced())
            .filter_map(|(id, managed)| {
                let (model, policy) = (managed.track.model()?, managed.track.policy());
                let footprint = model.footprint();
                let bound = match self.target(managed) {
                    Target::Room(_) => model.fast_unmovable,
                    Target::None | Target::MaySwap => model.fast_anon,
                };
                let claim = Claim {
                    fast_anon: model.fast_anon,
                    footprint,
                    bound,
                    floor: policy.floor(footprint),
                    ceiling: policy.ceiling(footprint),
                    weight: policy.dram.weight,
                };
                Some((*id, claim))
            })
            .collect();
        let given = arbitrate(&claims.iter().map(|(_, claim)| *claim).collect::<Vec<_>>(), nodes);
        claims.into_iter().map(|(id, _)| id).zip(given).collect()
    }

    /// Where what a cgroup gives up may go.
    fn target(&self, managed: &Managed) -> Target {
        let targets = self.ground.slow.intersection(&destinations(&self.ground, managed));
        let swaps_out = |engine: &Engine| engine.swaps_out(&self.ground, &self.root, &managed.cgroup);
        if targets.is_empty() {
            Target::None
        } else if self.engine.as_ref().is_some_and(swaps_out) {
            Target::MaySwap
        } else {
            Target::Room(self.node.room_of(&targets))
        }
    }

    /// Decides about one cgroup, carries the decision out if its policy says so, and says when to look again. Without a sample
    /// since the decision before nothing is decided: what was moved since would be moved again.
    fn act(&mut self, id: CgroupId, give_up: Bytes) -> Result<(), StateError> {
        let (now, interval) = (self.now(), self.config.interval);
        let Some(managed) = self.managed.get(&id) else { return Ok(()) };
        let target = self.target(managed);
        let fast = self.ground.fast.intersection(&destinations(&self.ground, managed));
        let fast_room = self.node.room_of(&fast).min(self.node.fast(&self.ground.fast).room());
        let Some(managed) = self.managed.get_mut(&id) else { return Ok(()) };
        let is_known = managed.awaits_decision(now, interval * STALE_ROUNDS);
        managed.decides();
        let Some(decision) = managed.track.decide(target, fast_room, give_up, now).filter(|_| is_known)
        else {
            managed.next_look = now + interval;
            return Ok(());
        };
        if managed.decided(&decision, now) {
            let mode = managed.acting_mode();
            tracing::info!(
                cgroup = %managed.cgroup.path(),
                pod = managed.pod_name(),
                policy = managed.policy_name,
                mode = mode_name(mode),
                "{}",
                decision.words(mode)
            );
            let kind = (mode_name(mode), action(&decision), reason(&decision));
            *self.totals.decisions.entry(kind).or_default() += 1;
        }
        let mut limits = Progress::Settled;
        let mut left = Left::Nothing;
        self.note_pinned(id)?;
        if self.managed.get(&id).is_some_and(Managed::enforced) && self.state.is_some() {
            limits = self.step_limits(id, now)?;
            // A change of tiers moves everything, cold or not, and has the rate cap to itself.
            if limits < Progress::Stepping {
                left = self.demote(id, &decision, now).max(self.promote(id, &decision));
            }
        }
        let only_looks = !self.walks();
        if let Some(managed) = self.managed.get_mut(&id) {
            let stepping = if limits == Progress::Stepping { Left::Capped } else { Left::Nothing };
            managed.schedule(now, interval, left.max(stepping));
            if only_looks && limits == Progress::Settled {
                managed.next_look = now + WITHOUT_SLOW_TIER;
            }
            // Who watches is shown a new picture each interval.
            if self.grain == Grain::Processes {
                managed.next_look = managed.next_look.min(now + interval);
            }
            if limits == Progress::Waiting {
                managed.next_look = managed.next_look.min(now + interval * WAITING_ROUNDS);
            }
            // What a step moved has to show in the kernel's counts, which lag, before the next is measured by them.
            if limits == Progress::Stepping {
                managed.next_look = now + interval;
            }
        }
        Ok(())
    }

    /// Moves cold memory down; what is left to be done.
    fn demote(&mut self, id: CgroupId, decision: &tiering::Decision, now: Instant) -> Left {
        let capped = decision.limit == Some(Limit::RateCap);
        if decision.demote.is_zero() {
            return if capped { Left::Capped } else { Left::Nothing };
        }
        let (Some(managed), Some(engine), Some(state)) =
            (self.managed.get(&id), self.engine.as_mut(), self.state.as_mut())
        else {
            return Left::Nothing;
        };
        // Where the kernel chooses, in steps: what is in use is used again between two rounds.
        let chooses = matches!(engine, Engine::Reclaim(_)) && decision.demote_age.is_zero();
        let fast = managed.track.model().map_or(Bytes::ZERO, |model| model.fast_anon);
        let step = if chooses { Bytes(fast.0 / BLIND_PART).max(Bytes::mib(1)) } else { Bytes::MAX };
        let bytes = decision.demote.min(step);
        let order = Order {
            cgroup: &managed.cgroup,
            leaves: &managed.leaves,
            allowed: &managed.allowed,
            bytes,
            age: decision.demote_age,
            budget: MOVE_BUDGET,
        };
        let (name, reason) = (engine.name(), decision.reason);
        match engine.demote(&self.ground, state, order, now) {
            Ok(moved) => {
                self.node.took(&self.ground.slow, moved.bytes);
                self.note_moved(id, name, reason, &moved);
                if chooses { Left::Nothing } else { left(&moved, decision.demote, capped) }
            }
            Err(error) if error.is_gone() => Left::Nothing,
            Err(error) => {
                self.note_error(name, &error);
                Left::Nothing
            }
        }
    }

    fn note_moved(&mut self, id: CgroupId, engine: &'static str, reason: DemoteReason, moved: &Moved) {
        // When it was done: a rate cap counts from then.
        let now = self.now();
        *self.totals.demoted_bytes.entry((engine, reason.as_str())).or_default() += moved.bytes.0;
        for (why, pages) in &moved.failed {
            *self.totals.failed_pages.entry((engine, why)).or_default() += pages;
        }
        if let Some(managed) = self.managed.get_mut(&id) {
            tracing::debug!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), bytes = %moved.bytes, failed = ?moved.failed, "demoted");
            managed.note_demoted(Some(reason), moved, now);
        }
    }

    /// Moves hot memory up, where that is our business; what is left to be done.
    fn promote(&mut self, id: CgroupId, decision: &tiering::Decision) -> Left {
        let (Some(managed), Some(Engine::Pages(pages))) = (self.managed.get_mut(&id), self.engine.as_mut())
        else {
            return Left::Nothing;
        };
        let capped = decision.promote_limit == Some(Limit::RateCap);
        if decision.promote.is_zero() {
            return if capped { Left::Capped } else { Left::Nothing };
        }
        let order = Order {
            cgroup: &managed.cgroup,
            leaves: &managed.leaves,
            allowed: &managed.allowed,
            bytes: decision.promote,
            age: Duration::ZERO,
            budget: MOVE_BUDGET,
        };
        let moved = pages.promote(&self.ground, order);
        self.node.took(&self.ground.fast, moved.bytes);
        let now = self.now();
        if let Some(managed) = self.managed.get_mut(&id) {
            managed.note_promoted(&moved, now);
        }
        *self.totals.promoted_bytes.entry(Promoter::Pages).or_default() += moved.bytes.0;
        left(&moved, decision.promote, capped)
    }

    /// Steps `memory.high` and `cpuset.mems`.
    pub(super) fn step_limits(&mut self, id: CgroupId, now: Instant) -> Result<Progress, StateError> {
        const NONE: Progress = Progress::Settled;
        self.settle_drift(id)?;
        let (Some(managed), Some(state)) = (self.managed.get_mut(&id), self.state.as_mut()) else {
            return Ok(NONE);
        };
        let high = step_memory_high(&self.root, state, managed);
        let high = self.note_step(id, ControlFile::MemoryHigh, high)?;

        let (Some(managed), Some(state)) = (self.managed.get_mut(&id), self.state.as_mut()) else {
            return Ok(NONE);
        };
        let pages = match (&mut self.engine, &mut self.mover) {
            (Some(Engine::Pages(pages)), _) => (None, Some(&mut **pages)),
            (engine, mover) => (engine.as_mut(), mover.as_mut()),
        };
        let movers = Movers { engine: pages.0, pages: pages.1, budget: MOVE_BUDGET };
        let tiers = step_tiers(&self.root, &self.ground, &self.node, state, managed, movers, now);
        let tiers = tiers.map(|(progress, moved, restored)| {
            let totals = &mut self.totals;
            match moved {
                Some(Relocated::Down(engine, bytes)) => {
                    *totals.demoted_bytes.entry((engine, "tiers")).or_default() += bytes.0;
                }
                Some(Relocated::Up(bytes)) => {
                    *totals.promoted_bytes.entry(Promoter::Pages).or_default() += bytes.0;
                }
                None => {}
            }
            (progress, restored)
        });
        let tiers = self.note_step(id, ControlFile::CpusetMems, tiers)?;
        Ok(high.max(tiers))
    }

    fn note_step(
        &mut self,
        id: CgroupId,
        file: ControlFile,
        step: Result<(Progress, Vec<crate::restore::Restored>), LimitError>,
    ) -> Result<Progress, StateError> {
        let watched = self.state.as_ref().is_some_and(|state| state.file(id, file).is_some());
        match step {
            Ok((progress, restored)) => {
                log_restored(&restored);
                let left = self.managed.get(&id).and_then(|managed| managed.drift.get(&file));
                if watched {
                    self.watch_file(id, file);
                } else if !left.is_some_and(crate::drift::Drift::standing_down) {
                    self.sources.unwatch(id, file);
                }
                Ok(progress)
            }
            Err(LimitError::State(error)) => Err(error),
            Err(LimitError::Host(error)) if error.is_gone() => Ok(Progress::Settled),
            Err(LimitError::Engine(error)) if error.is_gone() => Ok(Progress::Settled),
            Err(error) => {
                let errno = match &error {
                    LimitError::Host(error) => error.errno(),
                    LimitError::Engine(error) => error.errno(),
                    LimitError::State(_) => None,
                };
                *self.totals.write_errors.entry((file.name(), errno_name(errno))).or_default() += 1;
                if let Some(managed) = self.managed.get(&id) {
                    tracing::warn!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), %file, %error, "not set; tried again later");
                }
                // Another writer was at it in the same moment: the watch tells who.
                Ok(Progress::Settled)
            }
        }
    }

    fn note_error(&mut self, what: &'static str, error: &EngineError) {
        *self.totals.write_errors.entry((what, errno_name(error.errno()))).or_default() += 1;
        self.engine_failed = true;
        tracing::warn!(engine = what, %error, "an engine's step failed; tried again in the next round");
    }

    /// The next round: when the next cgroup is due, but soon enough to see that a fast node runs short.
    fn schedule(&mut self, now: Instant) {
        let interval = self.config.interval;
        let shortest = interval.min(SHORTEST_PAUSE);
        let due = self
            .managed
            .values()
            .filter(|managed| self.counts(managed))
            .map(|managed| managed.next_look)
            .min();
        let enforcing = self.ground.tiers.has_lower_tier() && self.managed.values().any(Managed::enforced);
        let latest = now + if enforcing { interval } else { interval * LONGEST_PAUSE };
        self.next_round = due.map_or(latest, |due| due.min(latest)).max(now + shortest);
    }

    fn publish(&mut self, looked_at: &[CgroupId], began: Clock) {
        if !looked_at.is_empty() {
            let leaves =
                self.managed.values().flat_map(|managed| &managed.leaves).map(host::cgroup::Cgroup::id);
            let managed: HashSet<CgroupId> = self.managed.keys().copied().chain(leaves).collect();
            if let Some(engine) = &mut self.engine {
                engine.retain(|cgroup| managed.contains(&cgroup));
            }
            if let Some(mover) = &mut self.mover {
                mover.retain(|cgroup| managed.contains(&cgroup));
            }
        }
        let tiers = self.tier_views();
        let room = self.node.room_of(&self.ground.slow);
        let at = self.now();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.published.update(|snapshot| {
            snapshot.rounds = self.rounds;
            snapshot.last_round_unix_seconds = now.as_secs_f64();
            snapshot.last_round_seconds = began.elapsed().as_secs_f64();
            snapshot.round_durations.add(began.elapsed());
            snapshot.tiers = tiers;
            snapshot.conditions = self.conditions.values().cloned().collect();
            snapshot.totals.clone_from(&self.totals);
            snapshot.config.clone_from(&self.config_view);
            for managed in looked_at.iter().filter_map(|id| self.managed.get(id)) {
                let file = |file| self.state.as_ref().and_then(|state| ours(state, &managed.cgroup, file));
                let high = file(ControlFile::MemoryHigh).and_then(|value| value.parse().ok());
                let view = managed.view(&self.ground.tiers, high, file(ControlFile::CpusetMems), at);
                snapshot.cgroups.insert(view.path.clone(), view);
            }
            snapshot.savings = savings::sums(snapshot, room);
        });
    }
}

/// What is left of `asked`. What did not move at all was made young again, or can't move: another try follows the next walk.
fn left(moved: &Moved, asked: Bytes, capped: bool) -> Left {
    match () {
        () if moved.bytes.is_zero() => Left::Nothing,
        () if moved.bytes < asked => Left::OutOfTime,
        () if capped => Left::Capped,
        () => Left::Nothing,
    }
}
