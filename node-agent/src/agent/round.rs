//! One round: sample, plan, apply, publish. What to do is the law's to say ([`tiering::law`]); here it is asked and obeyed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock, SystemTime};

use host::cgroup::{CgroupId, ControlFile};
use tiering::law::{self, Barrier, CgroupKey, CgroupPlan, Plan, Reach};
use tiering::{Bytes, DemoteReason, Instant, Limit, memory_high};

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
        let mut short = false;
        match self.node.read(&self.ground, now) {
            Ok(()) => {
                let nodes = self.node.sample(&self.ground, now);
                short = nodes.nodes.iter().any(|node| !node.shortfall().is_zero());
                self.law.observe_nodes(nodes);
            }
            Err(error) => {
                tracing::warn!(%error, "memory of the nodes can't be read; decisions use what was known");
            }
        }
        self.hold_numa_balancing(now)?;
        self.hold_demotion()?;
        self.hold_lru_gen_enabled()?;

        // Who is to give for others is planned by what is known, and again by what is found.
        let asked = short.then(|| self.law.plan(now));
        let due = self.due(asked.as_ref(), now);
        // A round with nobody to look at costs next to nothing, however many there are.
        if due.is_empty() {
            self.hold_promote_rate()?;
        } else {
            self.observe(&due, now);
            let plan = self.law.plan(self.now());
            self.kernel_promotion.planned = Some(plan.kernel_promotion);
            self.hold_promote_rate()?;
            self.note_plans(&plan, &due);
            for id in in_order(&plan, &due) {
                if began.elapsed() >= ROUND_BUDGET || self.sources.has_assignment() {
                    break;
                }
                self.act(id, plan.of(CgroupKey(id.get())))?;
            }
        }
        self.promote_by_damon(now)?;
        self.hold_damon_stat()?;
        self.watch_ahead();
        self.schedule(now);
        let reclaimed = self.note_ahead();
        let told: Vec<CgroupId> = due.into_iter().chain(reclaimed).collect();
        self.publish(&told, began);
        self.keep_learned(now);
        Ok(())
    }

    /// The cgroups to look at in this round. Where one can't wait, those whose time is near come along: an engine may look at
    /// many for the price of one. `asked` is what is planned while a fast node is short.
    fn due(&self, asked: Option<&Plan>, now: Instant) -> Vec<CgroupId> {
        // Who gives up how much follows from what each holds now, not from what it held at its last walk.
        let fresh = self.config.interval * STALE_ROUNDS;
        let sampled =
            |managed: &Managed| self.law.cgroup(managed.key()).and_then(|known| Some(known.last()?.at));
        let is_stale = |managed: &Managed| {
            managed.enforced() && sampled(managed).is_none_or(|at| now.since(at) >= fresh)
        };
        let is_asked = |managed: &Managed| {
            let plan = asked.and_then(|plan| plan.of(managed.key()));
            let mut demotes = plan.into_iter().flat_map(|plan| &plan.demote);
            managed.enforced() && demotes.any(|demote| demote.reason == DemoteReason::Headroom)
        };
        let is_due = |managed: &Managed| {
            (self.counts(managed) && managed.next_look <= now)
                || asked.is_some() && (is_asked(managed) || is_stale(managed))
        };
        if !self.managed.values().any(|managed| is_due(managed)) {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .managed
            .iter()
            .filter(|(_, managed)| is_due(managed) || (self.counts(managed) && managed.joins(now)))
            .map(|(id, managed)| (managed.next_look, *id))
            .collect();
        // Whoever waits longest comes first, so that a busy round starves nobody.
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// A walk may come late by this part of its interval, to share its price with others.
    fn slack_part(&self) -> u32 {
        if self.managed.len() < MANY { 8 } else { 4 }
    }

    /// Its page tables were walked: says when they are to be again.
    fn note_walked(&mut self, id: CgroupId, now: Instant) {
        let slack_part = self.slack_part();
        let Some(managed) = self.managed.get_mut(&id) else { return };
        let every = self.law.walk_every(managed.key()).unwrap_or(managed.policy.demote.after / 2);
        managed.walked(now, every, every / slack_part);
        self.totals.walks += 1;
    }

    /// Samples the cgroups that are due, but those that no time was left to decide about in the round before.
    fn observe(&mut self, due: &[CgroupId], now: Instant) {
        let fresh = self.config.interval * STALE_ROUNDS;
        let is_to_be_sampled =
            |id: &CgroupId| self.managed.get(id).is_some_and(|managed| !managed.awaits_decision(now, fresh));
        let known: Vec<CgroupId> = due.iter().copied().filter(is_to_be_sampled).collect();
        let walks = self.walks();
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
            let walked = found.walked;
            if walked || self.engine.is_none() {
                self.note_walked(id, now);
            }
            let Some(managed) = self.managed.get_mut(&id) else { continue };
            match managed.sample(found, &self.ground.tiers, self.state.as_ref(), now) {
                Ok(Some(sample)) => {
                    managed.sampled(now);
                    let key = managed.key();
                    let allowed = destinations(&self.ground, managed);
                    let barrier = match &self.engine {
                        None => Some(Barrier::NoEngine),
                        Some(engine) if engine.swaps_out(&self.ground, &self.root, &managed.cgroup) => {
                            Some(Barrier::MaySwap)
                        }
                        Some(_) => None,
                    };
                    let least =
                        self.engine.as_ref().map_or(Bytes::ZERO, |engine| engine.least(managed.leaves.len()));
                    self.law.set_reach(key, Reach { allowed, barrier, least });
                    self.law.set_held(key, managed.is_pinned());
                    let touched: Bytes = sample.nodes.values().filter_map(|node| node.touched).sum();
                    let taught = self.law.observe(key, sample);
                    let promoted = taught.kernel_promoted;
                    tracing::debug!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), %touched, %promoted, walked, "looked at");
                    if self.promoter == Promoter::Kernel && !promoted.is_zero() {
                        managed.note_kernel_promoted(promoted);
                        *self.totals.promoted_bytes.entry(Promoter::Kernel).or_default() += promoted.0;
                    }
                    if taught.came_back {
                        self.totals.comebacks += 1;
                        let age = self.law.cgroup(key).map(|known| known.touches().age()).unwrap_or_default();
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

    /// Tells what is planned for those that were looked at, where it is news.
    fn note_plans(&mut self, plan: &Plan, due: &[CgroupId]) {
        let now = self.now();
        for id in due {
            let Some(managed) = self.managed.get_mut(id) else { continue };
            let Some(plan) = plan.of(managed.key()) else { continue };
            if managed.planned(plan, now) {
                let mode = mode_name(plan.mode);
                tracing::info!(
                    cgroup = %managed.cgroup.path(),
                    pod = managed.pod_name(),
                    policy = managed.policy_name,
                    mode,
                    "{plan}"
                );
                *self.totals.decisions.entry((mode, action(plan), reason(plan))).or_default() += 1;
            }
        }
    }

    /// Carries out what is planned for one cgroup, if its policy says so, and says when to look again. Without a sample since it was
    /// acted on last nothing is done: what was moved since would be moved again.
    fn act(&mut self, id: CgroupId, plan: Option<&CgroupPlan>) -> Result<(), StateError> {
        let (now, interval) = (self.now(), self.config.interval);
        let Some(managed) = self.managed.get_mut(&id) else { return Ok(()) };
        let is_known = managed.awaits_decision(now, interval * STALE_ROUNDS);
        managed.decides();
        let Some(plan) = plan.filter(|_| is_known) else {
            managed.next_look = now + interval;
            return Ok(());
        };
        let mut limits = Progress::Settled;
        let mut left = Left::Nothing;
        self.note_pinned(id)?;
        if self.managed.get(&id).is_some_and(|managed| managed.enforced()) && self.state.is_some() {
            limits = self.step_limits(id, Some(plan.memory_high), now)?;
            // A change of tiers moves everything, cold or not, and has the rate cap to itself.
            if limits < Progress::Stepping {
                for demote in &plan.demote {
                    left = left.max(self.demote(id, demote, now));
                }
                for promote in &plan.promote {
                    left = left.max(self.promote(id, promote, now));
                }
                if matches!(plan.limit, Some(Limit::RateCap | Limit::NodeRate)) {
                    left = left.max(Left::Capped);
                }
            }
        }
        let ages = self.law.cgroup(CgroupKey(id.get())).map(|known| known.ages(now)).unwrap_or_default();
        let only_looks = !self.walks();
        if let Some(managed) = self.managed.get_mut(&id) {
            let stepping = if limits == Progress::Stepping { Left::Capped } else { Left::Nothing };
            managed.schedule(now, interval, left.max(stepping), ages.entries());
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

    /// Moves memory of one fast node down; what is left to be done.
    fn demote(&mut self, id: CgroupId, wanted: &law::Demote, now: Instant) -> Left {
        let key = CgroupKey(id.get());
        let (Some(managed), Some(engine), Some(state)) =
            (self.managed.get(&id), self.engine.as_mut(), self.state.as_mut())
        else {
            return Left::Nothing;
        };
        let known = self.law.cgroup(key);
        let age = match wanted.reason {
            // What is above a ceiling leaves at any age.
            DemoteReason::Ceiling => Duration::ZERO,
            DemoteReason::Cold | DemoteReason::Headroom => {
                // The oldest goes first whatever is asked for. What an engine has found in use it takes to be younger than the law does: it
                // would for ever be a little younger than what is told to go.
                let least =
                    known.map_or(wanted.least_age, |known| known.touches().age().min(wanted.least_age));
                if engine.walks_for_orders() {
                    // Its own record is a moment younger.
                    least / 8 * 7
                } else {
                    // What the kernel has merged is listed younger than it is, and can't be asked for by more.
                    let listed = known.map(|known| known.listed_age(wanted.from, wanted.bytes, now));
                    listed.map_or(least, |listed| (listed / 8 * 7).clamp(least / 2, least))
                }
            }
        };
        let chooses = matches!(engine, Engine::Reclaim(_));
        let order = Order {
            cgroup: &managed.cgroup,
            leaves: &managed.leaves,
            allowed: &managed.allowed,
            from: wanted.from,
            to: &wanted.to,
            bytes: wanted.bytes,
            age,
            is_urgent: wanted.reason == DemoteReason::Headroom,
            budget: MOVE_BUDGET,
        };
        let name = engine.name();
        let walks = engine.walks_for_orders();
        match engine.demote(&self.ground, state, order, now) {
            Ok(moved) => {
                if moved.walked {
                    self.note_walked(id, now);
                }
                let to = wanted.to.first().copied();
                let done = law::Moved {
                    from: wanted.from,
                    to,
                    asked: moved.tried,
                    moved: moved.bytes,
                    // A handful of pages that were in use at the moment says nothing of the rest, nor does what a kernel that
                    // chooses itself left.
                    stayed: if chooses || moved.tried < Bytes::mib(1) {
                        law::Stayed::Touched
                    } else {
                        moved.stayed()
                    },
                    least_age: wanted.least_age,
                };
                // When it was done: a rate cap counts from then.
                self.law.demoted(key, &done, Some(wanted.reason), self.now());
                self.note_moved(id, name, wanted.reason, &moved);
                match left(&moved, wanted.bytes) {
                    _ if chooses => Left::Nothing,
                    Left::Unproven if walks => Left::Ripening,
                    left => left,
                }
            }
            Err(error) if error.is_gone() => Left::Nothing,
            Err(error) => {
                self.note_error(name, &error);
                Left::Nothing
            }
        }
    }

    fn note_moved(&mut self, id: CgroupId, engine: &'static str, reason: DemoteReason, moved: &Moved) {
        *self.totals.demoted_bytes.entry((engine, reason.as_str())).or_default() += moved.bytes.0;
        for (why, pages) in &moved.failed {
            *self.totals.failed_pages.entry((engine, why)).or_default() += pages;
        }
        if let Some(managed) = self.managed.get_mut(&id) {
            tracing::debug!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), bytes = %moved.bytes, failed = ?moved.failed, "demoted");
            managed.note_demoted(Some(reason), moved);
        }
    }

    /// Moves hot memory of one slow node up, where that is our business; what is left to be done.
    fn promote(&mut self, id: CgroupId, wanted: &law::Promote, now: Instant) -> Left {
        let (Some(managed), Some(Engine::Pages(pages))) = (self.managed.get_mut(&id), self.engine.as_mut())
        else {
            return Left::Nothing;
        };
        let order = Order {
            cgroup: &managed.cgroup,
            leaves: &managed.leaves,
            allowed: &managed.allowed,
            from: wanted.from,
            to: &[wanted.to],
            bytes: wanted.bytes,
            age: Duration::ZERO,
            is_urgent: false,
            budget: MOVE_BUDGET,
        };
        let moved = pages.promote(&self.ground, order, wanted.reason.hot_walks());
        managed.note_promoted(&moved);
        let done = law::Moved {
            from: wanted.from,
            to: Some(wanted.to),
            asked: moved.tried,
            moved: moved.bytes,
            stayed: moved.stayed(),
            least_age: Duration::ZERO,
        };
        self.law.promoted(CgroupKey(id.get()), &done, now);
        *self.totals.promoted_bytes.entry(Promoter::Pages).or_default() += moved.bytes.0;
        left(&moved, wanted.bytes)
    }

    /// Steps `memory.high` and `cpuset.mems`.
    pub(super) fn step_limits(
        &mut self,
        id: CgroupId,
        planned: Option<memory_high::Step>,
        now: Instant,
    ) -> Result<Progress, StateError> {
        const NONE: Progress = Progress::Settled;
        self.settle_drift(id)?;
        let (Some(managed), Some(state)) = (self.managed.get_mut(&id), self.state.as_mut()) else {
            return Ok(NONE);
        };
        let high = step_memory_high(&self.root, state, managed, planned, &self.ground.roots);
        let high = self.note_step(id, ControlFile::MemoryHigh, high)?;

        let (Some(managed), Some(state)) = (self.managed.get_mut(&id), self.state.as_mut()) else {
            return Ok(NONE);
        };
        let pages = match (&mut self.engine, &mut self.mover) {
            (Some(Engine::Pages(pages)), _) => (None, Some(&mut **pages)),
            (engine, mover) => (engine.as_mut(), mover.as_mut()),
        };
        let movers = Movers { engine: pages.0, pages: pages.1, law: &mut self.law, budget: MOVE_BUDGET };
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
        let enforcing =
            self.ground.tiers.has_lower_tier() && self.managed.values().any(|managed| managed.enforced());
        let latest = now + if enforcing { interval } else { interval * LONGEST_PAUSE };
        self.next_round = due.map_or(latest, |due| due.min(latest)).max(now + shortest);
    }

    fn publish(&mut self, news_of: &[CgroupId], began: Clock) {
        if !news_of.is_empty() {
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
        let room = self.ground.slow.iter().map(|node| self.law.room(node)).sum();
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
            for managed in news_of.iter().filter_map(|id| self.managed.get(id)) {
                let file = |file| self.state.as_ref().and_then(|state| ours(state, &managed.cgroup, file));
                let high = file(ControlFile::MemoryHigh).and_then(|value| value.parse().ok());
                let view = managed.view(
                    &self.ground.tiers,
                    self.law.cgroup(managed.key()),
                    high,
                    file(ControlFile::CpusetMems),
                    at,
                );
                snapshot.cgroups.insert(view.path.clone(), Arc::new(view));
            }
            snapshot.savings = savings::sums(snapshot, room);
        });
    }
}

/// What is left of `asked`. What did not move at all was made young again, or can't move.
fn left(moved: &Moved, asked: Bytes) -> Left {
    match moved.bytes {
        Bytes::ZERO => Left::Unproven,
        moved if moved < asked => Left::OutOfTime,
        _ => Left::Nothing,
    }
}

/// Those that are `due`, most urgent first.
fn in_order(plan: &Plan, due: &[CgroupId]) -> Vec<CgroupId> {
    let by_key: HashMap<u64, CgroupId> = due.iter().map(|id| (id.get(), *id)).collect();
    let urgent = plan.order().into_iter().filter_map(|i| by_key.get(&plan.cgroups[i].key.0).copied());
    let mut order: Vec<CgroupId> = urgent.collect();
    let first: HashSet<CgroupId> = order.iter().copied().collect();
    order.extend(due.iter().filter(|id| !first.contains(id)));
    order
}
