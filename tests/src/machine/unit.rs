//! Numbers with their units, as the files have them.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// Bytes: `1536Mi`, `2Gi`; whole MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

/// Nanoseconds: `250ns`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency(pub(super) u64);

/// GiB a second: `40Gi`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bandwidth(pub(super) u64);

/// A whole number above zero, before one of these suffixes, times what the suffix stands for.
fn number(text: &str, suffixes: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) =
        suffixes.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(*unit).filter(|number| *number > 0)
}

macro_rules! unit {
    ($type:ident, $suffixes:expr, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let number = number(&text, $suffixes);
                number
                    .map(Self)
                    .ok_or_else(|| D::Error::custom(format!(concat!("`{}` is no ", $expected), text)))
            }
        }
    };
}
unit!(Size, &[("Mi", 1 << 20), ("Gi", 1 << 30)], "size; write it like 1536Mi or 2Gi");
unit!(Latency, &[("ns", 1)], "latency; write it like 250ns");
unit!(Bandwidth, &[("Gi", 1)], "bandwidth; write what passes in a second like 40Gi");
