//! The product's law, unchanged, with the agent's part around it.
//!
//! [`tiering::law::Host`] gets the samples that the agent takes and its plan is carried out as the agent does it: walks at the plan's times,
//! eviction of generations that proves nothing of single pages, so much in a round as time allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiering::law::{
    self, AgeReading, CgroupKey, CgroupPlan, CgroupSample, Demote, HostSample, Learned, Limits, Moved,
    NodeSample, NodeUse, Promoter, Reach, Settings, Speed, Stayed,
};
use tiering::{AgeHistogram, Bytes, Generation, Instant, Mode, NodeId, Policy, StallTotals};

use super::Law;
use crate::host::{Evicted, GenerationSize, Host, Pod, Walked};
use crate::world::{NodeKind, PAGE, Promotes, World};

/// The agent's interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pages that one order moves in a round: 300 ms of about 1.5 us a page (measurements.md).
const MOVED_IN_A_ROUND: u64 = 200_000;

/// So many cgroups wait longer for each other, to be walked at once.
const MANY: usize = 100;

/// While a node is short, a cgroup is sampled again after so many rounds.
const STALE_ROUNDS: u32 = 5;

/// The law at work.
#[derive(Debug)]
pub struct Thermocline {
    law: law::Host,
    settings: Settings,
    known: BTreeMap<usize, Known>,
    /// What outlives a pod and the agent, by workload.
    learned: BTreeMap<String, Learned>,
    /// What the state file holds for an agent that starts again, by pod.
    restarted: BTreeMap<usize, Learned>,
    short: bool,
    next: Duration,
    /// Until then it only observes; `None` where it enforces.
    enforces: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it is looked at, at the latest.
    next_look: Duration,
    /// From when on it is looked at along with others.
    join_look: Duration,
    next_walk: Duration,
    /// By how much a walk, or a look at what has become cold, may come late to share the price with others.
    slack: Duration,
    sampled: Duration,
}

impl Known {
    /// When the agent looks again that has nothing left to do now (`node-agent/src/managed.rs`).
    fn schedule(&mut self, now: Duration, plan: &CgroupPlan, ages: &AgeHistogram) {
        let mut join = self.next_walk.saturating_sub(now).max(INTERVAL);
        let mut wait = join + self.slack;
        let ripe = ages.entries().iter().map(|(age, _)| *age).filter(|age| !age.is_zero());
        let due =
            ripe.filter_map(|age| plan.effective_age.checked_sub(age)).filter(|due| !due.is_zero()).min();
        if let Some(due) = due {
            join = join.min(due).max(INTERVAL);
            wait = wait.min(due + self.slack).max(INTERVAL);
        }
        if plan.look_again.0 < self.next_walk {
            wait = wait.min(plan.look_again.0.saturating_sub(now).max(INTERVAL));
        }
        if plan.ceiling < Bytes::MAX {
            let fast: u64 = ages.entries().iter().map(|(_, bytes)| bytes.0).sum();
            wait = wait.min(if fast / 8 * 9 >= plan.ceiling.0 { INTERVAL } else { INTERVAL * 5 });
        }
        self.next_look = now + wait;
        self.join_look = now + join.min(wait);
    }
}

impl Thermocline {
    /// For a world.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let promoter = match world.agent.promotes {
            Promotes::Kernel if world.host.numa_balancing => Promoter::Kernel,
            Promotes::Kernel => Promoter::None,
            Promotes::Agent => Promoter::Agent,
        };
        let settings = Settings { promoter, page: PAGE, ..Settings::default() };
        Self {
            law: law::Host::new(settings),
            settings,
            known: BTreeMap::new(),
            learned: BTreeMap::new(),
            restarted: BTreeMap::new(),
            short: false,
            next: Duration::ZERO,
            enforces: world.agent.enforces.map(|at| at.0),
        }
    }

    /// What the law knows of a pod, by its index.
    #[must_use]
    pub fn known(&self, pod: usize) -> Option<&law::CgroupState> {
        self.law.cgroup(key(pod))
    }

    /// Pods that came and went.
    fn discover(&mut self, host: &Host) {
        let now = Instant(host.now);
        for (index, pod) in host.pods.iter().enumerate().filter(|(_, pod)| pod.managed) {
            let (is_known, key) = (self.known.contains_key(&index), key(index));
            if pod.runs && !is_known {
                for (other, _) in self.known.clone() {
                    // What a replica that runs has learned counts as well as what one left.
                    let of_replica = self.law.learned(self::key(other), now);
                    if let Some(learned) = of_replica.filter(|_| host.pods[other].spec_name == pod.spec_name)
                    {
                        self.keep(&pod.spec_name, &learned);
                    }
                }
                let own = self.restarted.remove(&index);
                let learned = own.as_ref().or_else(|| self.learned.get(&pod.spec_name));
                self.law.add(key, self.policy(pod), learned, now);
                let allowed = host.nodes.iter().map(|node| NodeId(node.id)).collect();
                self.law.set_reach(key, Reach { allowed, ..Reach::default() });
                self.known.insert(index, Known::default());
            }
            if !pod.runs && is_known {
                self.known.remove(&index);
                if let Some(learned) = self.law.remove(key, now) {
                    self.keep(&pod.spec_name, &learned);
                }
            }
        }
    }

    /// The policy of a pod, observed or enforced.
    fn policy(&self, pod: &Pod) -> Arc<Policy> {
        let mode = if self.enforces.is_some() { Mode::Observe } else { Mode::Enforce };
        Arc::new(Policy { mode, ..pod.policy.clone() })
    }

    /// From now on policies are enforced.
    fn enforce(&mut self, host: &Host) {
        self.enforces = None;
        for index in self.known.keys() {
            self.law.set_policy(key(*index), self.policy(&host.pods[*index]), Instant(host.now));
        }
    }

    /// The pods to look at now. Where one can't wait, those whose time is near come along.
    fn due(&self, at: Duration) -> Vec<usize> {
        let stale = INTERVAL * STALE_ROUNDS;
        let is_due = |known: &Known| at >= known.next_look || (self.short && at >= known.sampled + stale);
        if !self.known.values().any(is_due) {
            return Vec::new();
        }
        let joins = self.known.iter().filter(|(_, known)| is_due(known) || at >= known.join_look);
        joins.map(|(index, _)| *index).collect()
    }

    fn keep(&mut self, workload: &str, learned: &Learned) {
        let kept = self.learned.entry(workload.to_owned()).or_insert_with(|| learned.clone());
        *kept = kept.merged(learned);
    }

    fn observe(&mut self, host: &mut Host, index: usize) {
        let now = host.now;
        let walks = now >= self.known[&index].next_walk;
        let walked = walks.then(|| host.walk(index));
        let sample = sample(host, index, walked.as_ref());
        let key = key(index);
        self.law.observe(key, sample);
        let walk_every = self.law.walk_every(key).unwrap_or(INTERVAL);
        let slack_part = if self.known.len() < MANY { 8 } else { 4 };
        if let Some(known) = self.known.get_mut(&index) {
            known.sampled = now;
            if walks {
                known.next_walk = now + walk_every;
                known.slack = walk_every / slack_part;
            }
        }
    }

    /// Evicts what an order says, and tells what moved.
    fn demote(&mut self, host: &mut Host, index: usize, order: &Demote) -> u64 {
        let now = Instant(host.now);
        let Some(node) = host.nodes.iter().position(|node| NodeId(node.id) == order.from) else { return 0 };
        let wanted = (order.bytes.0 / PAGE).min(MOVED_IN_A_ROUND);
        // Where the kernel's own aging made the listing younger than our record, the oldest generations are what the order means.
        let state = self.law.cgroup(key(index));
        let listed = state.map_or(Duration::ZERO, |state| state.listed_age(order.from, order.bytes, now));
        let least_age = order.least_age.min(listed);
        let seq = |generations: &[GenerationSize]| {
            // The two newest are never evicted by the kernel.
            let newest = generations.last()?.seq;
            let old = generations.windows(2).take_while(|pair| pair[1].birth_age >= least_age);
            Some(old.last()?[0].seq.min(newest.checked_sub(2)?))
        };
        let mut done = Evicted::default();
        if let Some(seq) = seq(&host.generations(index, node)) {
            done = host.evict(index, node, seq, wanted, MOVED_IN_A_ROUND);
        }
        // Where the age does not matter and nothing old is left, two walks on end make everything old but what is touched in between.
        if order.least_age.is_zero() && done.moved < wanted / 8 {
            host.walk(index);
            host.walk(index);
            if let Some(seq) = seq(&host.generations(index, node)) {
                let Evicted { moved, young, stuck } =
                    host.evict(index, node, seq, wanted - done.moved, MOVED_IN_A_ROUND);
                done = Evicted { moved: done.moved + moved, young, stuck };
            }
        }
        if done == Evicted::default() {
            return 0;
        }
        let to = order.to.first().copied();
        let moved = Moved {
            from: order.from,
            to,
            asked: bytes(done.looked_at().min(wanted)),
            moved: bytes(done.moved),
            stayed: if done.young > done.stuck { Stayed::Touched } else { Stayed::Unknown },
            least_age: order.least_age,
        };
        self.law.demoted(key(index), &moved, Some(order.reason), now);
        done.moved
    }

    fn promote(&mut self, host: &mut Host, index: usize, order: &law::Promote) {
        let now = Instant(host.now);
        let Some(node) = host.nodes.iter().position(|node| NodeId(node.id) == order.from) else { return };
        let wanted = (order.bytes.0 / PAGE).min(MOVED_IN_A_ROUND);
        let done = host.promote(index, node, wanted, order.reason.hot_walks());
        let moved = Moved {
            from: order.from,
            to: Some(order.to),
            asked: bytes(wanted),
            moved: bytes(done),
            stayed: Stayed::Unknown,
            least_age: Duration::ZERO,
        };
        self.law.promoted(key(index), &moved, now);
    }

    /// `kernel.numa_balancing` and its rate limit, as the plan has them.
    fn set_kernel_promotion(&self, host: &mut Host, rate: tiering::ByteRate) {
        match self.settings.promoter {
            Promoter::Kernel => {
                host.numa_balancing = rate.0 > 0;
                host.promote_rate = (rate.0.div_ceil(1 << 20) << 20) as f64 / PAGE as f64;
            }
            Promoter::None | Promoter::Agent => host.numa_balancing = false,
        }
    }
}

impl Law for Thermocline {
    fn name(&self) -> String {
        "thermocline".to_owned()
    }

    fn act(&mut self, host: &mut Host) {
        let (at, now) = (host.now, Instant(host.now));
        if at < self.next {
            return;
        }
        if self.enforces.is_some_and(|from| at >= from) {
            self.enforce(host);
        }
        self.discover(host);
        self.law.observe_nodes(nodes(host));
        let due = self.due(at);
        for index in &due {
            self.observe(host, *index);
        }
        let plan = self.law.plan(now);
        self.short = plan.nodes.iter().any(|node| !node.shortfall.is_zero());
        for cgroup in &plan.cgroups {
            let ledger = &mut host.pods[cgroup.key.0 as usize].ledger;
            ledger.age = cgroup.effective_age.as_secs_f64();
            ledger.would_free = cgroup.would_free.0 / PAGE;
            ledger.note(at, cgroup.to_string());
        }
        for cgroup in due.iter().filter_map(|index| plan.of(key(*index))) {
            let ages = self.law.cgroup(cgroup.key).map(|known| known.ages(now)).unwrap_or_default();
            if let Some(known) = self.known.get_mut(&(cgroup.key.0 as usize)) {
                known.schedule(at, cgroup, &ages);
            }
        }
        for which in plan.order() {
            let cgroup = &plan.cgroups[which];
            let index = cgroup.key.0 as usize;
            // What was moved since its sample would be moved again.
            if cgroup.mode == Mode::Observe || self.known.get(&index).is_none_or(|known| known.sampled != at)
            {
                continue;
            }
            for order in &cgroup.demote {
                self.demote(host, index, order);
            }
            for order in &cgroup.promote {
                self.promote(host, index, order);
            }
            if let Some(known) = self.known.get_mut(&index) {
                known.next_look = at + INTERVAL;
            }
        }
        let looks = self.known.values().map(|known| known.next_look);
        self.next = looks.min().map_or(at + INTERVAL, |look| look.min(at + INTERVAL));
        self.set_kernel_promotion(host, plan.kernel_promotion);
    }

    fn restart(&mut self, now: Duration) {
        let of = |index: &usize| Some((*index, self.law.learned(key(*index), Instant(now))?));
        self.restarted = self.known.keys().filter_map(of).collect();
        self.law = law::Host::new(self.settings);
        self.known.clear();
    }
}

fn key(index: usize) -> CgroupKey {
    CgroupKey(index as u64)
}

fn bytes(pages: u64) -> Bytes {
    Bytes(pages * PAGE)
}

fn nodes(host: &Host) -> HostSample {
    let speed = |kind| match kind {
        NodeKind::Fast => Speed::Fast,
        NodeKind::Slow => Speed::Slow,
    };
    let sample = |(index, node): (usize, &crate::host::Node)| NodeSample {
        node: NodeId(node.id),
        speed: speed(node.kind),
        total: bytes(node.total),
        free: bytes(node.nr_free()),
        pcp: bytes(node.free() - node.nr_free()),
        min: bytes(node.min),
        low: bytes(node.low),
        high: bytes(node.high),
        reclaimable_file: bytes(host.cached_on(index)),
        targets: node
            .by_distance
            .iter()
            .map(|to| &host.nodes[*to])
            .filter(|to| to.kind != node.kind)
            .map(|to| NodeId(to.id))
            .collect(),
    };
    HostSample { at: Instant(host.now), nodes: host.nodes.iter().enumerate().map(sample).collect() }
}

fn sample(host: &mut Host, index: usize, walked: Option<&Walked>) -> CgroupSample {
    let stat = host.numa_stat(index);
    let mut nodes = BTreeMap::new();
    for node in 0..host.nodes.len() {
        let listed = host.generations(index, node);
        let (id, kind) = (NodeId(host.nodes[node].id), host.nodes[node].kind);
        let generations: Vec<Generation> = listed
            .iter()
            .map(|generation| Generation {
                seq: generation.seq,
                birth_age: generation.birth_age,
                anon: bytes(generation.anon),
                file: bytes(generation.file),
            })
            .collect();
        // What a walk found in the newest generation was in it before: no newcomer.
        let newcomers = walked.map(|walked| {
            let found = &walked[node];
            found.iter().rev().skip(1).map(|(_, pages)| pages).sum::<u64>()
        });
        nodes.insert(
            id,
            NodeUse {
                anon: bytes(stat.anon[node]),
                unmovable: bytes(stat.unevictable[node]),
                // As the agent's engines have it: of slow nodes they tell only what was touched.
                ages: (kind == NodeKind::Fast).then(|| AgeReading {
                    ages: AgeHistogram::of_generations(&generations).collect(),
                    walked: walked.is_some(),
                }),
                touched: newcomers.filter(|_| kind == NodeKind::Slow).map(bytes),
                kernel_promoted: (node == host.pods[index].home).then_some(bytes(stat.promoted)),
            },
        );
    }
    let pod = &host.pods[index];
    CgroupSample {
        at: Instant(host.now),
        nodes,
        current: bytes(stat.anon.iter().chain(&stat.file).sum()),
        clean_file: bytes(stat.file.iter().sum()),
        may_swap: false,
        blind: false,
        limits: Limits { low: Some(bytes(pod.low)), max: pod.max_pages().map(bytes), ..Limits::default() },
        stalls: StallTotals { memory: Some(Duration::ZERO), io: Some(Duration::ZERO) },
    }
}
