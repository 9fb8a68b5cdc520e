//! How often a status is written.

use std::time::{Duration, Instant};

/// When the next status may be written.
#[derive(Clone, Debug)]
pub struct Pace {
    between_writes: Duration,
    tried: Option<Instant>,
}

impl Pace {
    /// At most one write in `between_writes`.
    #[must_use]
    pub fn new(between_writes: Duration) -> Self {
        Self { between_writes, tried: None }
    }

    /// Whether a status may be written now.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= self.between_writes)
    }

    /// A write was tried; one that failed counts, so that an API server in trouble is not asked more often.
    pub fn tried(&mut self, now: Instant) {
        self.tried = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_have_their_least_distance() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10));
        assert!(pace.allows(at(0)));
        pace.tried(at(0));
        assert!(!pace.allows(at(9)) && pace.allows(at(10)));
    }
}
