//! What guests do for `cargo xtask bench`: programs that measure. They judge nothing; the host makes the table.

mod contenders;
mod counted;
mod doorbell;
mod peers;
mod settings;
pub mod told;

use std::time::Duration;

pub use contenders::{CONTENDERS, Contender};
pub use peers::Region;

use crate::scenario::{Machine, Scenario};

/// What guests run for benchmarks. Not among the scenarios: each needs a plugin of the emulator.
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
];

/// Word of the kernel's command line that names the contender.
pub const CONTENDER: &str = "thermocline.contender";
/// Word with the seconds before the hot set shifts.
pub const BEFORE: &str = "thermocline.before";
/// Word with the seconds after the hot set shifts.
pub const AFTER: &str = "thermocline.after-shift";
/// Word that has hot and cold memory in huge pages (`yes`).
pub const THP: &str = "thermocline.thp";
