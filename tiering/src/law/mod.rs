//! One decision for the whole host: sample, histograms, age, water-fill, guards, plan.
//!
//! # Problem
//! Memory that nobody misses should be on slow nodes, so that the host has DRAM to give, within what each policy promises its cgroup.
//! What is short is one node, not the host; who should give is whoever misses it least; what is asked is not always what moves.
//!
//! # Approach
//! [`Host`] remembers; [`Host::plan`] decides, from samples alone, with no clock of its own:
//!
//! 1. [`Host::observe_nodes`] and [`Host::observe`]: samples in. Each cgroup's ages by node are its own record ([`ledger`]), and what was
//!    touched at which age makes the age that counts as cold ([`touches`]).
//! 2. [`Host::plan`]: what each node lacks ([`lines`]) is taken from the coldest first ([`headroom`], [`fill`]); then, cgroup by cgroup ([`make`]), ceilings and what is
//!    cold within portions, guards and rates ([`lower`], [`portion`]); then what comes up ([`raise`]), unless it only goes to and fro ([`churn`]).
//! 3. [`Host::demoted`], [`Host::promoted`]: what was really moved; what stayed is learned ([`bound`]) and changes the next plan.
//!
//! # Properties
//! Each module states its own; `tests/law.rs` has those of the whole.

mod ahead;
mod bound;
mod cgroup;
mod churn;
mod exchange;
mod fill;
mod grant;
mod headroom;
mod learned;
mod ledger;
mod limit;
mod lines;
mod lower;
mod make;
mod on_node;
mod plan;
mod portion;
mod raise;
mod sample;
mod touches;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

pub use ahead::{Ahead, Reclaim, Uncharged};
pub use cgroup::{CgroupState, Taught};
pub use grant::{Claim, Pace, by_leaf, grants};
pub use learned::Learned;
pub use ledger::Ledger;
pub use plan::{CgroupPlan, Demote, NodePlan, Plan, Promote, PromoteReason};
pub use sample::{
    AgeReading, Barrier, CgroupKey, CgroupSample, HostSample, Limits, Moved, NodeSample, NodeUse, Promoter,
    Reach, Speed, Stayed,
};
pub use touches::TouchLaw;

use crate::node::NodeId;
use crate::policy::Policy;
use crate::reason::DemoteReason;
use crate::token_bucket::TokenBucket;
use crate::units::{ByteRate, Bytes, Instant};

/// What holds for the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who promotes.
    pub promoter: Promoter,
    /// Most bytes per second that we move from, or to, one fast node, whatever the policies.
    pub node_rate: ByteRate,
    /// Most bytes per second that we move over the link of one slow node, both ways together.
    pub link_rate: ByteRate,
    /// Size of a page.
    pub page: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            promoter: Promoter::None,
            node_rate: ByteRate::mib_per_s(2048),
            link_rate: ByteRate::mib_per_s(1024),
            page: 4096,
        }
    }
}

/// A node and what is remembered of it.
#[derive(Clone, Debug)]
struct NodeState {
    sample: NodeSample,
    bucket: TokenBucket,
    /// Since when less than its low watermark is available.
    urgent_since: Option<Instant>,
}

/// Everything that is known of a host.
#[derive(Clone, Debug)]
pub struct Host {
    settings: Settings,
    nodes: BTreeMap<NodeId, NodeState>,
    /// In boxes: a tree keeps room for eleven values where six are.
    cgroups: BTreeMap<CgroupKey, Box<CgroupState>>,
    plans: u64,
}

impl Host {
    /// A host of which nothing is known yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, nodes: BTreeMap::new(), cgroups: BTreeMap::new(), plans: 0 }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other settings; what was learned stays.
    pub fn set_settings(&mut self, settings: Settings, now: Instant) {
        self.settings = settings;
        for node in self.nodes.values_mut() {
            node.bucket.set_rate(rate_of(&settings, node.sample.speed), now);
        }
    }

    /// A cgroup just found, with what is known of it or of a replica of its workload. Known already, it takes the policy.
    pub fn add(
        &mut self,
        key: CgroupKey,
        policy: impl Into<Arc<Policy>>,
        learned: Option<&Learned>,
        now: Instant,
    ) {
        let policy = policy.into();
        match self.cgroups.get_mut(&key) {
            Some(state) => state.set_policy(policy, now),
            None => {
                self.cgroups.insert(key, Box::new(CgroupState::new(policy, learned, now)));
            }
        }
    }

    /// A cgroup that is gone or left alone from now on; what was learned of it.
    pub fn remove(&mut self, key: CgroupKey, now: Instant) -> Option<Learned> {
        self.cgroups.remove(&key).map(|state| state.learned(now))
    }

    /// Takes a new policy and keeps what was learned.
    pub fn set_policy(&mut self, key: CgroupKey, policy: Arc<Policy>, now: Instant) {
        if let Some(state) = self.cgroups.get_mut(&key) {
            state.set_policy(policy, now);
        }
    }

    /// Where its memory may be, and what may be done with it.
    pub fn set_reach(&mut self, key: CgroupKey, reach: Reach) {
        if let Some(state) = self.cgroups.get_mut(&key) {
            state.reach = reach;
        }
    }

    /// Whether another reason than its policy forbids to act on it: it is decided about as if observed.
    pub fn set_held(&mut self, key: CgroupKey, held: bool) {
        if let Some(state) = self.cgroups.get_mut(&key) {
            state.held = held;
        }
    }

    /// What is known of a cgroup.
    #[must_use]
    pub fn cgroup(&self, key: CgroupKey) -> Option<&CgroupState> {
        self.cgroups.get(&key).map(Box::as_ref)
    }

    /// What was learned of a cgroup, to be kept for whoever comes after.
    #[must_use]
    pub fn learned(&self, key: CgroupKey, now: Instant) -> Option<Learned> {
        self.cgroups.get(&key).map(|state| state.learned(now))
    }

    /// Takes a reading of all nodes.
    pub fn observe_nodes(&mut self, sample: HostSample) {
        let now = sample.at;
        let mut before = core::mem::take(&mut self.nodes);
        for node in sample.nodes {
            let rate = rate_of(&self.settings, node.speed);
            let known = before.remove(&node.node);
            let urgent_since =
                node.is_urgent().then(|| known.as_ref().and_then(|known| known.urgent_since).unwrap_or(now));
            let bucket = known.map_or_else(|| TokenBucket::new(rate, now), |known| known.bucket);
            self.nodes.insert(node.node, NodeState { sample: node, bucket, urgent_since });
        }
    }

    /// Takes a reading of one cgroup. Memory on nodes that are not known is left alone.
    pub fn observe(&mut self, key: CgroupKey, sample: CgroupSample) -> Taught {
        let nodes = &self.nodes;
        let Some(state) = self.cgroups.get_mut(&key) else { return Taught::default() };
        state.observe(sample, |node| nodes.get(&node).map(|node| node.sample.speed))
    }

    /// What was really moved of an order to demote; for no reason of a plan's where its tiers are changed.
    pub fn demoted(&mut self, key: CgroupKey, moved: &Moved, reason: Option<DemoteReason>, now: Instant) {
        self.spend(moved, now);
        if let Some(state) = self.cgroups.get_mut(&key) {
            state.demoted(moved, reason, now);
        }
    }

    /// What we really promoted. What the kernel promotes is in the samples.
    pub fn promoted(&mut self, key: CgroupKey, moved: &Moved, now: Instant) {
        self.spend(moved, now);
        if let Some(state) = self.cgroups.get_mut(&key) {
            state.promoted(moved, now);
        }
    }

    fn spend(&mut self, moved: &Moved, now: Instant) {
        let nodes = [Some(moved.from), moved.to];
        for (node, came) in nodes.into_iter().zip([false, true]) {
            let Some(state) = node.and_then(|node| self.nodes.get_mut(&node)) else { continue };
            state.bucket.spend(moved.moved, now);
            let free = &mut state.sample.free;
            *free = if came { *free - moved.moved } else { *free + moved.moved };
        }
    }

    /// What a cgroup's rates let pass now, down and up: for moves that are no plan's, as a change of tiers.
    pub fn rates(&mut self, key: CgroupKey, now: Instant) -> (Bytes, Bytes) {
        self.cgroups.get_mut(&key).map_or((Bytes::ZERO, Bytes::ZERO), |state| {
            (state.demote_bucket.available(now), state.promote_bucket.available(now))
        })
    }

    /// Room of a node as of its last reading, less what we moved there since.
    #[must_use]
    pub fn room(&self, node: NodeId) -> Bytes {
        self.nodes.get(&node).map_or(Bytes::ZERO, |node| node.sample.room())
    }

    /// Time between two walks of a cgroup's page tables.
    #[must_use]
    pub fn walk_every(&self, key: CgroupKey) -> Option<Duration> {
        self.cgroups.get(&key).map(|state| make::walk_every(state, state.sums()))
    }

    /// What bounds the promotion of each cgroup that may have something brought up, for a promoter that works by itself.
    pub fn claims(&mut self, now: Instant) -> Vec<(CgroupKey, Claim)> {
        raise::claims(self, now)
    }

    /// What to do now. It changes nothing but for rates, which are counted when [`Host::demoted`] says what was moved.
    pub fn plan(&mut self, now: Instant) -> Plan {
        self.plans += 1;
        make::plan(self, now)
    }
}

fn rate_of(settings: &Settings, speed: Speed) -> ByteRate {
    match speed {
        Speed::Fast => settings.node_rate,
        Speed::Slow => settings.link_rate,
    }
}
