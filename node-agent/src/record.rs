//! A day's record for `report`: what was held where and what could be freed, every few minutes, in a file beside the state file.
//!
//! Its first line says which version it is, each other one is a [`Sample`] as JSON. Lines are only added; when there are too many
//! the newest are copied into a new file ([`recorder`]).

mod recorder;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::snapshot::{CgroupView, Snapshot};

pub use recorder::{MOST_BYTES, Recorder};

/// Ages in seconds for which cold bytes are kept. Another list is another version.
pub const AGES: [u64; 8] = [30, 60, 120, 300, 600, 1800, 3600, 14_400];

/// Cgroups of a sample with a name of their own: the greatest ones. The others are one sum.
const MOST_CGROUPS: usize = 64;

const VERSION: u32 = 1;

/// A name in the record is cut at so many characters.
pub(crate) const LONGEST_NAME: usize = 200;

/// The last second of the year 9999.
const LAST_TIME: u64 = 253_402_300_799;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
}

/// What was seen at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Unix time in seconds.
    pub at: u64,
    /// Whether a cluster said which policies.
    pub cluster: bool,
    /// Fast to slow.
    pub tiers: Vec<TierUse>,
    /// Managed cgroups, the greatest first.
    pub cgroups: Vec<Held>,
    /// What could be freed in all, which the room on slow nodes bounds.
    pub would_free: u64,
}

/// A tier's memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierUse {
    /// `dram`, `pmem`...
    pub name: String,
    /// Of its nodes.
    pub capacity: u64,
    /// Of it not free.
    pub used: u64,
}

/// What a cgroup held, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// A path, a pod, or how many others.
    pub name: String,
    /// Its policy.
    pub policy: String,
    /// Whether decisions were carried out.
    pub enforced: bool,
    /// Anonymous memory in DRAM.
    pub dram: u64,
    /// Anonymous memory on other tiers.
    pub slow: u64,
    /// What its policy could free.
    pub would_free: u64,
    /// Accessed on slow nodes a minute; of what is only observed, what would be.
    #[serde(default)]
    pub touched: u64,
    /// Accessed lately.
    pub working_set: u64,
    /// Not accessed for each of [`AGES`].
    pub cold: [u64; AGES.len()],
}

impl Held {
    fn of(cgroup: &CgroupView, dram: &str) -> Self {
        let all: u64 = cgroup.anon_bytes_by_tier.values().sum();
        let in_dram = cgroup.anon_bytes_by_tier.get(dram).copied().unwrap_or(0);
        let older = |than: u64| {
            cgroup.ages.iter().filter(|(age, _)| *age >= than as f64).map(|(_, bytes)| bytes).sum::<u64>()
        };
        Self {
            name: cgroup.name().chars().take(LONGEST_NAME).collect(),
            policy: cgroup.policy.clone(),
            enforced: cgroup.acts(),
            dram: in_dram,
            slow: all - in_dram,
            would_free: cgroup.would_free_bytes,
            touched: if cgroup.acts() {
                cgroup.slow_touched_bytes_per_minute
            } else {
                cgroup.would_touch_bytes_per_minute
            },
            working_set: cgroup.working_set_bytes,
            cold: AGES.map(older),
        }
    }

    /// Adds what another has.
    pub fn add(&mut self, more: &Self) {
        self.dram = self.dram.saturating_add(more.dram);
        self.slow = self.slow.saturating_add(more.slow);
        self.would_free = self.would_free.saturating_add(more.would_free);
        self.touched = self.touched.saturating_add(more.touched);
        self.working_set = self.working_set.saturating_add(more.working_set);
        for (sum, bytes) in self.cold.iter_mut().zip(more.cold) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// On all tiers.
    #[must_use]
    pub const fn anon(&self) -> u64 {
        self.dram.saturating_add(self.slow)
    }
}

impl Sample {
    /// Of a picture.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let dram = snapshot.dram();
        let mut views: Vec<&CgroupView> = snapshot.cgroups.values().map(Arc::as_ref).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.anon_bytes_by_tier.values().sum::<u64>()));
        let named = if views.len() > MOST_CGROUPS { MOST_CGROUPS - 1 } else { views.len() };
        let (greatest, others) = views.split_at(named);
        let mut cgroups: Vec<Held> = greatest.iter().map(|cgroup| Held::of(cgroup, dram)).collect();
        if !others.is_empty() {
            let mut sum = Held { name: format!("{} others", others.len()), ..Held::default() };
            for cgroup in others {
                sum.add(&Held::of(cgroup, dram));
            }
            cgroups.push(sum);
        }
        let tiers = snapshot.tiers.iter().map(|tier| TierUse {
            name: tier.name.clone(),
            capacity: tier.capacity_bytes,
            used: tier.capacity_bytes.saturating_sub(tier.free_bytes),
        });
        Self {
            at: Duration::try_from_secs_f64(snapshot.last_round_unix_seconds).unwrap_or_default().as_secs(),
            cluster: snapshot.cluster.is_some(),
            tiers: tiers.collect(),
            cgroups,
            would_free: snapshot.savings.total.would_free_bytes,
        }
    }

    /// All that cgroups held.
    #[must_use]
    pub fn sum(&self) -> Held {
        let mut sum = Held::default();
        for held in &self.cgroups {
            sum.add(held);
        }
        Held { would_free: self.would_free, ..sum }
    }
}

/// Why there is no record to read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Nobody wrote one.
    #[error(
        "there is no record at {}: an agent keeps one while it runs (`thermocline-agent run`), from its first minute on; say with \
         --state where its state file is",
        path.display()
    )]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// It can't be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: this is no line of a record: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Another agent wrote it.
    #[error("{} is of version {version}, and this program reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
}

/// Where the agent that keeps its state there has its record.
#[must_use]
pub fn path_beside(state_file: &Path) -> PathBuf {
    state_file.with_file_name("record")
}

/// All samples, oldest first. A last line that is not ended was cut off by a crash, or is being written: it is left out.
///
/// # Errors
/// There is none, or a line is not what it should be.
pub fn read(path: &Path) -> Result<Vec<Sample>, RecordError> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RecordError::Missing { path: path.to_owned() },
        io::ErrorKind::InvalidData => {
            RecordError::Malformed { path: path.to_owned(), line: 1, why: "it is no text".to_owned() }
        }
        _ => RecordError::Io { path: path.to_owned(), error },
    })?;
    parse(path, &text)
}

/// See [`read`].
///
/// # Errors
/// A line is not what it should be.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Sample>, RecordError> {
    let malformed = |line: usize, error: serde_json::Error| RecordError::Malformed {
        path: path.to_owned(),
        line,
        why: error.to_string(),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    // Nothing was written yet, or not even the first line to its end.
    let Some(first) = lines.next() else { return Ok(Vec::new()) };
    let header: Header = serde_json::from_str(first).map_err(|error| malformed(1, error))?;
    if header.version != VERSION {
        return Err(RecordError::Version { path: path.to_owned(), version: header.version });
    }
    let sample = |(i, line)| {
        let sample: Sample = serde_json::from_str(line).map_err(|error| malformed(i + 2, error))?;
        if sample.at > LAST_TIME {
            let why = format!("{} is no time", sample.at);
            return Err(RecordError::Malformed { path: path.to_owned(), line: i + 2, why });
        }
        Ok(sample)
    };
    lines.enumerate().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_sample_has_what_each_cgroup_held_by_age() {
        const MIB: u64 = 1 << 20;
        let sample = Sample::of(&fixture::full());
        let batch = &sample.cgroups[0];
        assert_eq!((batch.name.as_str(), batch.enforced), ("jobs/batch/main", true));
        assert_eq!((batch.dram, batch.slow, batch.would_free), (300 * MIB, 600 * MIB, 180 * MIB));
        assert_eq!(batch.cold.map(|bytes| bytes / MIB), [200, 180, 180, 100, 100, 0, 0, 0]);
        assert_eq!(
            sample.tiers[1],
            TierUse { name: "pmem".to_owned(), capacity: 4096 * MIB, used: 796 * MIB }
        );
        assert!(sample.cluster);
    }

    #[test]
    fn what_is_small_is_one_sum_and_nothing_is_lost() {
        let mut snapshot = fixture::mixed();
        let batch = snapshot.cgroups["pods/batch"].clone();
        let many = (0..500).map(|i| {
            let path = format!("{}/{i}", "x".repeat(400));
            (path.clone(), Arc::new(CgroupView { path, ..CgroupView::clone(&batch) }))
        });
        snapshot.cgroups = many.collect();
        let sample = Sample::of(&snapshot);
        assert_eq!(sample.cgroups.len(), MOST_CGROUPS);
        assert_eq!(sample.cgroups.last().unwrap().name, "437 others");
        assert_eq!(sample.sum().dram, 500 * (300 << 20));
        let line = serde_json::to_string(&sample).unwrap();
        assert!(line.len() < 64 * 500, "{}", line.len());
    }

    #[test]
    fn a_line_that_is_not_one_is_named_and_one_that_is_cut_off_is_left_out() {
        let path = Path::new("/run/thermocline/record");
        let line = serde_json::to_string(&Sample::default()).unwrap();
        let good = format!("{{\"version\":1}}\n{line}\n{line}\n");
        assert_eq!(parse(path, &good).unwrap().len(), 2);
        assert_eq!(parse(path, &good[..good.len() - 9]).unwrap().len(), 1);
        assert_eq!(parse(path, "").unwrap(), []);
        assert_eq!(parse(path, "{\"vers").unwrap(), []);
        let message = |text: &str| parse(path, text).unwrap_err().to_string();
        assert!(message(&good.replacen("{\"at", "{\"when", 1)).contains("/run/thermocline/record:2: "));
        assert!(message("garbage\n").contains(":1: this is no line of a record"));
        assert!(message("{\"version\":7}\n").contains("version 7, and this program reads version 1"));
        assert!(read(Path::new("/nowhere/record")).unwrap_err().to_string().contains("--state"));
    }
}
