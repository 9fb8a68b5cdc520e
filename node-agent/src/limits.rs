//! The two limits of a managed cgroup, stepped: `memory.high` and `cpuset.mems`.

use std::collections::BTreeMap;
use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId, ControlFile};
use host::demotion::read_demotion_enabled;
use host::pages::page_size;
use host::parse::{Limit, format_id_list};
use host::roots::Roots;
use tiering::law::{self, CgroupKey};
use tiering::{Bytes, Instant, MemoryHighPolicy, NodeId, NodeSet, TierRef, memory_high, retier};

use crate::engine::{Engine, Ground, Moved, Order, PagesEngine};
use crate::managed::Managed;
use crate::node::NodeMemory;
use crate::restore::{Restored, read_file, restore_files};
use crate::snapshot::Condition;
use crate::state::{State, StateError};

/// Why a limit could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The kernel refused.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// An engine.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
}

/// Whether a limit is where its policy wants it. The greater one comes sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// It is.
    Settled,
    /// It is as near as it can be for now: usage must fall, or room come free.
    Waiting,
    /// Another step is due in the next round.
    Stepping,
}

/// What stands in a file of ours, if anything of ours does.
#[must_use]
pub fn ours(state: &State, cgroup: &Cgroup, file: ControlFile) -> Option<String> {
    state.file(cgroup.id(), file).and_then(|record| record.ours.last().cloned())
}

/// One step of `memory.high`: the `planned` one, or what follows from the policy alone where nothing is planned yet.
pub fn step_memory_high(
    root: &host::cgroup::CgroupRoot,
    state: &mut State,
    managed: &mut Managed,
    planned: Option<memory_high::Step>,
    roots: &Roots,
) -> Result<(Progress, Vec<Restored>), LimitError> {
    const FILE: ControlFile = ControlFile::MemoryHigh;
    let policy = within_max(managed.policy.memory_high, &managed.cgroup)?;
    if policy == MemoryHighPolicy::None
        || managed.drift.get(&FILE).is_some_and(super::drift::Drift::standing_down)
    {
        if policy == MemoryHighPolicy::None {
            managed.clear_condition("MemoryHigh");
        }
        return Ok((Progress::Settled, release(root, state, managed, FILE)?));
    }
    if is_shared(managed) {
        managed.set_condition(shared_condition("MemoryHigh", FILE));
        return Ok((Progress::Settled, release(root, state, managed, FILE)?));
    }
    let Some(present) = read_file(&managed.cgroup, FILE)? else { return Ok((Progress::Settled, Vec::new())) };
    let current = Bytes(managed.cgroup.read_memory_current()?.unwrap_or(0));
    let High { original, ours: standing } = High::of(state, managed.cgroup.id(), &present);
    let own = || memory_high::step(policy, current, original, standing, page_size());
    let step = match planned.unwrap_or_else(own) {
        // By so much the kernel uncharges page cache at once, which is what this mode is for: unless it would demote it, without end.
        memory_high::Step::Set(value) if value < current && follows_pressure(policy) => {
            if read_demotion_enabled(&roots.sys)? == Some(true) {
                memory_high::Step::Waiting { want: value }
            } else {
                memory_high::Step::Set(value)
            }
        }
        // Usage may have grown since the plan was made.
        memory_high::Step::Set(value) | memory_high::Step::Toward { value, .. } if value < current => own(),
        step => step,
    };
    let mut restored = Vec::new();
    let (progress, reason, message) = match step {
        memory_high::Step::Leave => {
            let lower =
                original.map_or_else(String::new, |original| format!(" ({original} was set already)"));
            restored = release(root, state, managed, FILE)?;
            (Progress::Settled, "LowerLimitStands", format!("memory.high is left as it was{lower}"))
        }
        memory_high::Step::Settled(value) => {
            (Progress::Settled, "Settled", format!("memory.high is {value}"))
        }
        memory_high::Step::Waiting { want } => (
            Progress::Waiting,
            "AboveTarget",
            format!("usage of {current} is above {want}: stepping down as it falls"),
        ),
        memory_high::Step::Set(value) => {
            write_memory_high(state, managed, &present, value)?;
            (Progress::Settled, "Settled", format!("memory.high is {value}"))
        }
        memory_high::Step::Toward { value, want } => {
            write_memory_high(state, managed, &present, value)?;
            (Progress::Waiting, "SteppingDown", format!("memory.high is {value} on the way to {want}"))
        }
    };
    let status = matches!(reason, "Settled");
    managed.set_condition(Condition { kind: "MemoryHigh", status, reason, message });
    Ok((progress, restored))
}

fn follows_pressure(policy: MemoryHighPolicy) -> bool {
    matches!(policy, MemoryHighPolicy::Pressure { .. })
}

/// What stood in `memory.high` before our first write, and what of ours stands there.
#[derive(Clone, Copy, Debug, Default)]
pub struct High {
    /// `None` is `max`.
    pub original: Option<Bytes>,
    /// `None` where nothing of ours stands.
    pub ours: Option<Bytes>,
}

impl High {
    /// As the state file and the `present` value tell.
    #[must_use]
    pub fn of(state: &State, cgroup: CgroupId, present: &str) -> Self {
        let number = |text: &str| text.parse().ok().map(Bytes);
        let record = state.file(cgroup, ControlFile::MemoryHigh);
        Self {
            original: record.map_or_else(|| number(present), |record| number(&record.original)),
            // What stands is ours only while it is what we wrote.
            ours: record
                .filter(|record| record.ours.iter().any(|ours| ours == present))
                .and_then(|_| number(present)),
        }
    }
}

/// A formula never computes with more than `memory.max`: a limit that was lowered is there before the cluster tells of it.
fn within_max(policy: MemoryHighPolicy, cgroup: &Cgroup) -> host::Result<MemoryHighPolicy> {
    let MemoryHighPolicy::Formula { factor, request, limit } = policy else { return Ok(policy) };
    let max = match cgroup.read_memory_max()? {
        Some(Limit::Bytes(max)) => Bytes(max),
        _ => Bytes::MAX,
    };
    let limit = limit.min(max);
    Ok(MemoryHighPolicy::Formula { factor, request: request.min(limit), limit })
}

/// Whether a limit of the cgroup would bind containers that its policy is not for.
fn is_shared(managed: &Managed) -> bool {
    managed.pod.as_ref().is_some_and(|pod| pod.shared)
}

fn shared_condition(kind: &'static str, file: ControlFile) -> Condition {
    let message = format!(
        "{file} is left alone: set on the pod it would bind the containers, too, that have a policy of their own or none; \
         annotate each container with a policy"
    );
    Condition { kind, status: false, reason: "ContainersApart", message }
}

fn write_memory_high(
    state: &mut State,
    managed: &Managed,
    present: &str,
    value: Bytes,
) -> Result<(), LimitError> {
    let cgroup = &managed.cgroup;
    state.will_write_file(
        cgroup.id(),
        cgroup.path(),
        ControlFile::MemoryHigh,
        present,
        &value.0.to_string(),
    )?;
    cgroup.write_memory_high(Limit::Bytes(value.0))?;
    // One that follows pressure is written each few seconds.
    if follows_pressure(managed.policy.memory_high) {
        tracing::debug!(cgroup = %cgroup.path(), pod = managed.pod_name(), %value, "memory.high set");
    } else {
        tracing::info!(cgroup = %cgroup.path(), pod = managed.pod_name(), %value, "memory.high set");
    }
    Ok(())
}

/// Puts back a file that is not ours any more.
fn release(
    root: &host::cgroup::CgroupRoot,
    state: &mut State,
    managed: &Managed,
    file: ControlFile,
) -> Result<Vec<Restored>, LimitError> {
    let id = managed.cgroup.id();
    if state.file(id, file).is_none() {
        return Ok(Vec::new());
    }
    Ok(restore_files(root, state, &[(id, file)])?)
}

/// What changes of tiers work with.
pub struct Movers<'a> {
    /// The engine, for the way down where page moves are not permitted.
    pub engine: Option<&'a mut Engine>,
    /// Page moves, both ways.
    pub pages: Option<&'a mut PagesEngine>,
    /// What rates let pass, and who counts against them.
    pub law: &'a mut law::Host,
    /// Begin no new step after this much time.
    pub budget: Duration,
}

/// What a step of a change of tiers moved.
#[derive(Clone, Copy, Debug)]
pub enum Relocated {
    /// To slow nodes, by this engine.
    Down(&'static str, Bytes),
    /// To fast nodes, or among nodes of a tier.
    Up(Bytes),
}

impl Relocated {
    fn bytes(self) -> Bytes {
        let (Self::Down(_, bytes) | Self::Up(bytes)) = self;
        bytes
    }
}

/// What is to be moved, and between which nodes.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: NodeId,
    to: NodeId,
    bytes: Bytes,
}

/// One step towards the tiers that the policy allows.
pub fn step_tiers(
    root: &host::cgroup::CgroupRoot,
    ground: &Ground,
    node: &NodeMemory,
    state: &mut State,
    managed: &mut Managed,
    mut movers: Movers<'_>,
    now: Instant,
) -> Result<(Progress, Option<Relocated>, Vec<Restored>), LimitError> {
    const FILE: ControlFile = ControlFile::CpusetMems;
    let settled = |restored| Ok((Progress::Settled, None, restored));
    let allowed = &managed.policy.tiers;
    let standing_down = managed.drift.get(&FILE).is_some_and(super::drift::Drift::standing_down);
    if allowed.is_empty() || standing_down {
        if !standing_down {
            managed.clear_condition("TiersAllowed");
        }
        end_relocation(managed, &mut movers);
        return settled(release(root, state, managed, FILE)?);
    }
    if is_shared(managed) {
        managed.set_condition(shared_condition("TiersAllowed", FILE));
        end_relocation(managed, &mut movers);
        return settled(release(root, state, managed, FILE)?);
    }
    let named = nodes_of(ground, allowed);
    // What the parent may not use, the kernel leaves out; to wait for it would be to wait for ever.
    let parent = parent_mems(root, &managed.cgroup)?;
    let wanted = parent.as_ref().map_or_else(|| named.clone(), |parent| named.intersection(parent));
    let Some(present) = read_file(&managed.cgroup, FILE)? else {
        managed.set_condition(Condition {
            kind: "TiersAllowed",
            status: false,
            reason: "NoCpusetController",
            message:
                "the cgroup has no cpuset.mems: +cpuset is missing in its parent's cgroup.subtree_control"
                    .to_owned(),
        });
        return settled(Vec::new());
    };
    // Of a host that was not looked at yet, nothing can be said, least of all that it has no room.
    if !node.is_known() {
        return Ok((Progress::Waiting, None, Vec::new()));
    }
    let can_move = movers.pages.is_some() || movers.engine.is_some();
    let placement = placement(ground, node, movers.law, managed, can_move)?;
    // The first step may come before the first sample.
    managed.allowed.clone_from(&placement.allowed);
    let before = managed.after_step.take();
    let step = match parent {
        Some(parent) if wanted.is_empty() && !named.is_empty() => {
            retier::Step::Refuse(retier::Refusal::OutsideParent { wanted: named, parent })
        }
        _ => retier::step(&wanted, &placement),
    };
    match step {
        retier::Step::Settled => {
            end_relocation(managed, &mut movers);
            condition(managed, true, "Settled", format!("cpuset.mems is {wanted}"));
            settled(Vec::new())
        }
        retier::Step::Refuse(refusal) => {
            let message = refusal.to_string();
            if condition(managed, false, "Refused", message.clone()) {
                tracing::warn!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), wanted = %wanted, "tiers refused: {message}");
            }
            end_relocation(managed, &mut movers);
            Ok((Progress::Waiting, None, release(root, state, managed, FILE)?))
        }
        retier::Step::Widen(set) | retier::Step::Narrow(set) => {
            let cgroup = &managed.cgroup;
            let mems = set.iter().map(|node| node.0).collect();
            state.will_write_file(cgroup.id(), cgroup.path(), FILE, &present, &format_id_list(&mems))?;
            cgroup.write_cpuset_mems(&mems)?;
            tracing::info!(cgroup = %cgroup.path(), pod = managed.pod_name(), mems = %set, "cpuset.mems set");
            managed.allowed = set;
            if let Some(pages) = movers.pages {
                pages.end_relocation(cgroup.id());
            }
            managed.after_step = Some(placement.resident);
            Ok((Progress::Stepping, None, Vec::new()))
        }
        retier::Step::Move { from, to, bytes } => {
            condition(managed, false, "Moving", format!("{bytes} on {from} are still to be moved to {to}"));
            let mut resident = placement.resident;
            let up = !ground.fast.contains(from) || ground.fast.contains(to);
            // NUMA balancing brings up what is touched as soon as it may. Its moves are not ours to hold back, but ours are.
            if let Some(before) = before.filter(|_| up) {
                let arrived = arrived(&before, &resident, &wanted);
                movers.law.promoted(managed.key(), &whole(Way { from, to, bytes: arrived }), now);
            }
            let relocated = relocate(root, ground, state, managed, movers, Way { from, to, bytes }, now)?;
            let bytes = relocated.map_or(Bytes::ZERO, Relocated::bytes);
            *resident.entry(from).or_default() -= bytes;
            *resident.entry(to).or_default() += bytes;
            managed.after_step = Some(resident);
            Ok((Progress::Stepping, relocated, Vec::new()))
        }
    }
}

/// Moves what the rate cap lets pass now; `None` where that is nothing.
fn relocate(
    root: &host::cgroup::CgroupRoot,
    ground: &Ground,
    state: &mut State,
    managed: &mut Managed,
    movers: Movers<'_>,
    Way { from, to, bytes }: Way,
    now: Instant,
) -> Result<Option<Relocated>, LimitError> {
    let down = ground.fast.contains(from) && !ground.fast.contains(to);
    let key: CgroupKey = managed.key();
    let Movers { engine, pages, law, budget } = movers;
    let (down_cap, up_cap) = law.rates(key, now);
    let cap = if down { down_cap } else { up_cap };
    if cap.is_zero() {
        return Ok(None);
    }
    let order = Order {
        cgroup: &managed.cgroup,
        leaves: &managed.leaves,
        allowed: &managed.allowed,
        from,
        to: &[to],
        bytes: bytes.min(cap),
        age: Duration::ZERO,
        is_urgent: false,
        budget,
    };
    let (by, moved, stuck) = match (pages, engine) {
        (Some(pages), _) => {
            let step = pages.relocate(ground, order, now)?;
            ("pages", step.moved, step.stuck)
        }
        (None, Some(engine)) if down && !engine.swaps_out(ground, root, order.cgroup) => {
            let moved = engine.demote(ground, state, order, now)?;
            let stuck = moved.bytes.is_zero();
            (engine.name(), moved, stuck)
        }
        _ => ("none", Moved::default(), true),
    };
    managed.relocation_stuck = stuck;
    let done = whole(Way { from, to, bytes: moved.bytes });
    Ok(Some(if down {
        managed.note_demoted(None, &moved);
        law.demoted(key, &done, None, now);
        Relocated::Down(by, moved.bytes)
    } else {
        managed.note_promoted(&moved);
        law.promoted(key, &done, now);
        Relocated::Up(moved.bytes)
    }))
}

/// A move of which nothing is to be learned but that it was.
fn whole(Way { from, to, bytes }: Way) -> law::Moved {
    let (stayed, least_age) = (law::Stayed::Unknown, Duration::ZERO);
    law::Moved { from, to: Some(to), asked: bytes, moved: bytes, stayed, least_age }
}

/// Forgets a change of tiers that is done or given up.
fn end_relocation(managed: &mut Managed, movers: &mut Movers<'_>) {
    managed.end_relocation();
    if let Some(pages) = &mut movers.pages {
        pages.end_relocation(managed.cgroup.id());
    }
}

/// What came from other nodes to `nodes` between two readings; neither what was allocated there nor what was freed elsewhere.
fn arrived(before: &BTreeMap<NodeId, Bytes>, now: &BTreeMap<NodeId, Bytes>, nodes: &NodeSet) -> Bytes {
    let split = |resident: &BTreeMap<NodeId, Bytes>| {
        resident.iter().fold((Bytes::ZERO, Bytes::ZERO), |(inside, outside), (node, bytes)| {
            if nodes.contains(*node) { (inside + *bytes, outside) } else { (inside, outside + *bytes) }
        })
    };
    let ((inside_before, outside_before), (inside, outside)) = (split(before), split(now));
    (inside - inside_before).min(outside_before - outside)
}

/// The nodes of these tiers that the host has.
fn nodes_of(ground: &Ground, tiers: &[TierRef]) -> NodeSet {
    tiers.iter().filter_map(|tier| ground.tiers.resolve(*tier)).flat_map(|tier| tier.nodes.iter()).collect()
}

/// The nodes that memory of the cgroup may be moved to: of those that it may use, those that its policy wants it to.
/// The two differ while its tiers change, or can't be changed.
#[must_use]
pub fn destinations(ground: &Ground, managed: &Managed) -> NodeSet {
    match managed.policy.tiers.as_slice() {
        [] => managed.allowed.clone(),
        tiers => managed.allowed.intersection(&nodes_of(ground, tiers)),
    }
}

/// The nodes that the parent may use; `None` where nothing bounds it.
fn parent_mems(root: &host::cgroup::CgroupRoot, cgroup: &Cgroup) -> host::Result<Option<NodeSet>> {
    let Some(parent) = cgroup.path().parent() else { return Ok(None) };
    let mems = root.cgroup(&parent)?.read_cpuset_mems_effective()?;
    Ok(mems.filter(|mems| !mems.is_empty()).map(|mems| mems.into_iter().collect()))
}

fn condition(managed: &mut Managed, status: bool, reason: &'static str, message: String) -> bool {
    managed.set_condition(Condition { kind: "TiersAllowed", status, reason, message })
}

fn placement(
    ground: &Ground,
    node: &NodeMemory,
    law: &law::Host,
    managed: &Managed,
    can_move: bool,
) -> host::Result<retier::Placement> {
    let effective = managed.cgroup.read_cpuset_mems_effective()?.unwrap_or_default();
    let stat = managed.cgroup.read_memory_numa_stat()?.unwrap_or_default();
    let (mut resident, mut movable, mut room) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for id in ground.tiers.nodes().iter() {
        let on = |map: &BTreeMap<u32, u64>| Bytes(map.get(&id.0).copied().unwrap_or(0));
        let unmovable = on(&stat.unevictable) + Bytes(stat.lazyfree_estimate(id.0));
        resident.insert(id, on(&stat.anon) + on(&stat.file));
        if can_move && !managed.relocation_stuck {
            movable.insert(id, on(&stat.anon) - unmovable);
        }
        room.insert(id, law.room(id));
    }
    let kernel = node.with_kernel_memory().clone();
    Ok(retier::Placement { allowed: effective.into_iter().collect(), resident, movable, room, kernel })
}

#[cfg(test)]
mod tests;
