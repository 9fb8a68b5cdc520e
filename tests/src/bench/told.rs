//! What a benchmark's guest tells on its console: `BENCH {json}`.

use misses::line::Counts;
use serde::{Deserialize, Serialize};

use crate::report::{parse_after, render_after};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// What a slot's counts must be; misses that are `None` depend on the cache.
    Expected {
        /// Which slot.
        slot: usize,
        /// Each but the misses exactly; these nearly, as others use the cache, too.
        counts: Counts,
        /// What the slot is for.
        about: String,
    },
    /// What runs.
    Began {
        /// As `uname -r` says.
        kernel: String,
        /// The contender's settings, in words.
        settings: String,
        /// Regions and their bytes, in the order of their slots.
        regions: Vec<(String, u64)>,
    },
    /// A moment of the run.
    Sample(Sample),
    /// The hot set shifts, milliseconds after the start.
    Shifted {
        /// When.
        at_ms: u64,
    },
    /// A moment of the applications' run.
    Apps(AppsMoment),
    /// What each application's own look at its data found wrong, in the order of their slots.
    Verified {
        /// How much of each.
        wrong: Vec<u64>,
    },
    /// A moment beside the simulated host.
    Moment(Moment),
    /// What is there in the end.
    Ended {
        /// Pages with wrong content.
        wrong: u64,
        /// Settings that are not as they were, after `kill -9` of the contender.
        left: Vec<String>,
        /// What it said last.
        last_words: String,
    },
}

/// Where everything is at a moment, and what it has cost so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the start, milliseconds.
    pub at_ms: u64,
    /// The counter's line.
    pub mark: u64,
    /// Bytes on the slow node, by region.
    pub slow: Vec<u64>,
    /// Bytes swapped out, by region.
    pub swapped: Vec<u64>,
    /// The neighbour's bytes on the slow node.
    pub neighbour_slow: u64,
    /// CPU time of the contender's processes, microseconds.
    pub contender_us: u64,
    /// CPU time of the kernel's threads that move or free memory, microseconds.
    pub kernel_us: u64,
    /// CPU time of the workload, microseconds.
    pub workload_us: u64,
    /// Bytes that the kernel migrated since boot.
    pub migrated: u64,
    /// Resident bytes of the contender's processes.
    pub rss: u64,
}

/// Where applications' memory is at a moment, and what was done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppsMoment {
    /// Since the start, milliseconds.
    pub at_ms: u64,
    /// The counter's line.
    pub mark: u64,
    /// Each application, in the order of their slots.
    pub apps: Vec<AppMoment>,
    /// CPU time of the agent and of the kernel's threads that move or free memory, microseconds.
    pub agent_us: u64,
    /// Resident bytes of the agent.
    pub rss: u64,
}

/// One application at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppMoment {
    /// Anonymous bytes on fast nodes.
    pub fast: u64,
    /// The same on slow ones.
    pub slow: u64,
    /// CPU time of the pod, microseconds.
    pub cpu_us: u64,
    /// Requests answered.
    pub requests: u64,
    /// Time from requests to their answers, microseconds.
    pub busy_us: u64,
    /// Of all answers so far 99 % took less, microseconds.
    pub p99_us: u64,
    /// Answers that were wrong.
    pub wrong: u64,
}

/// What sank, what is touched there and what counts as cold, at a moment beside the simulated host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the workload began, milliseconds.
    pub at_ms: u64,
    /// Bytes on the slow node.
    pub sunk: u64,
    /// Bytes touched there a minute, as the agent tells.
    pub touched: u64,
    /// The age that counts as cold, seconds.
    pub age: f64,
}

impl Told {
    /// Reads a console line; `None` for all others.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        parse_after("BENCH", line)
    }

    /// The console line, without its end.
    #[must_use]
    pub fn render(&self) -> String {
        render_after("BENCH", self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_one_line_and_reads_back() {
        let told = Told::Ended { wrong: 0, left: vec!["a".into()], last_words: "one\ntwo".into() };
        assert_eq!(told.render().lines().count(), 1);
        assert_eq!(Told::parse(&told.render()), Some(told));
    }
}
