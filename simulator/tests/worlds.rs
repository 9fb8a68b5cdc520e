//! The worlds of this directory, as far as their bars hold today, with the world as it is written and one that is jittered.

use std::path::Path;

use simulator::judge::judge;
use simulator::world::World;

/// Bars that do not hold yet, by world and by how their line begins. `cargo xtask simulate` shows them as failing; docs/simulator.md says more.
const OPEN: &[(&str, &str)] = &[];

/// Worlds of days or of hundreds of pods: `cargo xtask simulate` alone runs them.
const LONG: &[&str] = &["fleet", "log-rotation", "nightly-job", "revisits", "agent-restarted"];

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
    let mut open = vec![false; OPEN.len()];
    for (name, world) in worlds().iter().filter(|(name, _)| !LONG.contains(&name.as_str())) {
        for seed in [0, 1] {
            for verdict in judge(world, seed).verdicts.into_iter().filter(|verdict| !verdict.holds) {
                let is_open = |bar: &(&str, &str)| bar.0 == name && verdict.what.starts_with(bar.1);
                match OPEN.iter().position(is_open) {
                    Some(at) => open[at] = true,
                    None => failed.push(format!(
                        "{name}, seed {seed}: {}: {} ({})",
                        verdict.what, verdict.seen, verdict.asked
                    )),
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let closed: Vec<_> = OPEN.iter().zip(&open).filter(|(_, open)| !**open).map(|(bar, _)| bar).collect();
    assert!(closed.is_empty(), "these hold now; leave them out of OPEN and of the docs: {closed:?}");
}
