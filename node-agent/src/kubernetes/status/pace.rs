//! How often a status is written.

use std::time::{Duration, Instant};

/// When the next status may be written, and when usage is to be read anew.
#[derive(Clone, Debug)]
pub struct Pace {
    between_writes: Duration,
    between_usages: Duration,
    tried: Option<Instant>,
    usage_read: Option<Instant>,
}

impl Pace {
    /// At most one write in `between_writes`, usage once in `between_usages`.
    #[must_use]
    pub fn new(between_writes: Duration, between_usages: Duration) -> Self {
        Self { between_writes, between_usages, tried: None, usage_read: None }
    }

    /// Whether a status may be written now.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= self.between_writes)
    }

    /// Whether the next status is to have new usage.
    #[must_use]
    pub fn wants_usage(&self, now: Instant) -> bool {
        self.usage_read.is_none_or(|read| now.saturating_duration_since(read) >= self.between_usages)
    }

    /// A write was tried; one that failed counts, so that an API server in trouble is not asked more often.
    pub fn tried(&mut self, now: Instant) {
        self.tried = Some(now);
    }

    /// Usage was read, and was written or has not changed.
    pub fn read_usage(&mut self, now: Instant) {
        self.usage_read = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_usages_have_their_least_distances() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10), Duration::from_mins(5));
        assert!(pace.allows(at(0)) && pace.wants_usage(at(0)));
        pace.tried(at(0));
        pace.read_usage(at(0));
        for (second, allows, usage) in
            [(9, false, false), (10, true, false), (299, true, false), (300, true, true)]
        {
            assert_eq!((pace.allows(at(second)), pace.wants_usage(at(second))), (allows, usage), "{second}");
        }
        pace.tried(at(300));
        assert!(!pace.allows(at(309)) && pace.wants_usage(at(309)), "a write that failed had no usage");
    }
}
