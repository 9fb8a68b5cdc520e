//! What the generator knows for certain: one JSON line on demand.

use serde::{Deserialize, Serialize};

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// When, on the monotonic clock, milliseconds.
    pub t_ms: u64,
    /// In the order of the command line.
    pub regions: Vec<RegionLedger>,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLedger {
    /// Unique: the kind, or as the command line says.
    pub name: String,
    /// `hot`, `warm`, ... as on the command line; a shift of the hot set does not change it.
    pub kind: String,
    /// Bytes asked for.
    pub bytes: u64,
    /// `4k`, `thp` or `hugetlb`.
    pub page: String,
    /// How often every page is touched at present; `None`: never.
    pub period_ms: Option<u64>,
    /// End of the last pass over the region, monotonic clock, milliseconds.
    pub last_touch_ms: u64,
    /// Bytes on fast nodes.
    pub fast_bytes: u64,
    /// Bytes on slow nodes.
    pub slow_bytes: u64,
    /// Bytes swapped out.
    pub swapped_bytes: u64,
    /// Bytes neither mapped nor swapped out: freed lazily, or dropped by the page cache. Of file and shared memory also
    /// pages that reclaim only unmapped.
    pub gone_bytes: u64,
    /// Passes over the region so far, the first write included.
    pub touches: u64,
    /// Time of the last pass, microseconds.
    pub pass_us: u64,
    /// Time of the slowest pass after the first write, microseconds.
    pub pass_us_max: u64,
    /// Time of all passes after the first write, microseconds.
    pub pass_us_total: u64,
}

impl Ledger {
    /// The region of that name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&RegionLedger> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The sum of a column over the regions that match.
    pub fn sum(&self, which: impl Fn(&RegionLedger) -> bool, column: impl Fn(&RegionLedger) -> u64) -> u64 {
        self.regions.iter().filter(|region| which(region)).map(column).sum()
    }
}
