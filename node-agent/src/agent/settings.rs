//! Settings of the whole host that the agent holds while it works: who promotes, and when the kernel demotes.

use std::path::Path;
use std::time::Duration;

use host::lru_gen::lru_gen_enabled;
use host::numa_balancing::NumaBalancing;
use tiering::{ByteRate, Instant};

use super::Agent;
use crate::config::KernelDemotion;
use crate::engine::Engine;
use crate::promoter::Promoter;
use crate::snapshot::Condition;
use crate::state::{StateError, Tunable};
use crate::tunables;

/// `numa_balancing_promote_rate_limit_MBps` as kernels boot with it: no bound.
const KERNEL_PROMOTE_RATE: u64 = 65_536;

/// Switching NUMA balancing has every processor of the host change its code.
const LEAST_BETWEEN_SWITCHES: Duration = Duration::from_secs(10);

/// What the plans have the kernel promote.
#[derive(Debug, Default)]
pub(super) struct KernelPromotion {
    /// By the last plan, a second and node.
    pub(super) planned: Option<ByteRate>,
    is_stopped: bool,
    switched: Instant,
}

impl KernelPromotion {
    /// Whether it is to be stopped now.
    fn stops(&mut self, now: Instant) -> bool {
        let stops = self.planned == Some(ByteRate(0));
        if stops != self.is_stopped && now.since(self.switched) >= LEAST_BETWEEN_SWITCHES {
            (self.is_stopped, self.switched) = (stops, now);
        }
        self.is_stopped
    }
}

impl Agent {
    /// Sets who promotes, and keeps it so. Where the plan has the kernel promote nothing it is off: no rate stops it while a fast node has
    /// room.
    pub(super) fn hold_numa_balancing(&mut self, now: Instant) -> Result<(), StateError> {
        let Some(mut wanted) = self.promoter.numa_balancing() else { return Ok(()) };
        if self.promoter == Promoter::Kernel && self.kernel_promotion.stops(now) {
            wanted = NumaBalancing::OFF;
        }
        let wanted = wanted.bits().to_string();
        let anyone = self.has_promoted();
        self.hold(Tunable::NumaBalancing, anyone.then_some(wanted.as_str()))
    }

    /// Bounds the kernel's promotion by what the plan has it move. It knows one bound for each node, and no cgroup.
    pub(super) fn hold_promote_rate(&mut self) -> Result<(), StateError> {
        let anyone = self.promoter == Promoter::Kernel && self.has_promoted();
        let planned = match self.kernel_promotion.planned {
            // What an agent before us set stands until there is a plan.
            None if anyone => return Ok(()),
            planned => planned.filter(|_| anyone),
        };
        // The file is in MiB, whatever its name says.
        // The bound that stood before ours: an admin's is not raised.
        let original = self.original(Tunable::PromoteRateLimit).and_then(|limit| limit.parse().ok());
        let most = original.unwrap_or(KERNEL_PROMOTE_RATE);
        let wanted = planned.map(|rate| (rate.0 >> 20).max(1).min(most).to_string());
        self.hold(Tunable::PromoteRateLimit, wanted.as_deref())
    }

    /// Whether there is anyone whose memory is to be brought back.
    fn has_promoted(&self) -> bool {
        self.managed.values().any(|managed| managed.enforced() && managed.policy.promote.enabled)
    }

    /// What stood before ours.
    fn original(&self, tunable: Tunable) -> Option<String> {
        let record = self.state.as_ref().and_then(|state| state.tunable(tunable));
        match record {
            Some(record) => Some(record.original.clone()),
            None => tunables::read(&self.ground.roots, tunable).ok().flatten(),
        }
    }

    /// Lets the kernel demote on its own where the configuration says so. Otherwise it demotes only what we evict
    /// (docs/decisions/kernel-demotion.md).
    pub(super) fn hold_demotion(&mut self) -> Result<(), StateError> {
        if matches!(self.engine, None | Some(Engine::Pages(_))) {
            return Ok(());
        }
        let on = self.config.kernel_demotion == KernelDemotion::Always
            && self.managed.values().any(|managed| managed.enforced());
        self.hold(Tunable::DemotionEnabled, on.then_some("true"))
    }

    /// Keeps DAMON's own statistics off while accessed bits tell the engine what is cold: two that clear them mislead each other
    /// (docs/decisions/damon-stat.md); and while a kdamond of ours runs, beside which it can't. So it comes after what may stop that.
    pub(super) fn hold_damon_stat(&mut self) -> Result<(), StateError> {
        let needs = self.damon.is_some() || self.engine.as_ref().is_some_and(Engine::reads_accessed_bits);
        let off = needs && self.managed.values().any(|managed| managed.enforced());
        self.hold(Tunable::DamonStat, off.then_some("false"))
    }

    /// Has walks leave accessed bits of directories alone where a walk of one fast node would hide what is touched on another.
    pub(super) fn hold_lru_gen_enabled(&mut self) -> Result<(), StateError> {
        let hides = self.engine.as_ref().is_some_and(Engine::hides_touches);
        let is_held =
            self.state.as_ref().is_some_and(|state| state.tunable(Tunable::LruGenEnabled).is_some());
        // Most hosts have nothing to do with it: not even a look a round.
        if !hides && !is_held {
            return Ok(());
        }
        let acts = hides && self.managed.values().any(|managed| managed.enforced());
        let original = self.original(Tunable::LruGenEnabled).filter(|_| acts);
        let path = Path::new(Tunable::LruGenEnabled.name());
        let original = original.and_then(|text| lru_gen_enabled(&text, path).ok());
        let wanted = original.map(|enabled| enabled.without_directories().to_string());
        self.hold(Tunable::LruGenEnabled, wanted.as_deref())
    }

    /// Keeps a setting of the whole host at a value, or as it was. The present value is compared each time; where another
    /// writer set one in the place of ours, it is left to them for as long as this agent runs.
    pub(super) fn hold(&mut self, tunable: Tunable, wanted: Option<&str>) -> Result<(), StateError> {
        let Some(state) = self.state.as_mut().filter(|_| !self.lost.contains(&tunable)) else {
            return Ok(());
        };
        let name = tunable.name();
        match tunables::hold(&self.ground.roots, state, tunable, wanted) {
            Ok(None) => drop(self.unheld.remove(&tunable)),
            Ok(Some(present)) => {
                tracing::warn!(present, "{name} was changed by another writer; it is left to them");
                *self.totals.drift.entry(name).or_default() += 1;
                self.lost.insert(tunable);
                let lost: Vec<&str> = self.lost.iter().map(|tunable| tunable.name()).collect();
                let message = format!("{} is left to another writer, who changed it", lost.join(" and "));
                let condition = Condition { kind: "StandingDown", status: true, reason: "Fight", message };
                self.conditions.insert(condition.kind, condition);
            }
            Err(tunables::TunableError::State(error)) => return Err(error),
            Err(error) => {
                if self.unheld.insert(tunable) {
                    tracing::warn!(%error, "{name} can't be held; each round tries again");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_that_is_planned_to_stop_stops_and_is_switched_every_ten_seconds_at_most() {
        let mut promotion = KernelPromotion::default();
        let mut stops = |planned, second| {
            promotion.planned = planned;
            promotion.stops(Instant(Duration::from_secs(second)))
        };
        assert!(!stops(None, 20));
        assert!(!stops(Some(ByteRate(1)), 21));
        assert!(stops(Some(ByteRate(0)), 22));
        assert!(stops(Some(ByteRate(1)), 31));
        assert!(!stops(Some(ByteRate(1)), 32));
        assert!(!stops(Some(ByteRate(0)), 41));
        assert!(stops(Some(ByteRate(0)), 42));
    }
}
