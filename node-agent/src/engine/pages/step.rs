//! Folios to another node, in bounded calls.

use std::time::{Duration, Instant as Clock};

use host::pages::movable::Movable;
use host::pages::move_pages::{MoveError, MoveOutcome, move_pages};
use tiering::{Bytes, NodeId};

use super::bytes as bytes_of;
use crate::engine::Moved;

/// Folios of one call: a multiple of the kernel's migration batch of 512, so that TLB flushes are shared.
const CALL_FOLIOS: usize = 4096;

/// Bytes of one call, overshot by one folio: huge pages are few and large.
const CALL_BYTES: Bytes = Bytes::mib(16);

/// The moves of one round for one cgroup, and what bounds them.
pub(super) struct Step {
    pub(super) most: Bytes,
    pub(super) began: Clock,
    pub(super) budget: Duration,
    pub(super) moved: Moved,
}

impl Step {
    /// Whether enough was moved, or the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.moved.bytes >= self.most || self.began.elapsed() >= self.budget
    }

    /// Moves folios until the step is over; whether all were tried. Sets `touched` where it had to read some of them.
    pub(super) fn move_folios(
        &mut self,
        pid: i32,
        folios: &[Movable],
        to: NodeId,
        touched: &mut bool,
    ) -> bool {
        let mut rest = folios;
        while !rest.is_empty() {
            if self.is_over() {
                return false;
            }
            let (now, later) = rest.split_at(self.next_call(rest));
            rest = later;
            self.moved.tried += now.iter().map(bytes_of).sum();
            let addresses: Vec<u64> = now.iter().map(|folio| folio.address).collect();
            match move_pages(pid, &addresses, to.0) {
                Ok(outcome) => {
                    *touched |= outcome.touched > 0;
                    self.note(now, &outcome);
                }
                Err(MoveError::Gone(_)) => return true,
                Err(error) => {
                    let reason = match error {
                        MoveError::OutsideCpuset(_) => "target_not_allowed",
                        MoveError::NoSuchNode(_) => "target_gone",
                        MoveError::Denied(_) => "denied",
                        _ => "error",
                    };
                    tracing::debug!(%error, "pages stay where they are");
                    self.moved.count(reason, now.iter().map(|folio| folio.pages).sum());
                    return true;
                }
            }
        }
        true
    }

    /// How many of these folios the next call takes.
    fn next_call(&self, folios: &[Movable]) -> usize {
        let most = (self.most - self.moved.bytes).min(CALL_BYTES);
        let mut bytes = Bytes::ZERO;
        let fits = folios.iter().take(CALL_FOLIOS).take_while(|folio| {
            let fits = bytes < most;
            bytes += bytes_of(folio);
            fits
        });
        fits.count().max(1)
    }

    fn note(&mut self, folios: &[Movable], outcome: &MoveOutcome) {
        // The kernel answers by folio. Those of one mapping are mostly of one size, so each has an even share of what they hold.
        let share = |whole: u64, part: u64| {
            let share = u128::from(whole) * u128::from(part) / folios.len().max(1) as u128;
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let bytes: Bytes = folios.iter().map(bytes_of).sum();
        self.moved.bytes += Bytes(share(bytes.0, outcome.moved));
        let pages = folios.iter().map(|folio| folio.pages).sum();
        let failed = outcome.failed;
        for (reason, count) in [
            ("busy", failed.busy),
            ("not_present", failed.not_present),
            ("not_movable", failed.not_movable),
            ("no_memory", failed.no_memory),
            ("shared", failed.shared),
            ("unknown", failed.unknown),
        ] {
            self.moved.count(reason, share(pages, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use host::pages::move_pages::Failures;

    use super::*;

    #[test]
    fn what_fails_is_counted_in_base_pages_as_what_moves_is_in_bytes() {
        let folios = [0, 1, 2, 3].map(|i| Movable { address: i << 21, pages: 512 });
        let outcome = MoveOutcome {
            moved: 1,
            failed: Failures { busy: 2, no_memory: 1, ..Failures::default() },
            ..MoveOutcome::default()
        };
        let mut step = Step {
            most: Bytes::mib(16),
            began: Clock::now(),
            budget: Duration::from_secs(1),
            moved: Moved::default(),
        };
        step.note(&folios, &outcome);
        assert_eq!(step.moved.bytes, bytes_of(&folios[0]));
        assert_eq!(step.moved.failed.into_iter().collect::<Vec<_>>(), [("busy", 1024), ("no_memory", 512)]);
    }
}
