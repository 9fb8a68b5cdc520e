//! Settings of the whole host that the agent holds while it works: who promotes, and when the kernel demotes.

use super::Agent;
use crate::config::KernelDemotion;
use crate::engine::Engine;
use crate::promoter::Promoter;
use crate::snapshot::Condition;
use crate::state::{StateError, Tunable};
use crate::tunables;

/// `numa_balancing_promote_rate_limit_MBps` as kernels boot with it: no bound.
const KERNEL_PROMOTE_RATE: u64 = 65_536;

impl Agent {
    /// Sets who promotes, and keeps it so.
    pub(super) fn hold_numa_balancing(&mut self) -> Result<(), StateError> {
        let Some(wanted) = self.promoter.numa_balancing() else { return Ok(()) };
        let anyone =
            self.managed.values().any(|managed| managed.enforced() && managed.policy.promote.enabled);
        let wanted = wanted.bits().to_string();
        self.hold(Tunable::NumaBalancing, anyone.then_some(wanted.as_str()))
    }

    /// Bounds the kernel's promotion by what the policies allow together. It knows one bound for each node, and no cgroup.
    pub(super) fn hold_promote_rate(&mut self) -> Result<(), StateError> {
        let promoting = self
            .managed
            .values()
            .filter(|managed| self.promoter == Promoter::Kernel && managed.enforced())
            .map(|managed| &managed.policy.promote)
            .filter(|promote| promote.enabled);
        let rate = promoting.map(|promote| promote.max_rate.0).reduce(u64::saturating_add);
        // The file is in MiB, whatever its name says.
        let most = self.original_promote_rate().unwrap_or(KERNEL_PROMOTE_RATE);
        let wanted = rate.map(|rate| (rate >> 20).max(1).min(most).to_string());
        self.hold(Tunable::PromoteRateLimit, wanted.as_deref())
    }

    /// The bound that stood before ours: an admin's is not raised.
    fn original_promote_rate(&self) -> Option<u64> {
        let tunable = Tunable::PromoteRateLimit;
        let record = self.state.as_ref().and_then(|state| state.tunable(tunable));
        let original = match record {
            Some(record) => Some(record.original.clone()),
            None => tunables::read(&self.ground.roots, tunable).ok().flatten(),
        };
        original?.parse().ok()
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
