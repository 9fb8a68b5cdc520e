//! The build tasks by name, apart from what they are made of, so that a list of them needs nothing built.
#![forbid(unsafe_code)]

pub mod quiet;

use std::time::{Duration, SystemTime};

/// The variable that tells a task when its command was given, in milliseconds since 1970.
pub const BEGAN: &str = "THERMOCLINE_XTASK_BEGAN";

/// The time as [`BEGAN`] has it.
#[must_use]
pub fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// Time since the command was given, with the building of the tasks; nothing where that is not known.
#[must_use]
pub fn since_start(now: SystemTime) -> Duration {
    let began = std::env::var(BEGAN).ok().and_then(|text| text.parse::<u128>().ok());
    let passed = began.map_or(0, |began| milliseconds(now).saturating_sub(began));
    Duration::from_millis(u64::try_from(passed).unwrap_or(0))
}

/// Each task and what it does, in the order of the help.
pub const TASKS: &[(&str, &str)] = &[
    ("bench", "Measures, on API servers or beside the peers in guests, and prints a table"),
    (
        "cluster",
        "An API server with our definitions, in the foreground, to try policies and the controller on",
    ),
    ("codegen", "Writes the documentation that is made from the code"),
    (
        "demo",
        "Two cgroups in a virtual machine with two memory tiers, live: cold memory sinks, hot memory stays",
    ),
    ("fuzz", "Feeds mutated kernel files, configurations and states to what reads them"),
    ("kube", "Finds or makes Kubernetes' servers, helm, kubectl and promtool, for tests"),
    (
        "image",
        "The agent's and the controller's container images for amd64 and arm64, as OCI archives; --sign KEY signs them",
    ),
    (
        "kills",
        "kill -9 inside every kind of write, thousands of times, in guests: nothing of the agent may be left",
    ),
    (
        "node",
        "A real Kubernetes node in a virtual machine with two memory tiers: pods, their annotations, and the agent",
    ),
    (
        "release",
        "All that a release publishes: static binaries, .deb, images, charts, bills of materials, provenance, checksums",
    ),
    ("simulate", "The law on simulated hosts: a table of what must hold, and pictures"),
    (
        "test",
        "Formatting, lints, unit tests, tests on API servers, fuzzing, then every scenario on every kernel",
    ),
    ("vm", "One scenario on one kernel with two memory tiers, or a shell there"),
];

/// The text of `cargo xtask help`.
#[must_use]
pub fn help() -> String {
    let width = TASKS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = TASKS.iter().map(|(name, about)| format!("  {name:width$}  {about}")).collect();
    let tasks = lines.join("\n");
    format!(
        "Build tasks of Thermocline\n\nUsage: cargo xtask TASK [OPTIONS]\n\nTasks:\n{tasks}\n\n\
         `cargo xtask TASK --help` has a task's options. The first task of all builds the tasks, about a minute on two cores, \
         `simulate` and `test` two.\n"
    )
}

/// What cargo is told about its own words: once the tasks are built, its progress would be noise, and [`quiet`] tells of a change that
/// takes long; before, it would be minutes.
#[must_use]
pub fn quietly(is_built: bool) -> &'static [&'static str] {
    if is_built { &["--quiet"] } else { &[] }
}

/// What cargo is told of what the task needs: only these two simulate hosts, which takes as long to build as all the rest.
#[must_use]
pub fn features(arguments: &[String]) -> &'static [&'static str] {
    match arguments.first().map(String::as_str) {
        Some("simulate" | "test") => &[],
        _ => &["--no-default-features"],
    }
}

/// Whether these arguments ask for nothing but the list.
#[must_use]
pub fn asks_for_help(arguments: &[String]) -> bool {
    match arguments {
        [] => true,
        [one] => matches!(one.as_str(), "help" | "--help" | "-h"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_build_shows_its_progress_and_the_list_says_how_long_it_takes() {
        assert_eq!(quietly(false), [""; 0]);
        assert!(help().contains("about a minute on two cores"));
        // The alias itself builds no more than this program, which has no dependencies.
        let alias = include_str!("../../../.cargo/config.toml");
        assert!(alias.contains("--package xtask-front"), "{alias}");
        let manifest = include_str!("../Cargo.toml");
        assert!(manifest.trim_end().ends_with("[dependencies]"), "{manifest}");
    }

    #[test]
    fn only_what_simulates_hosts_builds_the_simulator() {
        let needs =
            |line: &str| features(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).is_empty();
        assert!(needs("simulate fleet") && needs("test --full"));
        assert!(!needs("demo") && !needs("vm simulate"));
    }

    #[test]
    fn the_list_is_asked_for_by_any_of_its_names_and_a_tasks_own_help_is_not_it() {
        let asks =
            |line: &str| asks_for_help(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(asks("") && asks("help") && asks("--help") && asks("-h"));
        assert!(!asks("help demo") && !asks("demo --help") && !asks("demo"));
    }
}
