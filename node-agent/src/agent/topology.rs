//! The host's tiers, read again: memory comes online late, and nodes come and go.

use std::time::Duration;

use host::numa_topology::{Topology, read_topology};
use tiering::{Instant, TierMap};

use super::{Agent, Ground};
use crate::exit::{ExitCode, Failure};
use crate::managed::Managed;
use crate::snapshot::Condition;
use crate::state::{StateError, Tunable};
use crate::tier_map::{in_words, present_tier_map};

/// How old what is known of the host's nodes may be. A look costs a few small reads; only a change costs more.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// On a host without slow memory what is asked for by `observeWithoutSlowTier` is read this often.
pub(super) const WITHOUT_SLOW_TIER: Duration = Duration::from_mins(1);

/// What the tiers were made of, and when that was last compared with what the kernel shows.
#[derive(Debug)]
pub(super) struct Seen {
    topology: Topology,
    at: Instant,
    /// Since when the tiers are what they are.
    changed: Instant,
}

impl Seen {
    pub(super) fn new(topology: Topology) -> Self {
        Self { topology, at: Instant::default(), changed: Instant::default() }
    }
}

/// What the tiers are made of, and the tiers. Of configured nodes, those that are there.
pub(super) fn look(
    sys: &std::path::Path,
    configured: &[tiering::TierOverride],
) -> Result<(Topology, TierMap), Failure> {
    // First what is compared later: a node that comes in between is then seen as a change.
    let unexpected = |error: host::Error| Failure::new(ExitCode::Unexpected, error.to_string());
    let topology = read_topology(sys).map_err(unexpected)?;
    let facts = host::tiers::read_tier_facts(sys).map_err(unexpected)?;
    let tiers = present_tier_map(&facts, configured)
        .map_err(|error| Failure::new(ExitCode::NoLowerTier, error.to_string()))?;
    Ok((topology, tiers))
}

impl Agent {
    /// Looks whether nodes came, went, or changed their tier, if that is due, and goes on with what is there now.
    pub(super) fn look_at_topology(&mut self, now: Instant) -> Result<(), StateError> {
        if now.since(self.seen.at) < LOOK_EVERY {
            return Ok(());
        }
        self.seen.at = now;
        match read_topology(&self.ground.roots.sys) {
            Ok(topology) if topology == self.seen.topology => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the host's nodes can't be read; what was known is used");
                return Ok(());
            }
        }
        match look(&self.ground.roots.sys, &self.config.tiers) {
            Ok((topology, tiers)) => {
                self.seen.topology = topology;
                if tiers == self.ground.tiers { Ok(()) } else { self.take_tiers(tiers, now) }
            }
            // Nodes that are on their way are read at the next look.
            Err(failure) => {
                tracing::warn!("the host's tiers can't be read; what was known is used: {failure}");
                Ok(())
            }
        }
    }

    /// Goes on with other tiers. What was known of cgroups by node is read anew.
    fn take_tiers(&mut self, tiers: TierMap, now: Instant) -> Result<(), StateError> {
        tracing::info!("the host's tiers changed: {}", in_words(&tiers));
        self.seen.changed = now;
        let roots = self.ground.roots.clone();
        self.ground = Ground::new(roots, tiers);
        // What engines know of nodes is of others.
        (self.engine, self.mover) = (None, None);
        self.choose_engine();
        if !self.ground.tiers.has_lower_tier() {
            self.hold(Tunable::NumaBalancing, None)?;
            self.hold(Tunable::DemotionEnabled, None)?;
        }
        for managed in self.managed.values_mut() {
            managed.end_relocation();
            managed.next_look = now;
        }
        Ok(())
    }

    /// Says whether there is slow memory.
    pub(super) fn note_tiers(&mut self) {
        let status = self.ground.tiers.has_lower_tier();
        let (reason, message) = if status {
            ("Found", in_words(&self.ground.tiers))
        } else {
            let waiting = "no memory node is slower than DRAM yet: nothing is looked at or moved; memory that comes online is used within seconds";
            ("NoSlowTier", format!("{waiting} ({})", in_words(&self.ground.tiers)))
        };
        let condition = Condition { kind: "TiersAvailable", status, reason, message };
        let known = self.conditions.get(condition.kind);
        if !status && known.is_none_or(|known| known.message != condition.message) {
            tracing::warn!("{}", condition.message);
        }
        self.conditions.insert(condition.kind, condition);
    }

    /// Whether a cgroup is to be looked at at all. Where nothing can ever be moved it is looked at once, and then only for
    /// limits that are to be kept, unless more is asked for.
    pub(super) fn counts(&self, managed: &Managed) -> bool {
        self.looks_again()
            || self
                .law
                .cgroup(managed.key())
                .and_then(|known| known.last())
                .is_none_or(|last| last.at < self.seen.changed)
            || (managed.enforced() && managed.has_limits())
    }

    /// Whether cgroups are looked at again and again.
    pub(super) fn looks_again(&self) -> bool {
        self.ground.tiers.has_lower_tier() || self.observes() || self.config.observe_without_slow_tier
    }

    /// Whether looks may clear accessed bits. On a host without slow memory only the command `observe` does.
    pub(super) fn walks(&self) -> bool {
        self.ground.tiers.has_lower_tier() || self.observes()
    }

    /// Whether this is the command `observe`, which looks whatever the host has.
    pub(super) fn observes(&self) -> bool {
        self.grain == super::Grain::Processes
    }
}
