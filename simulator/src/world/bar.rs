//! What must hold in a world.

use std::fmt;
use std::str::FromStr;

use api::{Percentage, WireDuration};
use serde::Deserialize;

/// A pod by its name in the file, and a set of it: `web` or `web/heap`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SetRef {
    /// The pod; with `count`, all of them.
    pub pod: String,
    /// The set; all where none is named.
    pub set: Option<String>,
}

impl FromStr for SetRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pod, set) = match text.split_once('/') {
            Some((pod, set)) => (pod, Some(set)),
            None => (text, None),
        };
        if pod.is_empty() || set.is_some_and(str::is_empty) {
            return Err(format!("{text:?} is no pod and no set of one: write web or web/heap"));
        }
        Ok(Self { pod: pod.to_owned(), set: set.map(str::to_owned) })
    }
}

impl TryFrom<String> for SetRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for SetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => write!(f, "{}/{set}", self.pod),
            None => f.write_str(&self.pod),
        }
    }
}

/// What must hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bar {
    /// No page of these went down.
    NeverDemoted(Vec<SetRef>),
    /// Nothing but these went down.
    OnlyGive(Vec<SetRef>),
    /// What went down lies on the slow node that is nearest to each pod's own.
    NearestSlowNode(Vec<SetRef>),
    /// Of all that went down, at least this share was its.
    GivenBy(SharesOf),
    /// Every fast node has its headroom, free or as clean cache, after so many rounds of a second.
    HeadroomWithin(Within),
    /// At least this share of a set's pages is on slow nodes at the end.
    Sunk(SharesOf),
    /// Slow accesses over the oracle's at the same DRAM saved, at most.
    Regret(f64),
    /// Fewer slow accesses than each peer's law at the same DRAM saved.
    BeatsPeers(bool),
    /// Least DRAM saved, as a share of the managed pods' anonymous memory, in the second half.
    Saved(Percentage),
    /// Moved up or down a minute, of the working set, at most, after the time.
    Moved(Moved),
    /// Throughput by the model of latencies, over that of the same world where nothing is moved, at least.
    Throughput(f64),
    /// Each page of these sets went down at most so often.
    Sinks(Sinks),
    /// At the end, the age is what it was at this time.
    AgeBack(AgeBack),
    /// So many slow accesses fewer than without us.
    FewerSlowAccesses(SharesOf),
    /// A hot set moves from one set of pages to another.
    Shift(Shift),
    /// Touches on slow nodes within the policy's allowance, in every minute after the third.
    TouchesAllowed(bool),
    /// DRAM is within this share of the ceiling, in the second half.
    AtCeiling(SharesOf),
    /// What was told that could be freed while it was only observed is what is freed then.
    WouldFree(WouldFree),
}

/// See [`Bar::GivenBy`], [`Bar::Sunk`], [`Bar::FewerSlowAccesses`] and [`Bar::AtCeiling`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesOf {
    /// Of whom.
    pub of: SetRef,
    /// The share.
    pub share: Percentage,
}

/// See [`Bar::HeadroomWithin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Rounds.
    pub rounds: u32,
    /// After this time. Default: the start.
    pub after: Option<WireDuration>,
}

/// See [`Bar::Moved`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moved {
    /// Of whom.
    pub of: SetRef,
    /// Of the working set.
    pub per_minute: Percentage,
    /// After this time.
    pub after: WireDuration,
}

/// See [`Bar::Sinks`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sinks {
    /// The sets.
    pub of: Vec<SetRef>,
    /// So often.
    pub most: u32,
    /// After this time. Default: the start.
    pub after: Option<WireDuration>,
}

/// See [`Bar::AgeBack`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgeBack {
    /// The pod.
    pub of: SetRef,
    /// The age then counts.
    pub at: WireDuration,
}

/// See [`Bar::WouldFree`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WouldFree {
    /// The pod.
    pub of: SetRef,
    /// What was told then counts.
    pub told: WireDuration,
    /// And what is on slow nodes then.
    pub freed: WireDuration,
    /// They differ by this share at most.
    pub within: Percentage,
}

/// See [`Bar::Shift`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// When.
    pub at: WireDuration,
    /// Was hot, is not.
    pub old: SetRef,
    /// Was not, is hot.
    pub new: SetRef,
}

impl Bar {
    /// The pods and sets that it names.
    #[must_use]
    pub fn sets(&self) -> Vec<&SetRef> {
        match self {
            Self::NeverDemoted(sets) | Self::OnlyGive(sets) | Self::NearestSlowNode(sets) => {
                sets.iter().collect()
            }
            Self::GivenBy(shares)
            | Self::Sunk(shares)
            | Self::FewerSlowAccesses(shares)
            | Self::AtCeiling(shares) => {
                vec![&shares.of]
            }
            Self::Moved(moved) => vec![&moved.of],
            Self::Sinks(sinks) => sinks.of.iter().collect(),
            Self::AgeBack(back) => vec![&back.of],
            Self::WouldFree(would) => vec![&would.of],
            Self::Shift(shift) => vec![&shift.old, &shift.new],
            Self::HeadroomWithin(_)
            | Self::Regret(_)
            | Self::BeatsPeers(_)
            | Self::Saved(_)
            | Self::Throughput(_)
            | Self::TouchesAllowed(_) => Vec::new(),
        }
    }
}
