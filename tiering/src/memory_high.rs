//! What `memory.high` should be now.
//!
//! It bounds the footprint on all tiers. Demotion does not uncharge, so a `memory.high` below usage makes the kernel
//! demote everything and then throttle (kernel: `memory_high_write()` loops on progress that demotion always makes).
//! So it is never written below present usage: where the policy wants less, it steps down as usage falls.

use crate::policy::MemoryHighPolicy;
use crate::units::{Bytes, Ratio};

/// Room that is always left between usage and a limit of ours: charges between our reading and our writing must fit.
/// At least 16 MiB, else 1/32 of usage.
fn slack(current: Bytes) -> Bytes {
    Bytes::mib(16).max(Bytes(current.0 / 32))
}

/// KEP-2570: `memory.high = floor[(request + factor * (limit - request)) / page] * page`, where the limit is the
/// node's allocatable memory for a container without one.
#[must_use]
pub fn formula(request: Bytes, limit: Bytes, factor: Ratio, page: u64) -> Bytes {
    (request + factor.of(limit - request)).round_down(page.max(1))
}

/// What to write, and whether it is where the policy wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The policy asks for nothing below what the file held before us: nothing is written, and where `ours` stands, the
    /// original is put back.
    Leave,
    /// It is what it should be.
    Settled(Bytes),
    /// Write this much; the policy's value is reached.
    Set(Bytes),
    /// Write this much; the policy wants `want`, but usage is above.
    Toward {
        /// To be written.
        value: Bytes,
        /// The policy's value.
        want: Bytes,
    },
    /// Usage is above what the policy wants, and the value that stands is as low as usage allows.
    Waiting {
        /// The policy's value.
        want: Bytes,
    },
}

/// The next step. `ours` is what we wrote last, `None` before the first write; `original` is what the file held
/// before (`None` for `max`): a limit that somebody set is never loosened.
#[must_use]
pub fn step(
    policy: MemoryHighPolicy,
    current: Bytes,
    original: Option<Bytes>,
    ours: Option<Bytes>,
    page: u64,
) -> Step {
    let want = match policy {
        // What stalls allow is the law's to say.
        MemoryHighPolicy::None | MemoryHighPolicy::Pressure { .. } => return Step::Leave,
        MemoryHighPolicy::Fixed(value) => value.round_down(page.max(1)),
        MemoryHighPolicy::Formula { factor, request, limit } => formula(request, limit, factor, page),
    };
    if original.is_some_and(|original| original <= want) {
        return Step::Leave;
    }
    // Once it stands, it bounds what comes after: usage that grows into it is what it is for.
    if ours == Some(want) {
        return Step::Settled(want);
    }
    let least = (current + slack(current)).round_down(page.max(1));
    if want >= least {
        return Step::Set(want);
    }
    // Usage is above the wish (or too near). Steps smaller than the slack are not worth a write; and a value that
    // stands is only ever loosened where usage has come so near that it could be throttled by us.
    match ours {
        Some(value) if value >= current + slack(current).halved() && value <= least + slack(current) => {
            Step::Waiting { want }
        }
        _ if original.is_some_and(|original| original <= least) => Step::Leave,
        _ => Step::Toward { value: least, want },
    }
}

impl Bytes {
    fn halved(self) -> Self {
        Self(self.0 / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_is_the_one_of_kep_2570() {
        let check = |request_mib, limit_mib, percent: u128, high: Bytes| {
            let factor = Ratio::of_parts(percent, 100);
            assert_eq!(formula(Bytes::mib(request_mib), Bytes::mib(limit_mib), factor, 4096), high);
        };
        check(500, 1000, 80, Bytes::mib(900));
        check(1000, 1000, 90, Bytes::mib(1000));
        check(0, 1000, 90, Bytes::mib(900));
        check(0, 1, 50, Bytes(1 << 19));
        check(1, 2, 33, Bytes((1 << 20) + 344_064));
    }

    #[test]
    fn a_step_never_throttles_at_once() {
        let mib = Bytes::mib;
        let check = |want, current, original: Option<u64>, ours: Option<u64>, step_is| {
            let policy = MemoryHighPolicy::Fixed(mib(want));
            let step = step(policy, mib(current), original.map(mib), ours.map(mib), 4096);
            assert_eq!(step, step_is, "{want} wanted, {current} used, {original:?} before, {ours:?} ours");
        };
        check(512, 100, None, None, Step::Set(mib(512)));
        check(512, 100, None, Some(512), Step::Settled(mib(512)));
        check(512, 511, None, Some(512), Step::Settled(mib(512)));
        check(512, 900, None, Some(512), Step::Settled(mib(512)));
        check(512, 640, None, None, Step::Toward { value: mib(660), want: mib(512) });
        check(512, 640, None, Some(660), Step::Waiting { want: mib(512) });
        check(512, 652, None, Some(660), Step::Toward { value: Bytes(705_036_288), want: mib(512) });
        check(512, 576, None, Some(660), Step::Toward { value: mib(594), want: mib(512) });
        check(512, 100, Some(400), None, Step::Leave);
        check(512, 640, Some(600), None, Step::Leave);
        check(512, 100, Some(600), None, Step::Set(mib(512)));
    }
}
