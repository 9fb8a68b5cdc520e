//! Quantities that must not be mixed up.

use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::time::Duration;

/// An amount of memory in bytes. Arithmetic saturates: a sample that races with the kernel may be off by a page,
/// and no decision may wrap because of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than any host has.
    pub const MAX: Self = Self(u64::MAX);

    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// This many bytes rounded down to whole units of `unit` bytes.
    #[must_use]
    pub const fn round_down(self, unit: u64) -> Self {
        Self(self.0 / unit * unit)
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(size, _)| self.0 >= *size) {
            None => write!(f, "{} B", self.0),
            Some((size, name)) => {
                let tenths = (u128::from(self.0) * 10 + u128::from(size / 2)) / u128::from(*size);
                if tenths % 10 == 0 || tenths >= 1000 {
                    write!(f, "{} {name}", tenths / 10)
                } else {
                    write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
                }
            }
        }
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub u64);

impl ByteRate {
    /// `n` mebibytes per second.
    #[must_use]
    pub const fn mib_per_s(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// What may pass in `time` at this rate.
    #[must_use]
    pub fn over(self, time: Duration) -> Bytes {
        let bytes = u128::from(self.0).saturating_mul(time.as_nanos()) / 1_000_000_000;
        Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Bytes(self.0))
    }
}

/// A share of a whole, in parts per million; 1 % is 10 000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// Nothing of the whole.
    pub const ZERO: Self = Self(0);
    /// The whole.
    pub const ONE: Self = Self(1_000_000);

    /// `ppm` parts per million; `None` above the whole.
    #[must_use]
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm <= Self::ONE.0 { Some(Self(ppm)) } else { None }
    }

    /// `part` of `whole`, capped at the whole; zero of nothing.
    #[must_use]
    pub fn of_parts(part: u128, whole: u128) -> Self {
        if whole == 0 {
            return Self::ZERO;
        }
        Self(u32::try_from((part.saturating_mul(1_000_000) / whole).min(1_000_000)).unwrap_or(1_000_000))
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: Bytes) -> Bytes {
        let bytes = u128::from(whole.0) * u128::from(self.0) / 1_000_000;
        Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Parts per million, 0 to 1 000 000.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, rest) = (self.0 / 10_000, self.0 % 10_000);
        match rest {
            0 => write!(f, "{percent} %"),
            _ if rest % 1_000 == 0 => write!(f, "{percent}.{} %", rest / 1_000),
            _ if rest % 100 == 0 => write!(f, "{percent}.{:02} %", rest / 100),
            _ => write!(f, "{percent}.{rest:04} %"),
        }
    }
}

/// A point in time, as the time since an epoch of the caller's choice that never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Duration);

impl Instant {
    /// How long ago `earlier` was; nothing if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn bytes_are_shown_with_three_figures_at_the_most() {
        let check = |bytes: u64, shown: &str| assert_eq!(Bytes(bytes).to_string(), shown);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1 KiB");
        check(1536 << 10, "1.5 MiB");
        check(200 << 20, "200 MiB");
        check(u64::MAX, "17179869184 GiB");
    }

    #[test]
    fn ratios_are_shown_as_they_are_written() {
        let check = |ppm: u32, shown: &str| assert_eq!(Ratio::from_ppm(ppm).unwrap().to_string(), shown);
        check(600_000, "60 %");
        check(2_000, "0.2 %");
        check(1_500, "0.15 %");
        check(1, "0.0001 %");
        assert_eq!(Ratio::from_ppm(1_000_001), None);
    }

    #[test]
    fn a_rate_over_a_time_is_an_amount() {
        assert_eq!(ByteRate::mib_per_s(200).over(Duration::from_millis(500)), Bytes::mib(100));
        assert_eq!(ByteRate(u64::MAX).over(Duration::MAX), Bytes::MAX);
    }
}
