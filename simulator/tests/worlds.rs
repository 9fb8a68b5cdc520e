//! The worlds of this directory, with the world as it is written and one that is jittered.

use std::path::Path;

use simulator::judge::judge;
use simulator::world::World;

/// Worlds of days or of hundreds of pods: `cargo xtask simulate` alone runs them.
const LONG: &[&str] =
    &["fleet", "log-rotation", "nightly-job", "agent-restarted", "zipf-1.2-save-25", "zipf-1.2-save-50"];

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
fn what_worlds_ask_for_holds() {
    let mut failed = Vec::new();
    for (name, world) in worlds().iter().filter(|(name, _)| !LONG.contains(&name.as_str())) {
        for seed in [0, 1] {
            for verdict in judge(world, seed).verdicts {
                if !verdict.holds {
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
