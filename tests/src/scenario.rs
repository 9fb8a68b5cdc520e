//! The scenarios: what each proves and where it runs. Guest and host share the table.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::guest::Guest;
use crate::machine::{Kind, NodeKind, kinds};
use crate::report::Verdict;
use crate::scenarios::Written;
pub use crate::scenarios::{
    KILLS_A_GUEST, LEFT_OUT, LeftOut, NODE, SCENARIOS, TERMS_A_GUEST, in_short_run, left_out,
};

/// A kernel series that guests run. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// 6.1: no HMAT tiers for plain memory, `lru_gen` off at boot.
    V6_1,
    /// 6.12
    V6_12,
    /// 7.2, or whatever newer kernel the rolling suite has by now.
    V7_2,
}

impl Kernel {
    /// Every series.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    /// As on the command line: `6.12`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kernel {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.as_str() == word)
            .ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A kernel on a kind of machine: one kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The kernel it runs.
    pub kernel: Kernel,
    /// All else.
    pub kind: &'static Kind,
}

impl Machine {
    /// Every kind of guest that scenarios are for, oldest kernel first.
    pub fn all() -> impl Iterator<Item = Self> {
        Kernel::ALL.into_iter().flat_map(|kernel| {
            kinds()
                .iter()
                .filter(move |kind| kind.kernels.contains(&kernel))
                .map(move |kind| Self { kernel, kind })
        })
    }

    /// Whether the kernel itself sees a lower tier, so that it can demote.
    #[must_use]
    pub fn has_lower_tier(self) -> bool {
        self.has_kmem() || (self.kernel > Kernel::V6_1 && self.kind.has(NodeKind::Hmat))
    }

    /// Whether there is memory that other memory may sink to.
    #[must_use]
    pub fn has_slow_node(self) -> bool {
        !self.kind.slow_nodes().is_empty()
    }

    /// Whether a slow node came by dax/kmem, all of it movable.
    #[must_use]
    pub fn has_kmem(self) -> bool {
        self.kind.has(NodeKind::Kmem) || self.kind.has(NodeKind::Cxl)
    }

    /// Whether the multi-generational LRU can be had, with its files.
    #[must_use]
    pub fn has_generations(self) -> bool {
        self.kind.boot.lru_gen != Some(false) && self.kind.boot.lockdown.is_none()
    }

    fn order(self) -> (Kernel, &'static str) {
        (self.kernel, &self.kind.name)
    }
}

impl Ord for Machine {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Machine {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.kind.name)
    }
}

/// One proof on a real kernel.
pub struct Scenario {
    /// On the command line and in the matrix.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// Whether it says something on this kind of guest.
    pub applies: fn(Machine) -> bool,
    /// Whether it needs the agent in the guest.
    pub agent: bool,
    /// Guest time after which it counts as hung.
    pub guest_timeout: Duration,
    /// The proof. It makes its checks through the guest and ends with [`Guest::verdict`].
    pub run: fn(&mut Guest) -> anyhow::Result<Verdict>,
}

impl Scenario {
    /// Whether it says something on this kind of guest.
    #[must_use]
    pub fn runs_on(&self, machine: Machine) -> bool {
        let written_for = match Written::of(self.name) {
            Written::Anywhere => !machine.kind.has(NodeKind::Cxl),
            Written::Cxl => machine.kind.has(NodeKind::Cxl),
            Written::For(kind) => machine.kind.name == kind,
            Written::Plain => machine.kind.is_plain(),
        };
        written_for && (self.applies)(machine)
    }

    /// The scenario of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().chain([&NODE]).chain(crate::bench::BENCHES).find(|scenario| scenario.name == name)
    }
}
