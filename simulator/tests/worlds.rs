//! The worlds of this directory, as far as their bars hold today, with the world as it is written and one that is jittered.

use std::path::Path;

use simulator::judge::judge;
use simulator::world::World;

/// Bars that do not hold yet, by world and by how their line begins. `cargo xtask simulate` shows them as failing; docs/simulator.md says more.
const OPEN: &[(&str, &str)] =
    &[("revisits", "times that a set sinks"), ("revisits", "touches on slow nodes")];

/// Worlds of days or of hundreds of pods: `cargo xtask simulate` alone runs them.
const LONG: &[&str] = &[
    "fleet",
    "log-rotation",
    "nightly-job",
    "revisits",
    "agent-restarted",
    "zipf-1.2-save-25",
    "zipf-1.2-save-50",
];

fn worlds() -> Vec<(String, World)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds");
    let mut worlds: Vec<_> = std::fs::read_dir(dir)
        .expect("worlds")
        .map(|entry| {
            let path = entry.expect("a world").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let world = World::parse(&std::fs::read_to_string(&path).expect("a text"));
            (name.clone(), world.unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    worlds.sort_by(|a, b| a.0.cmp(&b.0));
    worlds
}

#[test]
fn what_held_in_the_worlds_still_holds() {
    let mut failed = Vec::new();
    for (name, world) in worlds().iter().filter(|(name, _)| !LONG.contains(&name.as_str())) {
        for seed in [0, 1] {
            let is_open = |what: &str| OPEN.iter().any(|(world, bar)| world == name && what.starts_with(bar));
            for verdict in judge(world, seed).verdicts {
                if !verdict.holds && !is_open(&verdict.what) {
                    failed.push(format!(
                        "{name}, seed {seed}: {}: {} ({})",
                        verdict.what, verdict.seen, verdict.asked
                    ));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_is_open_is_a_bar_of_a_world() {
    let worlds = worlds();
    for (name, _) in OPEN {
        assert!(worlds.iter().any(|(world, _)| world == name), "{name}");
    }
}
