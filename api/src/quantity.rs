//! Amounts, rates and shares.

use std::fmt;
use std::str::FromStr;

use tiering::{ByteRate, Bytes, Ratio, Share};

use crate::notation::{Notation, ParseError, decimal, split_number, wire_notation};

/// An amount of memory in Kubernetes' notation: `256Mi`, `1.5Gi`, `1G`, `1e9`, plain bytes.
///
/// A part of a byte counts as a whole one, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub Bytes);

/// Bytes per second, written like a [`Quantity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub ByteRate);

/// A share in percent, `0%` to `100%`, exact to 0.0001 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentage(pub Ratio);

/// A factor between 0 and 1: `0.9` or `90%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(pub Ratio);

/// An amount of memory, or a share in percent of a cgroup's anonymous memory on all tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireShare(pub Share);

wire_notation! {
    Quantity: { "x-kubernetes-int-or-string": true, "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE]\\+?[0-9]{1,2})?$", "maxLength": 32 },
    Rate: { "x-kubernetes-int-or-string": true, "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE]\\+?[0-9]{1,2})?$", "maxLength": 32 },
    Percentage: { "type": "string", "pattern": "^(100(\\.0{1,4})?|[0-9]{1,2}(\\.[0-9]{1,4})?)%$", "maxLength": 8 },
    // A number has no type that is also a string's: text in the cluster, either in a file.
    Factor: { "type": "string", "pattern": "^(0(\\.[0-9]{1,6})?|1(\\.0{1,6})?|(100(\\.0{1,4})?|[0-9]{1,2}(\\.[0-9]{1,4})?)%)$", "maxLength": 8 },
    WireShare: { "x-kubernetes-int-or-string": true, "pattern": "^([0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE]\\+?[0-9]{1,2})?|(100(\\.0{1,4})?|[0-9]{1,2}(\\.[0-9]{1,4})?)%)$", "maxLength": 32 },
}

impl Notation for Quantity {
    const WHAT: &'static str = "an amount of memory";
    const ACCEPTED: &'static str = "bytes, or a number with Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024) or k, M, G, T, P, E (of 1000), \
         for example 256Mi or 1.5Gi";
}

impl Notation for Rate {
    const WHAT: &'static str = "a rate";
    const ACCEPTED: &'static str = "the bytes per second like an amount of memory, for example 200Mi or 1Gi";
}

impl Notation for Percentage {
    const WHAT: &'static str = "a percentage";
    const ACCEPTED: &'static str = "0% to 100% with at most four decimals, for example 60% or 0.2%";
}

impl Notation for Factor {
    const WHAT: &'static str = "a factor";
    const ACCEPTED: &'static str =
        "0 to 1 with at most six decimals, or a percentage, for example 0.9 or 90%";
}

impl Notation for WireShare {
    const WHAT: &'static str = "an amount of memory or a percentage";
    const ACCEPTED: &'static str =
        "an amount, for example 256Mi or 1.5Gi, or a share of the cgroup's anonymous memory, for example 60%";
}

const BINARY: [(&str, u128); 6] =
    [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40), ("Pi", 1 << 50), ("Ei", 1 << 60)];
const DECIMAL: [(&str, u128); 7] = [
    ("", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// Bytes, or what is wrong with the text.
fn bytes(text: &str) -> Result<u64, Option<&'static str>> {
    if text.starts_with('-') {
        return Err(Some("it is negative"));
    }
    let (number, unit) = split_number(text);
    let (digits, places) = decimal(number).ok_or(None)?;
    let unit = match BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == unit) {
        Some((_, size)) => *size,
        None => exponent(unit).ok_or_else(|| Some(unit_hint(unit)))?,
    };
    let product = digits.checked_mul(unit).ok_or(Some("it is more than 16Ei"))?;
    u64::try_from(product.div_ceil(10_u128.pow(places))).map_err(|_| Some("it is more than 16Ei"))
}

impl Quantity {
    /// Reads any amount that Kubernetes takes and API servers return, which is more than users of ours need to write: a sign, digits
    /// on either side of the point alone, `n`, `u`, `m`, exponents of either sign.
    ///
    /// A part of a byte counts as a whole one, and more than fits is as much as fits. `None` for what is negative or no amount.
    /// Source: `resource.ParseQuantity` of Kubernetes.
    #[must_use]
    pub fn of_kubernetes(text: &str) -> Option<Self> {
        const BELOW_ONE: [(&str, i64); 3] = [("m", -3), ("u", -6), ("n", -9)];
        /// With fewer digits than this, ten times as much and 2^60 fit in 128 bits.
        const MOST: u128 = 10_u128.pow(18);
        let (number, unit) = split_number(text.strip_prefix('+').unwrap_or(text));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.len() + fraction.len() == 0 {
            return None;
        }
        let of_ten = |unit: &str| {
            let above = DECIMAL.iter().find(|(name, _)| *name == unit);
            let above = above.map(|(_, size)| i64::from(size.ilog10()));
            above.or_else(|| BELOW_ONE.iter().find(|(name, _)| *name == unit).map(|(_, exponent)| *exponent))
        };
        let (size, mut exponent) = match BINARY.iter().find(|(name, _)| *name == unit) {
            Some((_, size)) => (*size, 0),
            None => (
                1,
                of_ten(unit).or_else(|| unit.strip_prefix(['e', 'E'])?.parse::<i32>().ok().map(i64::from))?,
            ),
        };
        let (mut digits, mut inexact) = (0_u128, false);
        for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
            let is_whole = place < whole.len();
            if digits < MOST {
                digits = digits * 10 + u128::from(digit - b'0');
                exponent -= i64::from(!is_whole);
            } else {
                inexact |= digit != b'0';
                exponent += i64::from(is_whole);
            }
        }
        let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|power| 10_u128.checked_pow(power));
        let product = digits * size;
        let bytes = match (exponent >= 0, power) {
            _ if product == 0 => u128::from(inexact),
            (true, power) => product.saturating_mul(power.unwrap_or(u128::MAX)),
            (false, None) => 1,
            (false, Some(power)) if inexact => product / power + 1,
            (false, Some(power)) => product.div_ceil(power),
        };
        Some(Self(Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))))
    }
}

/// `e9` or `E9`.
fn exponent(unit: &str) -> Option<u128> {
    let digits = unit.strip_prefix(['e', 'E'])?;
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let exponent: u32 = digits.parse().ok()?;
    (exponent <= 19).then(|| 10_u128.pow(exponent))
}

fn unit_hint(unit: &str) -> &'static str {
    match unit {
        "m" => "m means thousandths; mega is M, mebi is Mi",
        "K" => "kilo is k, kibi is Ki",
        "%" => "a percentage has no meaning here",
        _ if unit.starts_with(char::is_whitespace) => "there is a space before the unit",
        _ if unit.ends_with("/s") => "leave out the /s",
        _ if unit.ends_with(['B', 'b']) => "leave out the B",
        _ if BINARY.iter().chain(&DECIMAL).any(|(name, _)| name.eq_ignore_ascii_case(unit)) => {
            "units are case-sensitive"
        }
        _ => "there is no such unit",
    }
}

/// Parts per million of a number in units of `whole` parts per million, or what is wrong with the text. As strict as the schemas'
/// patterns, so that an annotation takes what a policy takes.
fn ratio(number: &str, whole: u128) -> Result<Ratio, Option<&'static str>> {
    if number.starts_with('-') {
        return Err(Some("it is negative"));
    }
    let (digits, places) = decimal(number).ok_or(None)?;
    let scale = 10_u128.pow(places);
    let ppm = digits.checked_mul(whole).ok_or(Some("it is more than the whole"))?;
    if ppm > u128::from(Ratio::ONE.ppm()) * scale {
        return Err(Some("it is more than the whole"));
    }
    let (whole_part, decimals) = number.split_once('.').unwrap_or((number, ""));
    let (most_digits, most_decimals) = if whole == PERCENT { (2, 4) } else { (1, 6) };
    if decimals.len() > most_decimals {
        return Err(Some("it has too many decimals"));
    }
    if whole_part.len() > most_digits && whole_part.starts_with('0') {
        return Err(Some("it begins with zeros that mean nothing"));
    }
    u32::try_from(ppm / scale).ok().and_then(Ratio::from_ppm).ok_or(None)
}

const PERCENT: u128 = 10_000;

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        bytes(text).map(|bytes| Self(Bytes(bytes))).map_err(|hint| Self::refuse(text, hint))
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        bytes(text).map(|bytes| Self(ByteRate(bytes))).map_err(|hint| Self::refuse(text, hint))
    }
}

impl FromStr for Percentage {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = text.strip_suffix('%').ok_or_else(|| Self::refuse(text, Some("it has no % sign")))?;
        ratio(number, PERCENT).map(Self).map_err(|hint| Self::refuse(text, hint))
    }
}

impl FromStr for Factor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parsed = match text.strip_suffix('%') {
            Some(number) => ratio(number, PERCENT),
            None => ratio(text, u128::from(Ratio::ONE.ppm())),
        };
        parsed.map(Self).map_err(|hint| Self::refuse(text, hint))
    }
}

impl FromStr for WireShare {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.ends_with('%') {
            text.parse().map(|Percentage(ratio)| Self(Share::OfFootprint(ratio)))
        } else {
            text.parse()
                .map(|Quantity(bytes)| Self(Share::Bytes(bytes)))
                .map_err(|error: ParseError| Self::refuse(text, error.hint))
        }
    }
}

impl fmt::Display for Quantity {
    /// In the greatest power of 1024 that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = u128::from(self.0.0);
        match BINARY.iter().rev().find(|(_, size)| bytes != 0 && bytes.is_multiple_of(*size)) {
            Some((name, size)) => write!(f, "{}{name}", bytes / size),
            None => write!(f, "{bytes}"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quantity(Bytes(self.0.0)).fmt(f)
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0.ppm(), 10_000)?;
        f.write_str("%")
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0.ppm(), 1_000_000)
    }
}

impl fmt::Display for WireShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Share::Bytes(bytes) => Quantity(bytes).fmt(f),
            Share::OfFootprint(ratio) => Percentage(ratio).fmt(f),
        }
    }
}

/// `value / one` with no more decimals than it needs; `one` is a power of ten.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u32, one: u32) -> fmt::Result {
    let (whole, mut rest, mut unit) = (value / one, value % one, one / 10);
    write!(f, "{whole}")?;
    if rest > 0 {
        f.write_str(".")?;
    }
    while rest > 0 {
        write!(f, "{}", rest / unit)?;
        rest %= unit;
        unit /= 10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_in_kubernetes() {
        let check = |text: &str, bytes: u64, canonical: &str| {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity, Quantity(Bytes(bytes)), "{text}");
            assert_eq!(quantity.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(quantity), "{canonical}");
        };
        check("0", 0, "0");
        check("4096", 4096, "4Ki");
        check("256Mi", 256 << 20, "256Mi");
        check("1.5Gi", 3 << 29, "1536Mi");
        check("1G", 1_000_000_000, "1000000000");
        check("12k", 12_000, "12000");
        check("1e9", 1_000_000_000, "1000000000");
        check("1.5E3", 1_500, "1500");
        check("2E", 2_000_000_000_000_000_000, "1953125000000000Ki");
        check("0.1Gi", 107_374_183, "107374183");
        check("15.5Ei", 31 << 59, "15872Pi");
        check("18446744073709551615", u64::MAX, "18446744073709551615");
    }

    #[test]
    fn what_an_api_server_returns_is_read_in_every_notation_and_rounded_up() {
        let check = |text: &str, bytes: u64| {
            assert_eq!(Quantity::of_kubernetes(text), Some(Quantity(Bytes(bytes))), "{text}");
        };
        check("0", 0);
        check("128974848", 128_974_848);
        check("+5", 5);
        check(".5Gi", 1 << 29);
        check("5.", 5);
        check("1.5Gi", 3 << 29);
        check("0.1Gi", 107_374_183);
        check("128974848000m", 128_974_848);
        check("1500m", 2);
        check("1m", 1);
        check("357910397752320u", 357_910_398);
        check("715820795504640u", 715_820_796);
        check("1000000001n", 2);
        check("1n", 1);
        check("0n", 0);
        check("129e6", 129_000_000);
        check("129E+6", 129_000_000);
        check("12e-3", 1);
        check("1500e-3", 2);
        check("2E", 2_000_000_000_000_000_000);
        check("0.333333333333333333333333333333333333333333Gi", 357_913_942);
        check("1000000000000000000000000000000000000000e-36", 1000);
        check("1e-400", 1);
        check("1e400", u64::MAX);
        check("16Ei", u64::MAX);
        check("99999999999999999999999999999999999999999999", u64::MAX);
        for text in
            ["", "Gi", ".", "-1Gi", "1.2.3", "1K", "1mi", "64MB", "1e", "1 Gi", "much", "1e9Gi", "--1", "+-1"]
        {
            assert_eq!(Quantity::of_kubernetes(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_says_why() {
        let check = |text: &str, hint: &str| {
            let shown = text.parse::<Quantity>().unwrap_err().to_string();
            assert!(
                shown.starts_with(&format!("`{text}` is not an amount of memory{hint}: write bytes")),
                "{shown}"
            );
            assert!(shown.ends_with("for example 256Mi or 1.5Gi"), "{shown}");
        };
        check("", "");
        check("Mi", "");
        check(".5Gi", "");
        check("5.Gi", "");
        check("1.2.3", "");
        check("+5", "");
        check("-1Gi", " (it is negative)");
        check("64m", " (m means thousandths; mega is M, mebi is Mi)");
        check("64K", " (kilo is k, kibi is Ki)");
        check("64MB", " (leave out the B)");
        check("64MiB", " (leave out the B)");
        check("64 Mi", " (there is a space before the unit)");
        check("64mi", " (units are case-sensitive)");
        check("64Xi", " (there is no such unit)");
        check("60%", " (a percentage has no meaning here)");
        check("16Ei", " (it is more than 16Ei)");
        check("1e20", " (there is no such unit)");
        check("1111111111111111111111111", "");
        check("99999999999999999999Ei", " (it is more than 16Ei)");
    }

    #[test]
    fn rates_are_amounts_per_second() {
        assert_eq!("200Mi".parse(), Ok(Rate(ByteRate::mib_per_s(200))));
        let shown = "200Mi/s".parse::<Rate>().unwrap_err().to_string();
        assert!(shown.contains("is not a rate (leave out the /s)"), "{shown}");
    }

    #[test]
    fn percentages_are_exact_to_parts_per_million() {
        let check = |text: &str, ppm: u32| {
            let percentage: Percentage = text.parse().unwrap();
            assert_eq!(percentage.0.ppm(), ppm, "{text}");
            assert_eq!(percentage.to_string().parse(), Ok(percentage), "{percentage}");
        };
        check("0%", 0);
        check("0.2%", 2_000);
        check("0.0001%", 1);
        check("33.3333%", 333_333);
        check("60.50%", 605_000);
        check("100%", 1_000_000);
    }

    #[test]
    fn what_is_not_a_percentage_says_why() {
        let check = |text: &str, hint: &str| {
            let shown = text.parse::<Percentage>().unwrap_err().to_string();
            assert!(shown.starts_with(&format!("`{text}` is not a percentage{hint}: write 0%")), "{shown}");
        };
        check("0.2", " (it has no % sign)");
        check("%", "");
        check("-1%", " (it is negative)");
        check("100.1%", " (it is more than the whole)");
        check("0.00001%", " (it has too many decimals)");
        check("0.50000%", " (it has too many decimals)");
        check("000%", " (it begins with zeros that mean nothing)");
        check("60 %", "");
    }

    #[test]
    fn factors_are_numbers_or_percentages() {
        let check = |text: &str, ppm: u32| {
            let factor: Factor = text.parse().unwrap();
            assert_eq!(factor.0.ppm(), ppm);
            assert_eq!(factor.to_string().parse(), Ok(factor));
        };
        check("0.9", 900_000);
        check("90%", 900_000);
        check("1", 1_000_000);
        check("0.000001", 1);
        assert_eq!("1.1".parse::<Factor>().unwrap_err().hint, Some("it is more than the whole"));
        assert!("00.9".parse::<Factor>().is_err() && "0.9000000".parse::<Factor>().is_err());
    }

    #[test]
    fn shares_are_amounts_or_percentages() {
        let check = |text: &str, share| assert_eq!(text.parse(), Ok(WireShare(share)));
        check("256Mi", Share::Bytes(Bytes::mib(256)));
        check("60%", Share::OfFootprint(Ratio::of_parts(60, 100)));
        assert_eq!("60pc".parse::<WireShare>().unwrap_err().hint, Some("there is no such unit"));
    }

    #[test]
    fn numbers_without_quotes_are_read_too() {
        let check = |json: &str, bytes: u64| {
            assert_eq!(serde_json::from_str::<Quantity>(json).unwrap(), Quantity(Bytes(bytes)), "{json}");
        };
        check("1048576", 1 << 20);
        check("\"1Mi\"", 1 << 20);
        check("1e9", 1_000_000_000);
        assert_eq!(serde_json::from_str::<Factor>("0.9").unwrap().0.ppm(), 900_000);
        let shown = serde_json::from_str::<Quantity>("true").unwrap_err().to_string();
        assert!(shown.contains("expected an amount of memory: write bytes"), "{shown}");
    }
}
