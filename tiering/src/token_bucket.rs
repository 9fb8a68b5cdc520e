//! A rate cap that holds over any window.

use core::time::Duration;

use crate::units::{ByteRate, Bytes, Instant};

/// Lets bytes pass at a rate, with bursts of at most one second's worth or one huge page, whichever is more.
///
/// Over any window of length `t`, at most `rate * t + burst` bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    rate: ByteRate,
    /// Below zero after work that overshot its grant, by at most a folio.
    tokens: i64,
    refilled: Instant,
}

impl TokenBucket {
    /// A 2 MiB page is moved whole or not at all.
    const LEAST_BURST: Bytes = Bytes::mib(2);

    /// A full bucket.
    #[must_use]
    pub fn new(rate: ByteRate, now: Instant) -> Self {
        let mut bucket = Self { rate, tokens: 0, refilled: now };
        bucket.tokens = signed(bucket.burst());
        bucket
    }

    /// Most bytes that can pass at once.
    #[must_use]
    pub fn burst(&self) -> Bytes {
        Bytes(self.rate.0).max(Self::LEAST_BURST)
    }

    /// Changes the rate from `now` on.
    pub fn set_rate(&mut self, rate: ByteRate, now: Instant) {
        self.refill(now);
        self.refilled = self.refilled.max(now);
        self.rate = rate;
        self.tokens = self.tokens.min(signed(self.burst()));
    }

    /// What may pass now.
    pub fn available(&mut self, now: Instant) -> Bytes {
        self.refill(now);
        Bytes(u64::try_from(self.tokens).unwrap_or(0))
    }

    /// Spends what has passed.
    pub fn spend(&mut self, bytes: Bytes, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.saturating_sub(signed(bytes));
    }

    fn refill(&mut self, now: Instant) {
        let burst = signed(self.burst());
        let refill = self.rate.over(now.since(self.refilled));
        self.tokens = self.tokens.saturating_add(signed(refill));
        if self.tokens >= burst {
            (self.tokens, self.refilled) = (burst, self.refilled.max(now));
        } else {
            // Only the time that whole bytes took is used up; the rest counts for the next refill.
            let nanos = (u128::from(refill.0) * 1_000_000_000).div_ceil(u128::from(self.rate.0.max(1)));
            self.refilled = self.refilled + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
    }
}

fn signed(bytes: Bytes) -> i64 {
    i64::try_from(bytes.0).unwrap_or(i64::MAX)
}
