//! One managed cgroup: who it is, what is known of it, and when to look again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId, CgroupPath, CgroupRoot, ControlFile, leaves, list_below};
use host::pages::page_size;
use host::parse::Limit;
use litemap::LiteMap;
use tiering::law::{AgeReading, CgroupKey, CgroupPlan, CgroupSample, CgroupState, Limits, NodeUse};
use tiering::{
    Bytes, DemoteReason, Instant, MemoryHighPolicy, Mode, NodeId, NodeSet, Policy, StallTotals, TierMap,
};

use crate::drift::Drift;
use crate::engine::{Found, Moved};
use crate::kubernetes::assignment::PodIdentity;
use crate::limits::High;
use crate::promoter::Promoter;
use crate::snapshot::{CgroupView, Condition, DecisionView, DriftView};
use crate::state::State;

/// What was accessed within this is the working set; or within the age that counts as cold, if that is less.
pub(crate) const WORKING_SET: Duration = Duration::from_mins(1);

/// A managed cgroup.
#[derive(Debug)]
pub struct Managed {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// The pod or container that it is, under Kubernetes.
    pub pod: Option<ManagedPod>,
    /// The cgroups that its memory is charged to: itself or those below it, but for what is apart.
    pub leaves: Vec<Cgroup>,
    /// When these were listed.
    pub leaves_listed: Instant,
    /// The cgroups below it that are managed apart or left alone. Their memory is not counted as its.
    apart: Vec<Cgroup>,
    /// What the kernel promoted of what is or was apart, by node: the count of a cgroup that is gone stays in those above it.
    promoted_apart: BTreeMap<CgroupId, BTreeMap<NodeId, Bytes>>,
    /// Its policy's name.
    pub policy_name: String,
    /// What it says.
    pub policy: Arc<Policy>,
    /// When to look at it again, at the latest.
    pub next_look: Instant,
    /// From when on it is looked at along with others.
    join_look: Instant,
    /// When to walk its page tables again, at the earliest.
    next_walk: Instant,
    /// By how much a walk, or a look at what has become cold, may come late to share the price with others.
    slack: Duration,
    /// Its `memory.max` when its `memory.high` of ours was looked at last: who writes both resizes it.
    pub max_beside_high: Option<Limit>,
    /// What other writers did to our files.
    pub drift: BTreeMap<ControlFile, Drift>,
    /// When a sample was taken that nothing was done about yet.
    undecided: Option<Instant>,
    plan: Option<CgroupPlan>,
    /// Times it was decided about.
    looks: u64,
    /// Since when the last decisions were kept from more by the same.
    limited_since: Instant,
    /// A move for a change of tiers that moved nothing: what is left moves with the narrowing.
    pub relocation_stuck: bool,
    /// Its memory by node after the last step of a change of tiers; what differs by the next was not moved by us.
    pub after_step: Option<BTreeMap<NodeId, Bytes>>,
    /// Nodes it may use.
    pub allowed: NodeSet,
    // Of thousands of cgroups each has an entry or two.
    demoted: LiteMap<&'static str, u64>,
    promoted: LiteMap<Promoter, u64>,
    failed: LiteMap<&'static str, u64>,
    conditions: LiteMap<&'static str, Condition>,
    placed: Option<Placed>,
    /// Its limits as of the last walk.
    limits: Limits,
    /// Reclaimed ahead of its limits.
    pub reclaimed_bytes: u64,
}

/// What of a decision is left to do at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// Nothing.
    #[default]
    Nothing,
    /// More, once another walk says what is old.
    Unproven,
    /// More, once the last walk is so long ago that an order may walk for itself.
    Ripening,
    /// More, when the rate caps let it pass.
    Capped,
    /// More, but others have their turn first.
    OutOfTime,
}

/// The pod or container that a managed cgroup is.
#[derive(Clone, Debug)]
pub struct ManagedPod {
    /// Which.
    pub identity: PodIdentity,
    /// Whether an annotation names its policy.
    pub explicit: bool,
    /// Whether a limit of the cgroup would bind a container that does not go with the pod.
    pub shared: bool,
    /// Whether another writer chose its memory nodes, and no annotation says to manage it nevertheless.
    pub pinned: bool,
}

/// What `memory.numa_stat` said, and what the engine had listed then. It is kept of each cgroup, so without maps.
#[derive(Debug)]
struct Placed {
    listed: Box<[(NodeId, Bytes)]>,
    nodes: Box<[PlacedOn]>,
}

#[derive(Clone, Copy, Debug)]
struct PlacedOn {
    node: NodeId,
    anon: Bytes,
    unmovable: Bytes,
    kernel_promoted: Option<Bytes>,
}

impl Placed {
    fn new(listed: BTreeMap<NodeId, Bytes>, nodes: &NodeUses) -> Self {
        let placed = nodes.iter().map(|(node, on)| PlacedOn {
            node: *node,
            anon: on.anon,
            unmovable: on.unmovable,
            kernel_promoted: on.kernel_promoted,
        });
        Self { listed: listed.into_iter().collect(), nodes: placed.collect() }
    }

    fn is_as(&self, listed: &BTreeMap<NodeId, Bytes>) -> bool {
        self.listed.iter().copied().eq(listed.iter().map(|(node, bytes)| (*node, *bytes)))
    }

    fn nodes(&self) -> NodeUses {
        let use_of = |on: &PlacedOn| NodeUse {
            anon: on.anon,
            unmovable: on.unmovable,
            kernel_promoted: on.kernel_promoted,
            ..NodeUse::default()
        };
        self.nodes.iter().map(|on| (on.node, use_of(on))).collect()
    }
}

/// Memory by node.
type NodeUses = BTreeMap<NodeId, NodeUse>;

impl Managed {
    /// A cgroup just found, its leaves not yet listed; looked at `within` this time, with others that are found meanwhile.
    #[must_use]
    pub fn new(
        cgroup: Cgroup,
        policy_name: &str,
        policy: impl Into<Arc<Policy>>,
        within: Duration,
        now: Instant,
    ) -> Self {
        Self {
            pod: None,
            leaves: Vec::new(),
            leaves_listed: now,
            apart: Vec::new(),
            promoted_apart: BTreeMap::new(),
            cgroup,
            policy_name: policy_name.to_owned(),
            policy: policy.into(),
            next_look: now + within,
            join_look: now,
            next_walk: now,
            slack: Duration::ZERO,
            max_beside_high: None,
            drift: BTreeMap::new(),
            undecided: None,
            plan: None,
            looks: 0,
            limited_since: now,
            relocation_stuck: false,
            after_step: None,
            allowed: NodeSet::default(),
            demoted: LiteMap::new(),
            promoted: LiteMap::new(),
            failed: LiteMap::new(),
            conditions: LiteMap::new(),
            placed: None,
            limits: Limits::default(),
            reclaimed_bytes: 0,
        }
    }

    /// What the law knows it by.
    #[must_use]
    pub fn key(&self) -> CgroupKey {
        CgroupKey(self.cgroup.id().get())
    }

    /// Whether its decisions are carried out.
    #[must_use]
    pub fn enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce && !self.is_pinned()
    }

    /// Whether its policy sets limits, which need no slow memory.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        let policy = &self.policy;
        policy.memory_high != tiering::MemoryHighPolicy::None || !policy.tiers.is_empty()
    }

    /// What is done about its decisions, whatever its policy says.
    #[must_use]
    pub fn acting_mode(&self) -> Mode {
        if self.enforced() { Mode::Enforce } else { Mode::Observe }
    }

    /// Whether another writer chose its memory nodes, so that it is left alone.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.pinned)
    }

    /// Takes a new policy. It is looked at now, and walked as soon as the new age asks for it.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: Instant) {
        self.next_walk = self.next_walk.min(now + policy.demote.after / 2);
        self.policy = policy;
        self.next_look = now;
    }

    /// The pod or container, as a field of a log line.
    #[must_use]
    pub fn pod_name(&self) -> Option<String> {
        self.pod.as_ref().map(|pod| pod.identity.to_string())
    }

    /// Lists its leaves anew; what `is_apart` says of a cgroup below it holds for all below that.
    pub fn refresh_leaves(
        &mut self,
        root: &CgroupRoot,
        is_apart: impl Fn(&CgroupPath) -> bool,
    ) -> host::Result<()> {
        let mut apart: Vec<Cgroup> = Vec::new();
        for path in list_below(&self.cgroup)?.into_iter().filter(|path| is_apart(path)) {
            if apart.iter().any(|above| path.is_in(above.path())) {
                continue;
            }
            match root.cgroup(&path) {
                Ok(cgroup) => apart.push(cgroup),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        let leaves = leaves(root, &self.cgroup)?.into_iter();
        self.leaves = leaves.filter(|leaf| !apart.iter().any(|top| leaf.path().is_in(top.path()))).collect();
        self.apart = apart;
        Ok(())
    }

    /// Whether a round for another's sake is to look at it, too.
    #[must_use]
    pub fn joins(&self, now: Instant) -> bool {
        now >= self.join_look.min(self.next_look)
    }

    /// Whether its page tables are to be walked in a look now.
    #[must_use]
    pub fn walk_due(&self, now: Instant) -> bool {
        now >= self.next_walk
    }

    /// Whether a sample not older than this is there that nothing was decided about yet.
    #[must_use]
    pub fn awaits_decision(&self, now: Instant, fresh: Duration) -> bool {
        self.undecided.is_some_and(|sampled| now.since(sampled) < fresh)
    }

    /// A sample is in its record.
    pub fn sampled(&mut self, now: Instant) {
        self.undecided = Some(now);
    }

    /// It is decided about now. What is moved for it is to be seen in another sample before the next decision.
    pub fn decides(&mut self) {
        self.undecided = None;
    }

    /// Its page tables were walked. The next walk may come late by `slack`.
    pub fn walked(&mut self, now: Instant, scan_interval: Duration, slack: Duration) {
        self.next_walk = now + scan_interval;
        self.slack = slack;
    }

    /// Reads its files into a sample, with what the engine found. `None` where its memory controller is off.
    pub fn sample(
        &mut self,
        found: Found,
        tiers: &TierMap,
        state: Option<&State>,
        now: Instant,
    ) -> host::Result<Option<CgroupSample>> {
        let Found { mut ages, walked, aged, mut touched, blind, listed, .. } = found;
        let Some(mut nodes) = self.placed(listed)? else { return Ok(None) };
        for (node, usage) in &mut nodes {
            usage.ages = ages.remove(node).map(|ages| AgeReading { ages, walked: aged });
            if walked && !tiers.fast_nodes().contains(*node) {
                usage.touched = Some(touched.remove(node).unwrap_or_default());
            }
        }
        // A cgroup without the cpuset controller may use every node.
        let effective = self.cgroup.read_cpuset_mems_effective()?.unwrap_or_default();
        self.allowed = if effective.is_empty() {
            tiers.nodes().clone()
        } else {
            effective.into_iter().collect::<NodeSet>()
        };
        self.read_limits(state, walked)?;
        let sample = CgroupSample {
            at: now,
            nodes,
            current: self.current()?,
            clean_file: self.clean_file()?,
            // Only demotion without swap is ours to do.
            may_swap: false,
            blind,
            limits: self.limits,
            stalls: self.stalls()?,
        };
        Ok(Some(sample))
    }

    /// Reads its limits: what protects it once a walk, what bounds it where its policy is about that.
    fn read_limits(&mut self, state: Option<&State>, walked: bool) -> host::Result<()> {
        let bytes = |limit: Option<Limit>| match limit {
            Some(Limit::Bytes(bytes)) => Some(Bytes(bytes)),
            Some(Limit::Max) | None => None,
        };
        if walked {
            self.limits.min = bytes(self.cgroup.read_memory_min()?);
            self.limits.low = bytes(self.cgroup.read_memory_low()?);
        }
        if self.policy.memory_high != MemoryHighPolicy::None {
            let high = self.cgroup.read_memory_high()?;
            let present = high.map(|high| high.to_string()).unwrap_or_default();
            let High { original, ours } =
                state.map(|state| High::of(state, self.cgroup.id(), &present)).unwrap_or_default();
            self.limits.max = bytes(self.cgroup.read_memory_max()?);
            self.limits.high = bytes(high);
            (self.limits.high_before_us, self.limits.high_of_ours) = (original, ours);
        }
        Ok(())
    }

    /// Page cache that can be dropped without I/O, where its policy is about that.
    fn clean_file(&self) -> host::Result<Bytes> {
        if !matches!(self.policy.memory_high, MemoryHighPolicy::Pressure { .. }) {
            return Ok(Bytes::ZERO);
        }
        let stat = self.cgroup.read_memory_stat()?.unwrap_or_default();
        let of = |field: Option<u64>| Bytes(field.unwrap_or(0));
        Ok(of(stat.inactive_file) + of(stat.active_file) - of(stat.file_dirty) - of(stat.file_writeback))
    }

    /// Its memory by node, and what the kernel promoted there. Summing `memory.numa_stat` up is the dearest reading by far, so it is
    /// spared where the engine `listed` what it listed when it was read: memory that came, went, moved, was locked or given
    /// up by `MADV_FREE` changes that.
    fn placed(&mut self, listed: Option<BTreeMap<NodeId, Bytes>>) -> host::Result<Option<NodeUses>> {
        if let (Some(placed), Some(listed)) = (&self.placed, &listed)
            && placed.is_as(listed)
        {
            return Ok(Some(placed.nodes()));
        }
        let Some(mut nodes) = node_uses(&self.cgroup)? else { return Ok(None) };
        for apart in &self.apart {
            let others = match node_uses(apart) {
                Ok(found) => found.unwrap_or_default(),
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            };
            let promoted = self.promoted_apart.entry(apart.id()).or_default();
            for (node, other) in others {
                promoted.extend(other.kernel_promoted.map(|bytes| (node, bytes)));
                let node = nodes.entry(node).or_default();
                node.anon -= other.anon;
                node.unmovable -= other.unmovable;
            }
        }
        for (node, bytes) in self.promoted_apart.values().flatten() {
            if let Some(promoted) = nodes.get_mut(node).and_then(|node| node.kernel_promoted.as_mut()) {
                *promoted -= *bytes;
            }
        }
        self.placed = listed.map(|listed| Placed::new(listed, &nodes));
        Ok(Some(nodes))
    }

    /// `memory.current`, without what is apart.
    fn current(&self) -> host::Result<Bytes> {
        let mut current = Bytes(self.cgroup.read_memory_current()?.unwrap_or(0));
        for apart in &self.apart {
            match apart.read_memory_current() {
                Ok(other) => current -= Bytes(other.unwrap_or(0)),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(current)
    }

    fn stalls(&self) -> host::Result<StallTotals> {
        let total = |pressure: Option<host::parse::Pressure>| {
            pressure.and_then(|pressure| pressure.some).map(|some| Duration::from_micros(some.total_us))
        };
        Ok(StallTotals {
            memory: total(self.cgroup.read_memory_pressure()?),
            io: total(self.cgroup.read_io_pressure()?),
        })
    }

    /// Forgets a change of tiers that is done or given up.
    pub fn end_relocation(&mut self) {
        (self.relocation_stuck, self.after_step) = (false, None);
    }

    /// Notes what was moved down, for a decision's reason or for a change of tiers.
    pub fn note_demoted(&mut self, reason: Option<DemoteReason>, moved: &Moved) {
        *self.demoted.entry(reason.map_or("tiers", DemoteReason::as_str)).or_default() += moved.bytes.0;
        self.note_failed(moved);
    }

    /// Notes what we moved up.
    pub fn note_promoted(&mut self, moved: &Moved) {
        *self.promoted.entry(Promoter::Pages).or_default() += moved.bytes.0;
        self.note_failed(moved);
    }

    /// Notes what DAMON moved up for us. It is looked at soon: its memory is elsewhere now.
    pub fn note_damon_promoted(&mut self, moved: &Moved, now: Instant) {
        *self.promoted.entry(Promoter::Damon).or_default() += moved.bytes.0;
        self.note_failed(moved);
        self.next_look = self.next_look.min(now);
    }

    /// Notes what the kernel moved up.
    pub fn note_kernel_promoted(&mut self, bytes: Bytes) {
        *self.promoted.entry(Promoter::Kernel).or_default() += bytes.0;
    }

    fn note_failed(&mut self, moved: &Moved) {
        for (reason, pages) in &moved.failed {
            *self.failed.entry(reason).or_default() += pages;
        }
    }

    /// Sets a condition; whether it is new or changed.
    pub fn set_condition(&mut self, condition: Condition) -> bool {
        let same = self
            .conditions
            .get(condition.kind)
            .is_some_and(|known| known.status == condition.status && known.reason == condition.reason);
        self.conditions.insert(condition.kind, condition);
        !same
    }

    /// Removes a condition.
    pub fn clear_condition(&mut self, kind: &str) {
        self.conditions.remove(kind);
    }

    /// Takes a plan; whether it does or says something else than the one before.
    pub fn planned(&mut self, plan: &CgroupPlan, now: Instant) -> bool {
        let limit = |plan: &CgroupPlan| plan.limit.map(tiering::Limit::as_str);
        self.looks += 1;
        let last = self.plan.replace(plan.clone());
        if last.as_ref().is_none_or(|last| limit(last) != limit(plan)) {
            self.limited_since = now;
        }
        last.is_none_or(|last| (action(&last), reason(&last)) != (action(plan), reason(plan)))
    }

    /// What was planned for it last.
    #[must_use]
    pub fn plan(&self) -> Option<&CgroupPlan> {
        self.plan.as_ref()
    }

    /// When to look again, after a plan that was carried out or not. `ages` are those of its memory on fast nodes.
    pub fn schedule(&mut self, now: Instant, interval: Duration, left: Left, ages: &[(Duration, Bytes)]) {
        // Never early: two walks have to be an age apart, or the four generations prove less than that.
        let mut join = self.next_walk.since(now).max(interval);
        let mut wait = join + self.slack;
        if let Some(plan) = &self.plan {
            // The next bytes to become cold, as far as the last walk tells.
            let ripe = ages.iter().map(|(age, _)| *age).filter(|age| !age.is_zero());
            let due =
                ripe.filter_map(|age| plan.effective_age.checked_sub(age)).filter(|due| !due.is_zero()).min();
            if let Some(due) = due {
                join = join.min(due).max(interval);
                wait = wait.min(due + self.slack).max(interval);
            }
            // What is planned for is looked at when the plan says; walks have their own time.
            let planned = plan.look_again.since(now);
            if plan.look_again < self.next_walk && !matches!(left, Left::Unproven | Left::Ripening) {
                wait = wait.min(planned.max(interval));
            }
            if plan.ceiling < Bytes::MAX {
                let fast: Bytes = ages.iter().map(|(_, bytes)| *bytes).sum();
                let near = fast.0 / 8 * 9 >= plan.ceiling.0;
                wait = wait.min(if near { interval } else { interval * 5 });
            }
        }
        let wait = match left {
            Left::Nothing | Left::Unproven => wait,
            Left::Ripening => wait.min(self.slack.max(interval)),
            Left::Capped => wait.min(interval / 4),
            Left::OutOfTime => Duration::ZERO,
        };
        self.next_look = now + wait;
        self.join_look = now + join.min(wait);
    }

    /// What users see of it; `known` is what the law knows of it.
    #[must_use]
    pub fn view(
        &self,
        tiers: &TierMap,
        known: Option<&CgroupState>,
        high: Option<u64>,
        mems: Option<String>,
        now: Instant,
    ) -> CgroupView {
        let mut by_tier = LiteMap::new();
        let sampled = known.filter(|known| known.last().is_some());
        if let Some(known) = sampled {
            for tier in tiers.tiers() {
                let nodes = known.anon_by_node().filter(|(node, _)| tier.nodes.contains(*node));
                by_tier.insert(tier.name.to_string(), nodes.map(|(_, bytes)| bytes.0).sum());
            }
        }
        let plan = self.plan.as_ref();
        let age = known.map_or(self.policy.demote.after, |known| known.touches().age());
        let lately = age.min(WORKING_SET);
        let ages = sampled.map(|known| known.ages(now)).unwrap_or_default();
        CgroupView {
            id: self.cgroup.id().get(),
            path: self.cgroup.path().to_string(),
            pod: self.pod.as_ref().map(|pod| pod.identity.clone()),
            pinned: self.is_pinned(),
            policy: self.policy_name.clone(),
            mode: mode_name(self.policy.mode),
            leaves: self.leaves.len(),
            looks: self.looks,
            anon_bytes_by_tier: by_tier,
            current_bytes: sampled.and_then(|known| known.last()).map_or(0, |last| last.current.0),
            memory_high_bytes: high,
            cpuset_mems: mems,
            ages: ages.entries().iter().map(|(age, bytes)| (age.as_secs_f64(), bytes.0)).collect(),
            effective_age_seconds: age.as_secs_f64(),
            cold_bytes: plan.map_or(0, |plan| plan.cold.0),
            would_free_bytes: plan.map_or(0, |plan| plan.would_free.0),
            would_touch_bytes_per_minute: plan.map_or(0, |plan| plan.would_touch.0),
            working_set_bytes: sampled.map_or(0, |known| known.working_set(lately, now).0),
            working_set_seconds: lately.as_secs_f64(),
            slow_touched_bytes_per_minute: known.map_or(0, |known| known.touched_per_minute().0),
            floor_bytes: plan.map_or(0, |plan| plan.floor.0),
            ceiling_bytes: plan.filter(|plan| plan.ceiling < Bytes::MAX).map(|plan| plan.ceiling.0),
            decision: plan.map_or_else(DecisionView::default, |plan| DecisionView {
                text: plan.to_string(),
                action: action(plan),
                reason: plan.reason().as_str(),
                limit: plan.limit.map(tiering::Limit::as_str),
                limit_seconds: now.since(self.limited_since).as_secs_f64(),
                demote_bytes: plan.demoted().0,
                promote_bytes: plan.promoted().0,
            }),
            demoted_bytes: self.demoted.clone(),
            promoted_bytes: self.promoted.clone(),
            failed_pages: self.failed.clone(),
            reclaimed_bytes: self.reclaimed_bytes,
            comebacks: known.map_or(0, |known| known.touches().comebacks()),
            conditions: self.conditions.values().cloned().collect(),
            drift: self.drift.iter().map(|(file, drift)| drift.view(*file)).collect::<Vec<DriftView>>(),
        }
    }
}

/// Memory of a cgroup by node, and what the kernel promoted there where it counts that; `None` where its memory controller is off.
fn node_uses(cgroup: &Cgroup) -> host::Result<Option<NodeUses>> {
    let Some(stat) = cgroup.read_memory_numa_stat()? else { return Ok(None) };
    let node_use = |(node, anon): (&u32, &u64)| {
        let locked = stat.unevictable.get(node).copied().unwrap_or(0);
        let unmovable = Bytes(stat.lazyfree_estimate(*node)) + Bytes(locked);
        let promoted = stat.pgpromote_success.get(node).map(|pages| Bytes(pages.saturating_mul(page_size())));
        (
            NodeId(*node),
            NodeUse { anon: Bytes(*anon), unmovable, kernel_promoted: promoted, ..NodeUse::default() },
        )
    };
    Ok(Some(stat.anon.iter().map(node_use).collect()))
}

/// A mode as configurations, labels and tables spell it.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "Enforce",
        Mode::Observe => "Observe",
    }
}

/// `demote`, `promote`, `both` or `hold`.
#[must_use]
pub fn action(plan: &CgroupPlan) -> &'static str {
    match (plan.demote.is_empty(), plan.promote.is_empty()) {
        (false, true) => "demote",
        (true, false) => "promote",
        (false, false) => "both",
        (true, true) => "hold",
    }
}

/// The reason label of a plan: why it acts, or what holds it.
#[must_use]
pub fn reason(plan: &CgroupPlan) -> &'static str {
    match plan.limit {
        Some(limit) if plan.demote.is_empty() => limit.as_str(),
        _ => plan.reason().as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::cgroup::CgroupPath;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    /// A cgroup of one file, found at 0.
    fn managed(numa_stat: &str) -> (tempfile::TempDir, Managed) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pod")).unwrap();
        std::fs::write(dir.path().join("pod/memory.numa_stat"), numa_stat).unwrap();
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        let cgroup = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        (dir, Managed::new(cgroup, "any", Policy::default(), Duration::from_secs(1), at(0)))
    }

    #[test]
    fn a_walk_is_never_early_and_waits_a_little_for_others() {
        let (_dir, mut managed) = managed("");
        managed.walked(at(0), MINUTE, MINUTE / 8);
        managed.schedule(at(0), Duration::from_secs(1), Left::Nothing, &[]);
        assert_eq!(managed.next_look, Instant(Duration::from_millis(67_500)));
        for (second, joins) in [(1, false), (59, false), (60, true), (67, true)] {
            assert_eq!((managed.joins(at(second)), managed.walk_due(at(second))), (joins, joins), "{second}");
        }
    }

    #[test]
    fn a_policy_that_asks_for_less_age_is_walked_for_sooner() {
        let (_dir, mut managed) = managed("");
        managed.walked(at(0), MINUTE, MINUTE / 8);
        let mut policy = Policy::default();
        policy.demote.after = Duration::from_secs(10);
        managed.set_policy(policy.into(), at(1));
        assert_eq!(managed.next_look, at(1));
        for (second, due) in [(5, false), (6, true)] {
            assert_eq!(managed.walk_due(at(second)), due, "{second}");
        }
    }

    #[test]
    fn the_working_set_is_of_a_minute_or_of_the_age_that_counts_as_cold_if_that_is_less() {
        let (dir, mut managed) = managed("");
        let tiers = crate::engine::fixture::ground(dir.path()).tiers;
        for (after, within) in [(10, 10.0), (60, 60.0), (120, 60.0)] {
            let mut policy = Policy::default();
            policy.demote.after = Duration::from_secs(after);
            managed.set_policy(policy.into(), at(1));
            let view = managed.view(&tiers, None, None, None, at(1));
            assert!((view.working_set_seconds - within).abs() < f64::EPSILON, "{after} s");
            assert!(
                view.working_set_seconds <= view.effective_age_seconds,
                "what is cold would be in it, too"
            );
        }
    }

    #[test]
    fn a_cgroup_just_found_waits_a_moment_for_others() {
        let (_dir, managed) = managed("");
        assert!(managed.joins(at(0)) && managed.walk_due(at(0)));
        assert_eq!(managed.next_look, at(1));
    }

    #[test]
    fn numa_stat_is_read_again_only_when_what_is_listed_changes() {
        let (dir, mut managed) = managed("anon N0=8192 N1=0\n");
        let listed = |mib| Some(BTreeMap::from([(NodeId(0), Bytes::mib(mib))]));
        let mut check = |listed, anon| {
            let nodes = managed.placed(listed).unwrap().unwrap();
            assert_eq!(nodes[&NodeId(0)].anon, Bytes(anon));
        };
        check(listed(1), 8192);
        std::fs::write(dir.path().join("pod/memory.numa_stat"), "anon N0=4096 N1=4096\n").unwrap();
        check(listed(1), 8192);
        check(listed(2), 4096);
        std::fs::write(dir.path().join("pod/memory.numa_stat"), "anon N0=0 N1=8192\n").unwrap();
        check(None, 0);
        check(listed(2), 0);
    }
}
