//! What `run` sets for the whole host, told before it does: for `check`.

use std::path::Path;

use host::lru_gen::read_lru_gen_enabled;
use host::probe::Tries;
use host::roots::Roots;
use tiering::Mode;

use crate::config::{Config, KernelDemotion};
use crate::engine::{Engine, Ground};
use crate::promoter::{Damon, Promoter};
use crate::state::Tunable;
use crate::tier_map::tier_map;
use crate::tunables;

/// One line for each setting, or why it can't be told. `in_cluster`: policies come later, and may act.
#[must_use]
pub fn told(roots: Roots, cgroup_root: &Path, config: &Config, in_cluster: bool) -> Vec<String> {
    let acts = |entry: &crate::config::PolicyEntry| entry.policy.mode == Mode::Enforce;
    if !in_cluster && !config.policies.iter().any(acts) {
        return vec!["nothing: no policy acts".to_owned()];
    }
    let facts = host::tiers::read_tier_facts(&roots.sys).map_err(|error| error.to_string());
    let tiers = facts.and_then(|facts| tier_map(&facts, &config.tiers).map_err(|error| error.to_string()));
    let tiers = match tiers {
        Ok(tiers) if tiers.has_lower_tier() => tiers,
        Ok(_) => {
            return vec!["nothing here: no memory node of this host is slower than the others".to_owned()];
        }
        Err(error) => return vec![format!("nothing here: {error}")],
    };
    let probe = host::probe::run(&roots, cgroup_root, Tries::All);
    let ground = Ground { fast: tiers.fast_nodes().clone(), slow: tiers.slow_nodes().clone(), roots, tiers };
    let engine = match Engine::choose(config.engine, &probe, &ground) {
        Ok(engine) => engine,
        Err(missing) => return vec![format!("nothing as things are: {missing}")],
    };
    let promoter =
        Promoter::choose(Some(&engine), &probe, &ground.tiers, true, Damon::of(config.promoter, None))
            .promoter;
    let wants_promotion =
        in_cluster || config.policies.iter().any(|entry| acts(entry) && entry.policy.promote.enabled);
    let demotion = match (&engine, config.kernel_demotion) {
        (Engine::Pages(_), _) => None,
        (_, KernelDemotion::WhileActing) => Some("while it moves memory, put back each time"),
        (_, KernelDemotion::Always) => Some("put back at the end"),
    };
    let numa_balancing = promoter.numa_balancing().filter(|_| wants_promotion);
    let damon_stat = (engine.reads_accessed_bits() || (promoter == Promoter::Damon && wants_promotion))
        .then(|| tunables::read(&ground.roots, Tunable::DamonStat).ok().flatten())
        .flatten();
    let lru_gen = engine.hides_touches().then(|| read_lru_gen_enabled(&ground.roots.sys).ok().flatten());
    let lru_gen = lru_gen.flatten().map(|enabled| enabled.without_directories().to_string());
    [
        lru_gen.map(|enabled| (Tunable::LruGenEnabled, enabled, "put back at the end")),
        damon_stat.map(|_| (Tunable::DamonStat, false.to_string(), "put back at the end")),
        numa_balancing.map(|mode| (Tunable::NumaBalancing, mode.bits().to_string(), "put back at the end")),
        demotion.map(|until| (Tunable::DemotionEnabled, true.to_string(), until)),
    ]
    .into_iter()
    .flatten()
    .map(|(tunable, value, until)| {
        let name = tunable.name();
        match tunables::read(&ground.roots, tunable) {
            Ok(Some(present)) if present == value => format!("{name} stays {value}"),
            Ok(Some(present)) => format!("{name} {value} (now {present}), {until}"),
            Ok(None) => format!("{name} is not to be had on this kernel"),
            Err(error) => format!("{name} {value}, {until} (can't be read now: {error})"),
        }
    })
    .collect()
}
