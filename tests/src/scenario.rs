//! The scenarios: what each proves and where it runs. Guest and host share the table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::guest::Guest;
use crate::report::Verdict;
pub use crate::scenarios::{KILLS_A_GUEST, NODE, SCENARIOS, TERMS_A_GUEST, in_short_run};

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

/// How the guest comes by its slow node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlowNode {
    /// Plain memory that the firmware's HMAT calls slower, like a CXL expander. To kernel 6.1 it is no lower tier.
    Hmat,
    /// An NVDIMM handed to the kernel as system memory by dax/kmem: a lower tier to every kernel.
    Kmem,
    /// Two sockets, each with its own slow node, by the firmware's HMAT: nodes 0 and 1 have a CPU each, 2 is near 0 and 3 near 1.
    Sockets,
}

impl SlowNode {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Hmat, Self::Kmem, Self::Sockets];

    /// As on the command line: `hmat`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hmat => "hmat",
            Self::Kmem => "kmem",
            Self::Sockets => "sockets",
        }
    }
}

macro_rules! words {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                Self::ALL
                    .into_iter()
                    .find(|value| value.as_str() == word)
                    .ok_or_else(|| format!("expected one of {}", Self::ALL.map(<$type>::as_str).join(", ")))
            }
        }
    };
}
words!(Kernel);
words!(SlowNode);

/// A kernel with a slow node: one kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// The kernel it runs.
    pub kernel: Kernel,
    /// Where its slow node comes from.
    pub slow_node: SlowNode,
}

impl Machine {
    /// Every kind, oldest kernel first.
    pub fn all() -> impl Iterator<Item = Self> {
        Kernel::ALL.into_iter().flat_map(|kernel| SlowNode::ALL.map(|slow_node| Self { kernel, slow_node }))
    }

    /// Whether the kernel itself sees a lower tier, so that it can demote.
    #[must_use]
    pub fn has_lower_tier(self) -> bool {
        self.kernel > Kernel::V6_1 || self.slow_node == SlowNode::Kmem
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.slow_node)
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
    /// Whether it says something on this kind of guest. Those about two sockets are about nothing else.
    #[must_use]
    pub fn runs_on(&self, machine: Machine) -> bool {
        let of_sockets = crate::scenarios::OF_SOCKETS.contains(&self.name);
        (self.applies)(machine) && of_sockets == (machine.slow_node == SlowNode::Sockets)
    }

    /// The scenario of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().chain([&NODE]).chain(crate::bench::BENCHES).find(|scenario| scenario.name == name)
    }
}
