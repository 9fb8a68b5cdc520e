//! What guests do for `cargo xtask bench`: programs that measure. They judge nothing; the host makes the table.

mod apps;
mod beside;
mod contenders;
mod counted;
mod doorbell;
mod peers;
mod settings;
pub mod told;

use std::time::Duration;

pub use apps::{APPS, App};
pub use contenders::{CONTENDERS, Contender};
pub use peers::Region;

use anyhow::{Context as _, Result};

use crate::guest::kernel_argument;
use crate::scenario::{Machine, Scenario};

/// What guests run for benchmarks. Not among the scenarios: each needs more than its name, a plugin of the emulator or words.
pub const BENCHES: &[Scenario] = &[
    Scenario {
        name: "counted",
        about: "a known number of accesses to either node, for the counter of misses",
        applies: |_| true,
        // It needs none, but so one image serves both.
        agent: true,
        guest_timeout: Duration::from_mins(2),
        run: counted::run,
    },
    Scenario {
        name: "peers",
        about: "one workload, watched while one contender moves its memory",
        applies: Machine::has_lower_tier,
        agent: true,
        guest_timeout: Duration::from_mins(30),
        run: peers::run,
    },
    Scenario {
        name: "apps",
        about: "programs of Debian under load, watched while the agent moves their memory",
        applies: Machine::has_lower_tier,
        agent: true,
        guest_timeout: Duration::from_hours(1),
        run: apps::run,
    },
    Scenario {
        name: "beside",
        about: "the workload of a simulated world, watched while the agent moves its memory",
        applies: Machine::has_lower_tier,
        agent: true,
        guest_timeout: Duration::from_mins(30),
        run: beside::run,
    },
];

/// Word of the kernel's command line with the names of applications, by commas.
pub const RUNS: &str = "thermocline.apps";
/// Word with the number that the loads' keys follow from.
pub const SEED: &str = "thermocline.seed";
/// Word that names the contender.
pub const CONTENDER: &str = "thermocline.contender";
/// Word with the seconds before the hot set shifts.
pub const BEFORE: &str = "thermocline.before";
/// Word with the seconds after the hot set shifts.
pub const AFTER: &str = "thermocline.after-shift";
/// Word with the workload's regions as its arguments have them, by commas.
pub const REGIONS: &str = "thermocline.regions";
/// Word with the policy's spec, in JSON; where it may be left out, nothing manages the pods.
pub const POLICY: &str = "thermocline.policy";
/// Word with the agent's engine.
pub const ENGINE: &str = "thermocline.engine";
/// Word with the seconds that the workload is watched.
pub const LASTS: &str = "thermocline.lasts";
/// Word with the seconds from one moment that is told to the next.
pub const EVERY: &str = "thermocline.every";
/// Word that has hot and cold memory in huge pages (`yes`).
pub const THP: &str = "thermocline.thp";

/// A word that the host must have given.
fn word(key: &str) -> Result<String> {
    kernel_argument(key)?.with_context(|| format!("{key} is not on the command line"))
}

/// A word with seconds.
fn seconds(key: &str) -> Result<Duration> {
    let text = word(key)?;
    Ok(Duration::from_secs(text.parse().with_context(|| format!("{key}={text}"))?))
}
