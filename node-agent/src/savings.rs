//! The one number of what is saved: summed from what each decision says that its policy could free.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tiering::Bytes;

use crate::snapshot::Snapshot;

/// What could be freed, of how much, and what is freed already; in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Savings {
    /// Cold memory in DRAM that policies could free now: without floors, memory that can't move, and what slow nodes have no
    /// room for.
    pub would_free_bytes: u64,
    /// What would be touched on slow nodes a minute of what is only observed: modelled. `None` where all is enforced, whose cost is
    /// measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_touch_bytes_per_minute: Option<u64>,
    /// Anonymous memory in DRAM, which that is a part of.
    pub dram_bytes: u64,
    /// Anonymous memory on slower tiers of what is enforced.
    pub freed_bytes: u64,
    /// What of that is touched there a minute: what it costs.
    pub freed_touched_bytes_per_minute: u64,
}

impl Savings {
    /// Adds what another has.
    pub fn add(&mut self, more: Self) {
        self.would_free_bytes += more.would_free_bytes;
        if let Some(touched) = more.would_touch_bytes_per_minute {
            *self.would_touch_bytes_per_minute.get_or_insert_default() += touched;
        }
        self.dram_bytes += more.dram_bytes;
        self.freed_bytes += more.freed_bytes;
        self.freed_touched_bytes_per_minute += more.freed_touched_bytes_per_minute;
    }

    /// What is freed, and what that costs; `None` where nothing is.
    #[must_use]
    pub fn freed(&self) -> Option<String> {
        let touched = Bytes(self.freed_touched_bytes_per_minute);
        (self.freed_bytes > 0)
            .then(|| format!("freed {}, of which {touched} a minute are touched", Bytes(self.freed_bytes)))
    }
}

impl fmt::Display for Savings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "would free {} of {}", Bytes(self.would_free_bytes), Bytes(self.dram_bytes))?;
        if self.dram_bytes > 0 {
            let percent = u128::from(self.would_free_bytes) * 100 / u128::from(self.dram_bytes);
            write!(f, " ({percent} %)")?;
        }
        match self.would_touch_bytes_per_minute {
            Some(touched) if self.would_free_bytes > 0 || touched > 0 => {
                write!(f, ", would touch {} a minute", Bytes(touched))
            }
            _ => Ok(()),
        }
    }
}

/// Sums of all that is managed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Of all; no more than the slow nodes have room for together.
    pub total: Savings,
    /// By policy.
    pub by_policy: BTreeMap<String, Savings>,
    /// Under Kubernetes, by namespace.
    pub by_namespace: BTreeMap<String, Savings>,
}

/// The sums of a picture. `room` is what slow nodes have above their watermarks.
#[must_use]
pub fn sums(snapshot: &Snapshot, room: Bytes) -> Sums {
    let mut sums = Sums::default();
    for cgroup in snapshot.cgroups.values() {
        let dram_bytes = cgroup.anon_bytes_by_tier.get(snapshot.dram()).copied().unwrap_or(0);
        let all: u64 = cgroup.anon_bytes_by_tier.values().sum();
        let enforced = |bytes| if cgroup.acts() { bytes } else { 0 };
        let savings = Savings {
            would_free_bytes: cgroup.would_free_bytes,
            would_touch_bytes_per_minute: (!cgroup.acts()).then_some(cgroup.would_touch_bytes_per_minute),
            dram_bytes,
            freed_bytes: enforced(all.saturating_sub(dram_bytes)),
            freed_touched_bytes_per_minute: enforced(cgroup.slow_touched_bytes_per_minute),
        };
        sums.total.add(savings);
        sums.by_policy.entry(cgroup.policy.clone()).or_default().add(savings);
        if let Some(pod) = &cgroup.pod {
            sums.by_namespace.entry(pod.namespace.clone()).or_default().add(savings);
        }
    }
    sums.total.would_free_bytes = sums.total.would_free_bytes.min(room.0);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{cgroup, node, tier};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_saving_is_told_in_one_line() {
        let savings =
            |would, of| Savings { would_free_bytes: would * MIB, dram_bytes: of * MIB, ..Savings::default() };
        assert_eq!(savings(352, 577).to_string(), "would free 352 MiB of 577 MiB (61 %)");
        assert_eq!(savings(0, 0).to_string(), "would free 0 B of 0 B");
    }

    #[test]
    fn beside_what_would_be_freed_stands_what_it_would_cost() {
        let savings = |would, touched: Option<u64>| {
            Savings {
                would_free_bytes: would * MIB,
                would_touch_bytes_per_minute: touched.map(|touched| touched * MIB),
                dram_bytes: 577 * MIB,
                ..Savings::default()
            }
            .to_string()
        };
        for (would, touched, words) in [
            (352, Some(3), "would free 352 MiB of 577 MiB (61 %), would touch 3 MiB a minute"),
            (352, Some(0), "would free 352 MiB of 577 MiB (61 %), would touch 0 B a minute"),
            // All that was cold has just been touched.
            (0, Some(3), "would free 0 B of 577 MiB (0 %), would touch 3 MiB a minute"),
            (0, Some(0), "would free 0 B of 577 MiB (0 %)"),
            // What is enforced has a cost that is measured.
            (352, None, "would free 352 MiB of 577 MiB (61 %)"),
        ] {
            assert_eq!(savings(would, touched), words);
        }
    }

    #[test]
    fn beside_what_is_freed_stands_what_it_costs() {
        let freed = |freed, touched| {
            Savings {
                freed_bytes: freed * MIB,
                freed_touched_bytes_per_minute: touched * MIB,
                ..Savings::default()
            }
            .freed()
        };
        assert_eq!(freed(800, 6).unwrap(), "freed 800 MiB, of which 6 MiB a minute are touched");
        assert_eq!(freed(800, 0).unwrap(), "freed 800 MiB, of which 0 B a minute are touched");
        assert_eq!(freed(0, 0), None);
    }

    #[test]
    fn sums_are_those_of_their_cgroups_and_fit_the_room() {
        let mut batch = cgroup("a", &[("dram", 300), ("pmem", 50)], &[(900.0, 200)], "demote");
        batch.would_free_bytes = 200 * MIB;
        let mut web = cgroup("b", &[("dram", 100), ("pmem", 10)], &[(900.0, 60)], "demote");
        batch.slow_touched_bytes_per_minute = 3 * MIB;
        (web.would_free_bytes, web.mode, web.policy) = (60 * MIB, "Observe", "web".to_owned());
        // What is enforced does not tell what it would cost, but what it does.
        (batch.would_touch_bytes_per_minute, web.would_touch_bytes_per_minute) = (4 * MIB, 2 * MIB);
        // What is on slow nodes of what is only observed is not ours, nor what that costs.
        web.slow_touched_bytes_per_minute = 9 * MIB;
        let snapshot = node(vec![tier("dram", 0, 2048, 100), tier("pmem", 1, 2048, 100)], vec![batch, web]);
        let all = sums(&snapshot, Bytes::mib(1000));
        assert_eq!(
            all.total,
            Savings {
                would_free_bytes: 260 * MIB,
                would_touch_bytes_per_minute: Some(2 * MIB),
                dram_bytes: 400 * MIB,
                freed_bytes: 50 * MIB,
                freed_touched_bytes_per_minute: 3 * MIB,
            }
        );
        assert_eq!(all.by_policy["web"].would_free_bytes, 60 * MIB);
        assert_eq!(sums(&snapshot, Bytes::mib(100)).total.would_free_bytes, 100 * MIB);
    }
}
