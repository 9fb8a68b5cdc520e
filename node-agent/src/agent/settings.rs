//! Settings of the whole host that the agent holds while it works: who promotes, and when the kernel demotes.

use super::Agent;
use crate::config::KernelDemotion;
use crate::engine::Engine;
use crate::managed::Managed;
use crate::snapshot::Condition;
use crate::state::{StateError, Tunable};
use crate::tunables;

impl Agent {
    /// Sets who promotes, and keeps it so.
    pub(super) fn hold_numa_balancing(&mut self) -> Result<(), StateError> {
        let Some(wanted) = self.promoter.numa_balancing() else { return Ok(()) };
        let anyone =
            self.managed.values().any(|managed| managed.enforced() && managed.policy.promote.enabled);
        let wanted = wanted.bits().to_string();
        self.hold(Tunable::NumaBalancing, anyone.then_some(wanted.as_str()))
    }

    /// Lets the kernel demote on its own where the configuration says so. Otherwise it demotes only what we evict
    /// (docs/decisions/kernel-demotion.md).
    pub(super) fn hold_demotion(&mut self) -> Result<(), StateError> {
        if matches!(self.engine, None | Some(Engine::Pages(_))) {
            return Ok(());
        }
        let on = self.config.kernel_demotion == KernelDemotion::Always
            && self.managed.values().any(Managed::enforced);
        self.hold(Tunable::DemotionEnabled, on.then_some("true"))
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
