//! What tiers are called.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// What a tier is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierName {
    /// The tier that has CPUs.
    Dram,
    /// Persistent memory used as ordinary memory.
    Pmem,
    /// Memory behind a CXL link.
    Cxl,
    /// High-bandwidth memory.
    Hbm,
    /// A lower tier of no known kind; as a [`TierRef`] also the first lower tier of any kind.
    Slow,
}

impl TierName {
    const ALL: [Self; 5] = [Self::Dram, Self::Pmem, Self::Cxl, Self::Hbm, Self::Slow];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Dram => "dram",
            Self::Pmem => "pmem",
            Self::Cxl => "cxl",
            Self::Hbm => "hbm",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TierName {
    type Err = TierParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
        known.ok_or_else(|| TierParseError::UnknownName(text.to_string()))
    }
}

/// How a policy says which tier it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierRef {
    /// By name.
    Name(TierName),
    /// By rank; 0 is the fastest.
    Rank(u8),
}

impl fmt::Display for TierRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Rank(rank) => rank.fmt(f),
        }
    }
}

impl FromStr for TierRef {
    type Err = TierParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(TierParseError::Empty);
        }
        // Not `parse` alone, which takes "+1" too.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Rank).map_err(|_| TierParseError::RankTooGreat(text.to_string()));
        }
        match text.parse() {
            Ok(name) => Ok(Self::Name(name)),
            Err(_) => Err(TierParseError::UnknownRef(text.to_string())),
        }
    }
}

/// Why a text names no tier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TierParseError {
    /// Nothing.
    #[error("a tier is missing; write dram, pmem, cxl, hbm, slow or a rank (0 is the fastest)")]
    Empty,
    /// Not a tier's name.
    #[error("`{0}` is not a tier's name; write dram, pmem, cxl, hbm or slow (lower case)")]
    UnknownName(String),
    /// Neither a tier's name nor a rank.
    #[error(
        "`{0}` is not a tier; write dram, pmem, cxl, hbm, slow (lower case) or a rank (0 is the fastest)"
    )]
    UnknownRef(String),
    /// A rank that does not fit.
    #[error("`{0}` is not a tier's rank; ranks go from 0 (the fastest) to 255")]
    RankTooGreat(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        let check = |text: &str, name: TierName| {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
        };
        check("dram", TierName::Dram);
        check("pmem", TierName::Pmem);
        check("cxl", TierName::Cxl);
        check("hbm", TierName::Hbm);
        check("slow", TierName::Slow);
    }

    #[test]
    fn references_are_read_as_they_are_shown() {
        let check = |text: &str, tier: TierRef| {
            assert_eq!(text.parse(), Ok(tier));
            assert_eq!(tier.to_string(), text);
        };
        check("dram", TierRef::Name(TierName::Dram));
        check("slow", TierRef::Name(TierName::Slow));
        check("0", TierRef::Rank(0));
        check("1", TierRef::Rank(1));
        check("255", TierRef::Rank(255));
    }

    #[test]
    fn what_names_no_tier_is_refused_with_its_reason() {
        let check = |text: &str, error: TierParseError| assert_eq!(text.parse::<TierRef>(), Err(error));
        check("", TierParseError::Empty);
        check("256", TierParseError::RankTooGreat("256".into()));
        for text in ["DRAM", " dram", "+1", "-1", "1.0", "nvme"] {
            check(text, TierParseError::UnknownRef(text.into()));
        }
        // A rank is no name.
        assert_eq!("0".parse::<TierName>(), Err(TierParseError::UnknownName("0".into())));
    }
}
