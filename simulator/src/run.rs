//! A world, run.

use std::time::Duration;

use crate::host::Host;
use crate::laws::Law;
use crate::world::{Bar, NodeKind, SetRef, World, WouldFree};

/// What a run left.
#[derive(Clone, Debug)]
pub struct Run {
    /// The law's name.
    pub law: String,
    /// The host at the end, with its ledgers.
    pub host: Host,
    /// Beginnings of each hot set's move, by the world's bars: when 95 % of the new set was up, and 95 % of the old one down.
    pub(crate) shifts: Vec<ShiftSeen>,
    /// When a fast node last lacked its headroom, by the world's bars.
    pub(crate) last_short: Vec<Option<Duration>>,
    /// Pages that were told to be freed and those that were, by the world's bars.
    pub(crate) freed: Vec<(u64, u64)>,
    /// What had been demoted of each group at the times that bars name.
    pub(crate) demoted_by: Vec<(Duration, Vec<u64>)>,
}

/// When a hot set's move was followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShiftSeen {
    pub(crate) up: Option<Duration>,
    pub(crate) down: Option<Duration>,
    pub(crate) age_before: f64,
    pub(crate) age_after: f64,
}

/// Runs a world to its end.
pub fn run(world: &World, law: &mut dyn Law, seed: u64) -> Run {
    let mut host = Host::new(world, seed);
    let mut run_ = Run {
        law: law.name(),
        shifts: world.bars.iter().map(|_| ShiftSeen::default()).collect(),
        last_short: vec![None; world.bars.len()],
        freed: vec![(0, 0); world.bars.len()],
        demoted_by: Vec::new(),
        host: host.clone(),
    };
    let restarts: Vec<Duration> = world.agent.restarts.iter().map(|at| at.0).collect();
    let snapshots: Vec<Duration> = world
        .bars
        .iter()
        .filter_map(|bar| match bar {
            Bar::Sinks(sinks) => sinks.after.map(|after| after.0),
            _ => None,
        })
        .collect();
    while host.now < world.lasts.0 {
        host.step();
        let passed = |at: &Duration| host.now >= *at && host.now < *at + host.tick;
        if snapshots.iter().any(passed) {
            run_.demoted_by.push((host.now, host.demoted_by_group()));
        }
        if restarts.iter().any(passed) {
            law.restart(host.now);
        }
        law.act(&mut host);
        run_.watch(world, &host);
    }
    run_.host = host;
    run_
}

impl Run {
    fn watch(&mut self, world: &World, host: &Host) {
        for (index, bar) in world.bars.iter().enumerate() {
            match bar {
                Bar::Shift(shift) if host.now >= shift.at.0 => {
                    let seen = &mut self.shifts[index];
                    let since = host.now.saturating_sub(shift.at.0);
                    let age = age(host, &shift.new);
                    if since < host.tick {
                        seen.age_before = age;
                    }
                    seen.age_after = age;
                    if seen.up.is_none() && share_on(host, &shift.new, NodeKind::Fast) >= 0.95 {
                        seen.up = Some(since);
                    }
                    if seen.down.is_none() && share_on(host, &shift.old, NodeKind::Slow) >= 0.95 {
                        seen.down = Some(since);
                    }
                }
                Bar::HeadroomWithin(_) => {
                    let short = host.on_tier(NodeKind::Fast).into_iter().any(|node| {
                        let line = host.nodes[node].low + host.nodes[node].total / 50;
                        host.nodes[node].free() + host.cached_on(node) < line
                    });
                    if short {
                        self.last_short[index] = Some(host.now);
                    }
                }
                Bar::WouldFree(WouldFree { of, told, freed, .. }) => {
                    let (of_bar, passed) =
                        (&mut self.freed[index], |at: Duration| host.now >= at && host.now < at + host.tick);
                    if passed(told.0) {
                        of_bar.0 = pods(host, of).map(|pod| host.pods[pod].ledger.would_free).sum();
                    }
                    if passed(freed.0) {
                        of_bar.1 = pages_on(host, of, NodeKind::Slow);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The pods that a name in the world's file stands for.
pub(crate) fn pods<'a>(host: &'a Host, of: &'a SetRef) -> impl Iterator<Item = usize> + 'a {
    (0..host.pods.len()).filter(|pod| host.pods[*pod].spec_name == of.pod)
}

/// Share of a set's pages on a tier; of nothing, 1.
pub(crate) fn share_on(host: &Host, of: &SetRef, tier: NodeKind) -> f64 {
    match pages_on(host, of, NodeKind::Fast) + pages_on(host, of, NodeKind::Slow) {
        0 => 1.0,
        whole => pages_on(host, of, tier) as f64 / whole as f64,
    }
}

/// A set's pages on a tier.
fn pages_on(host: &Host, of: &SetRef, tier: NodeKind) -> u64 {
    let nodes = host.on_tier(tier);
    let on = |pod: usize| nodes.iter().map(|node| host.truly_on(pod, of.set.as_deref(), *node)).sum::<u64>();
    pods(host, of).map(on).sum()
}

fn age(host: &Host, of: &SetRef) -> f64 {
    pods(host, of).map(|pod| host.pods[pod].ledger.age).fold(0.0, f64::max)
}
