//! Which engine works on this host, and who promotes: tried at the start, and again where there is none or it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use host::probe::{Feature, ProbeReport, State, Tries};
use tiering::{DemotionSupport, Instant, Mode};

use super::Agent;
use crate::engine::{Engine, PagesEngine};
use crate::promoter::{Chosen, Damon, Promoter};
use crate::snapshot::{Condition, FeatureView};

/// Where an engine fails, what the host allows is tried again this soon.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Where there is no engine: an admin may have done what the probe asks for.
const WITHOUT_ENGINE: Duration = Duration::from_mins(5);

const NO_SLOW_TIER: &str = "no memory node is slower than DRAM";

const PRESSURE_KNOWN: &str = "PressureKnown";

/// What is missing where the kernel does not say how long tasks stall.
fn pressure_unknown(probe: &ProbeReport) -> Option<Condition> {
    let row = probe.row(Feature::Psi).filter(|row| row.state != State::Available)?;
    let remedy = row.remedy.as_deref().unwrap_or("nothing");
    let message = format!(
        "the kernel does not say how long tasks wait for memory ({}): only what is touched on slow nodes holds demotion, and \
         `memoryHigh` in mode `Pressure` does nothing; to do: {remedy}",
        row.detail
    );
    Some(Condition { kind: PRESSURE_KNOWN, status: false, reason: "NoPressure", message })
}

impl Agent {
    /// Tries again what the host allows, if that is due.
    pub(super) fn choose_engine_again(&mut self, now: Instant) {
        let tried = now.since(self.probed);
        let damon_due =
            self.damon_failed.as_ref().is_some_and(|(_, failed)| now.since(*failed) >= WITHOUT_ENGINE);
        // Without slow memory there is nothing to try for; that it came is noticed by itself.
        let may_help = self.ground.tiers.has_lower_tier();
        let is_due = damon_due
            || may_help && self.engine.is_none() && tried >= WITHOUT_ENGINE
            || self.engine_failed && tried >= AFTER_FAILURE;
        if is_due {
            if damon_due {
                self.damon_failed = None;
            }
            self.choose_engine();
        }
    }

    /// Tries what the host allows, and chooses by that. An engine that is chosen again goes on with what it knows.
    pub(super) fn choose_engine(&mut self) {
        self.probed = self.now();
        self.engine_failed = false;
        self.note_tiers();
        let writes = self.state.is_some();
        // A cluster may assign a policy that acts at any time.
        let acts = writes
            && (self.assignment.is_some()
                || self.config.policies.iter().any(|entry| entry.policy.mode == Mode::Enforce));
        let tries = if acts { Tries::All } else { Tries::NoCgroupWrite };
        let probe = host::probe::run(&self.ground.roots, self.root.mount(), tries);
        let engine = if self.ground.tiers.has_lower_tier() {
            let engine = Engine::choose(self.config.engine, &probe, &self.ground);
            // The command `observe` asks for ages, whoever could move.
            engine.or_else(|missing| {
                if self.observes() { Engine::observing(&probe).map_err(|_| missing) } else { Err(missing) }
            })
        } else if self.looks_again() {
            Engine::observing(&probe).map_err(|missing| format!("{NO_SLOW_TIER}; ages of memory: {missing}"))
        } else {
            Err(NO_SLOW_TIER.to_owned())
        };
        let failed = self.damon_failed.as_ref().map(|(why, _)| why.as_str());
        let damon = Damon::of(self.config.promoter, failed);
        let chosen = Promoter::choose(engine.as_ref().ok(), &probe, &self.ground.tiers, writes, damon);
        self.promoter = chosen.promoter;
        let settings = tiering::law::Settings { promoter: self.promoter.of_law(), ..*self.law.settings() };
        self.law.set_settings(settings, self.now());
        let same = self
            .engine
            .as_ref()
            .is_some_and(|known| engine.as_ref().is_ok_and(|new| new.name() == known.name()));
        if !same {
            self.mover = match engine {
                Ok(Engine::Pages(_)) => None,
                _ if writes && self.ground.tiers.has_lower_tier() => {
                    PagesEngine::new(&probe, &self.ground).ok()
                }
                _ => None,
            };
            self.accept_engine(engine);
        }
        self.tell_promoter(&chosen);
        self.tell_pressure(&probe);
        self.announce(&probe);
    }

    /// Says that stalls can't guard where the kernel does not measure them.
    fn tell_pressure(&mut self, probe: &ProbeReport) {
        let Some(condition) = pressure_unknown(probe) else {
            self.conditions.remove(PRESSURE_KNOWN);
            return;
        };
        if self.conditions.insert(condition.kind, condition.clone()).is_none() {
            tracing::warn!("{}", condition.message);
        }
    }

    /// Says who promotes, and why not another.
    fn tell_promoter(&mut self, chosen: &Chosen) {
        let Chosen { promoter, words } = chosen;
        let condition = Condition {
            kind: "Promotes",
            status: *promoter != Promoter::None,
            reason: promoter.reason(),
            message: words.clone(),
        };
        if self.conditions.get(condition.kind).is_none_or(|known| known.message != condition.message) {
            tracing::info!(promoter = promoter.as_str(), "promotion: {words}");
        }
        self.conditions.insert(condition.kind, condition);
    }

    /// Takes an engine, or what is missing for any.
    fn accept_engine(&mut self, engine: Result<Engine, String>) {
        let promoter = self.promoter.as_str();
        let (status, reason, message) = match &engine {
            Ok(engine) if !self.ground.tiers.has_lower_tier() => (
                false,
                "OnlyLooks",
                format!("{NO_SLOW_TIER}; engine {} tells how old memory is", engine.name()),
            ),
            Ok(engine) => {
                (true, "Chosen", format!("engine {} moves pages down; promotion: {promoter}", engine.name()))
            }
            Err(missing) => (false, "NoEngine", missing.clone()),
        };
        let condition = Condition { kind: "EngineAvailable", status, reason, message };
        if self.conditions.get(condition.kind).is_none_or(|known| known.message != condition.message) {
            match &engine {
                Ok(engine) => tracing::info!(engine = engine.name(), promoter, "engine chosen"),
                Err(missing) => tracing::warn!("no engine: {missing}; nothing will be moved"),
            }
        }
        self.conditions.insert(condition.kind, condition);
        self.engine = engine.ok();
        let support = match self.ground.tiers.demotion_support() {
            DemotionSupport::Kernel => Condition {
                kind: "KernelDemotes",
                status: true,
                reason: "Tiers",
                message: "the kernel demotes between these tiers".to_owned(),
            },
            DemotionSupport::AgentOnly { reason } => Condition {
                kind: "KernelDemotes",
                status: false,
                reason: "OneKernelTier",
                message: reason.clone(),
            },
        };
        self.conditions.insert(support.kind, support);
    }

    /// Publishes what was found.
    fn announce(&self, probe: &ProbeReport) {
        let mut features = BTreeMap::new();
        for row in &probe.rows {
            let name = serde_json::to_value(row.feature).ok();
            let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown");
            let message = match &row.remedy {
                Some(remedy) => format!("{}: {remedy}", row.detail),
                None => row.detail.clone(),
            };
            let available = row.state == State::Available;
            features.insert(name.to_owned(), FeatureView { available, message });
        }
        self.published.update(|snapshot| {
            snapshot.engine = self.engine.as_ref().map_or("none", Engine::name);
            snapshot.promoter = self.promoter;
            snapshot.kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
            snapshot.kernel_features = features;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::probe::ProbeRow;

    #[test]
    fn a_kernel_that_does_not_measure_stalls_is_told_of_with_the_remedy_and_another_is_not() {
        let probe = |state| {
            let (detail, remedy) =
                ("there is no pressure/memory".to_owned(), Some("boot with psi=1".to_owned()));
            let rows = vec![ProbeRow { feature: Feature::Psi, state, detail, remedy }];
            ProbeReport { rows, lru_gen_syntax: None, reclaim_syntax: None }
        };
        assert!(pressure_unknown(&probe(State::Available)).is_none());
        let told = pressure_unknown(&probe(State::Missing)).unwrap();
        assert!(!told.status && told.message.contains("there is no pressure/memory"), "{told:?}");
        assert!(told.message.ends_with("to do: boot with psi=1"), "{told:?}");
        assert!(!told.message.contains("  "), "{told:?}");
    }
}
