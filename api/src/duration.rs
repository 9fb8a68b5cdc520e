//! Lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::notation::{Notation, ParseError, decimal, split_number, wire_notation};

/// A length of time in Go's notation, as Kubernetes' objects have it: `2m`, `90s`, `1h30m`, `1.5h`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireDuration(pub Duration);

wire_notation! {
    WireDuration: { "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(h|m|s|ms|us|ns))+$", "maxLength": 40 }
}

impl Notation for WireDuration {
    const WHAT: &'static str = "a duration";
    const ACCEPTED: &'static str = "numbers with h, m, s, ms, us or ns, for example 90s, 2m or 1h30m";
}

const UNITS: [(&str, u128); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    // U+00B5 and U+03BC look the same; Go takes both.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ns", 1),
];

fn nanoseconds(text: &str) -> Result<u64, Option<&'static str>> {
    if text.is_empty() {
        return Err(Some("it is empty"));
    }
    if text.starts_with('-') {
        return Err(Some("it is negative"));
    }
    let (mut sum, mut rest) = (0_u128, text);
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let (digits, places) = decimal(number).ok_or(None)?;
        let (name, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or(Some(unit_hint(name)))?;
        let part = digits.checked_mul(*unit).ok_or(Some("it is longer than 500 years"))?;
        sum = sum.checked_add(part / 10_u128.pow(places)).ok_or(Some("it is longer than 500 years"))?;
        rest = after;
    }
    u64::try_from(sum).map_err(|_| Some("it is longer than 500 years"))
}

fn unit_hint(unit: &str) -> &'static str {
    match unit {
        "" => "it has no unit",
        "d" => "there is no unit for days; 1 day is 24h",
        "min" => "minutes are m",
        "sec" => "seconds are s",
        _ if unit.contains(char::is_whitespace) => "there is a space in it",
        _ => "there is no such unit",
    }
}

impl FromStr for WireDuration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        nanoseconds(text).map(|ns| Self(Duration::from_nanos(ns))).map_err(|hint| Self::refuse(text, hint))
    }
}

impl From<WireDuration> for Duration {
    fn from(duration: WireDuration) -> Self {
        duration.0
    }
}

impl fmt::Display for WireDuration {
    /// The largest units first, without those that are zero: `1h30m`, `2m`, `1s500ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.0.as_nanos();
        for (name, unit) in UNITS.iter().filter(|(name, _)| name.is_ascii()) {
            if rest >= *unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let check = |text: &str, milliseconds: u64, canonical: &str| {
            let duration: WireDuration = text.parse().unwrap();
            assert_eq!(duration, WireDuration(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(duration.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(duration));
        };
        check("0s", 0, "0s");
        check("250ms", 250, "250ms");
        check("90s", 90_000, "1m30s");
        check("2m", 120_000, "2m");
        check("2m0s", 120_000, "2m");
        check("1h30m", 5_400_000, "1h30m");
        check("1.5h", 5_400_000, "1h30m");
        check("0.25s", 250, "250ms");
        check("1000us", 1, "1ms");
        check("1000\u{b5}s", 1, "1ms");
        check("1000000ns", 1, "1ms");
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        let check = |text: &str, hint: &str| {
            let shown = text.parse::<WireDuration>().unwrap_err().to_string();
            let expected = format!(
                "`{text}` is not a duration{hint}: write numbers with h, m, s, ms, us or ns, for example 90s, 2m or 1h30m"
            );
            assert_eq!(shown, expected);
        };
        check("", " (it is empty)");
        check("soon", "");
        check("120", " (it has no unit)");
        check("1.5", " (it has no unit)");
        check("1h30", " (it has no unit)");
        check("-2m", " (it is negative)");
        check("7d", " (there is no unit for days; 1 day is 24h)");
        check("2min", " (minutes are m)");
        check("30sec", " (seconds are s)");
        check("2 m", " (there is a space in it)");
        check("2M", " (there is no such unit)");
        check(".5s", "");
        check("1..5s", "");
        check("99999999h", " (it is longer than 500 years)");
    }

    #[test]
    fn a_number_without_quotes_lacks_its_unit() {
        let shown = serde_json::from_str::<WireDuration>("120").unwrap_err().to_string();
        assert!(shown.starts_with("`120` is not a duration (it has no unit)"), "{shown}");
    }
}
