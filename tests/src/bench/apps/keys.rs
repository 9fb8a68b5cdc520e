//! Which keys a load asks for, and what their values are.

/// Of the width of the curve, what is asked for on either side of its middle.
const REACH: f64 = 3.5;

/// Keys by a Gaussian curve over the order in which they were stored. What is farther from its middle than its reach nobody asks for.
pub(super) struct Keys {
    random: fastrand::Rng,
    count: u32,
    middle: f64,
    width: f64,
}

impl Keys {
    /// Around a fifth of all keys: half are never asked for, a quarter most of the time.
    pub(super) fn new(count: u32, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, count, middle: 0.2 * f64::from(count), width: 0.05 * f64::from(count) }
    }

    /// Around others.
    pub(super) fn shift(&mut self) {
        self.middle = 0.35 * f64::from(self.count);
    }

    /// The next.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of keys"
    )]
    pub(super) fn next(&mut self) -> u32 {
        loop {
            // The sum of twelve numbers between 0 and 1 is as good as a normal one.
            let normal: f64 = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
            if normal.abs() <= REACH {
                let key = self.middle + normal * self.width;
                return (key.max(0.0) as u32).min(self.count - 1);
            }
        }
    }

    /// Whether it is one time in so many.
    pub(super) fn one_in(&mut self, times: u32) -> bool {
        self.random.u32(..times) == 0
    }
}

/// Writes a key's value, which is no other's. Cheap, for in a guest it costs what the application costs.
pub(super) fn put_value(key: u32, bytes: usize, into: &mut Vec<u8>) {
    let end = into.len() + bytes;
    let mut word = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while into.len() < end {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        // Printable: none ends a line.
        into.extend_from_slice(&((word & 0x3f3f_3f3f_3f3f_3f3f) + 0x3030_3030_3030_3030).to_le_bytes());
    }
    into.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_keys_are_never_asked_for_whatever_shifts() {
        let mut keys = Keys::new(1000, 7);
        let most = |keys: &mut Keys| (0..100_000).map(|_| keys.next()).max().unwrap();
        assert!((370..=376).contains(&most(&mut keys)));
        keys.shift();
        assert!((520..=526).contains(&most(&mut keys)));
    }

    #[test]
    fn a_value_has_its_length_and_is_its_keys() {
        let value = |key| {
            let mut value = b"x".to_vec();
            put_value(key, 1000, &mut value);
            value
        };
        assert_eq!(value(1).len(), 1001);
        assert_eq!(value(1), value(1));
        assert_ne!(value(1), value(2));
    }
}
