//! Who gives up DRAM where the fast nodes run short.
//!
//! # Problem
//! New pages should start in DRAM, so some of it must be free before they come; several cgroups compete for the rest.
//!
//! # Approach
//! Each managed cgroup is entitled to a part of the DRAM that managed cgroups may have: its floor first, then the rest
//! by weight, never more than it can use (its footprint, its ceiling). While free memory is below the headroom, or
//! too little of it can be taken by any CPU, the shortfall is taken from those above their entitlement, in proportion
//! to the excess; if that is not enough, from all down to their floors.
//!
//! # Properties
//! - `nothing_is_given_up_with_headroom`: free memory at or above the headroom costs nobody anything.
//! - `what_is_short_has_no_room`: nothing is promoted to nodes that others are asked to leave.
//! - `floors_hold`: nobody is asked to go below the floor.
//! - `conservation`: what is given up is the shortfall, or all that is above the floors and can leave.
//! - `nobody_gives_what_cannot_leave`: locked memory is not asked for in place of a neighbour's that can move.
//! - `entitlements_fit`: entitlements sum to at most the budget, or to the floors where those exceed it.
//! - `weight_counts`: of two alike, the one with the greater weight is entitled to at least as much.

use alloc::vec;
use alloc::vec::Vec;

use crate::units::{Bytes, Ratio};

/// What one managed cgroup has and may have on the fast nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Anonymous memory on fast nodes.
    pub fast_anon: Bytes,
    /// Anonymous memory on all tiers.
    pub footprint: Bytes,
    /// Of `fast_anon`, what can't leave: locked, or with no slow node to go to.
    pub bound: Bytes,
    /// Least DRAM.
    pub floor: Bytes,
    /// Most DRAM.
    pub ceiling: Bytes,
    /// Share of scarce DRAM, at least 1.
    pub weight: u32,
}

impl Claim {
    /// Most DRAM it can use.
    fn demand(&self) -> Bytes {
        self.footprint.min(self.ceiling).max(self.floor())
    }

    /// The floor, as far as there is memory to be kept, and what stays whoever asks.
    fn floor(&self) -> Bytes {
        self.floor.min(self.footprint).max(self.bound)
    }
}

/// The fast nodes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastNodes {
    /// All their memory.
    pub total: Bytes,
    /// Free memory, as the kernel compares it with its watermarks.
    pub free: Bytes,
    /// Free memory that waits on lists of single CPUs. It counts towards the headroom, not against the watermarks: the
    /// kernel reclaims, and may kill, while it is there.
    pub per_cpu: Bytes,
    /// Where the kernel's own reclaim starts: the sum of the low watermarks.
    pub low_watermark: Bytes,
    /// Where it ends, and below which the kernel empties the lists of single CPUs: the sum of the high watermarks.
    pub high_watermark: Bytes,
}

impl FastNodes {
    /// Free memory that should be kept: 2 % above the kernel's watermark, as TPP decouples allocation from demotion
    /// (`watermark_scale` of 2 % of capacity).
    #[must_use]
    pub fn headroom(&self) -> Bytes {
        self.low_watermark + Ratio::of_parts(2, 100).of(self.total)
    }

    /// What any CPU should find free: half of what is kept above the low watermark, and at least the high one. A burst as
    /// great as that does not wake the kernel's reclaim, which knows neither floors nor policies.
    #[must_use]
    pub fn free_for_any(&self) -> Bytes {
        (self.low_watermark + Ratio::of_parts(1, 100).of(self.total)).max(self.high_watermark)
    }

    /// What is missing of the headroom, or of what any CPU should find free where that is more.
    #[must_use]
    pub fn shortfall(&self) -> Bytes {
        (self.headroom() - self.free - self.per_cpu).max(self.free_for_any() - self.free)
    }

    /// Room for promotion: none while something is missing.
    #[must_use]
    pub fn room(&self) -> Bytes {
        (self.free + self.per_cpu - self.headroom()).min(self.free - self.free_for_any())
    }
}

/// What each claim is entitled to of `budget`, in their order.
#[must_use]
pub fn entitlements(claims: &[Claim], budget: Bytes) -> Vec<Bytes> {
    let mut share: Vec<Bytes> = claims.iter().map(Claim::floor).collect();
    let mut left = budget - share.iter().copied().sum();
    // Each pass fills at least one claim or spends all but the rounding; so there are at most `len` passes.
    let mut open: Vec<usize> = (0..claims.len()).filter(|i| share[*i] < claims[*i].demand()).collect();
    while !open.is_empty() && !left.is_zero() {
        let weights: u128 = open.iter().map(|i| u128::from(claims[*i].weight)).sum();
        let pool = left;
        let mut filled = false;
        let mut next = Vec::with_capacity(open.len());
        for i in open {
            let part = u128::from(pool.0) * u128::from(claims[i].weight) / weights.max(1);
            let part = Bytes(u64::try_from(part).unwrap_or(u64::MAX));
            let want = claims[i].demand() - share[i];
            let given = part.min(want);
            share[i] += given;
            left -= given;
            if given < want {
                next.push(i);
            } else {
                filled = true;
            }
        }
        open = next;
        if !filled {
            break;
        }
    }
    share
}

/// What each claim gives up now, in their order.
#[must_use]
pub fn arbitrate(claims: &[Claim], nodes: FastNodes) -> Vec<Bytes> {
    let shortfall = nodes.shortfall();
    if shortfall.is_zero() {
        return vec![Bytes::ZERO; claims.len()];
    }
    let held: Bytes = claims.iter().map(|claim| claim.fast_anon).sum();
    let entitled = entitlements(claims, held - shortfall);
    let excess: Vec<Bytes> = claims
        .iter()
        .zip(&entitled)
        .map(|(claim, entitled)| claim.fast_anon - (*entitled).max(claim.floor()))
        .collect();
    let mut given = in_proportion(&excess, shortfall);
    let missing = shortfall - given.iter().copied().sum();
    let rest: Vec<Bytes> =
        claims.iter().zip(&given).map(|(claim, given)| claim.fast_anon - claim.floor() - *given).collect();
    for (given, more) in given.iter_mut().zip(in_proportion(&rest, missing)) {
        *given += more;
    }
    given
}

/// `amount` split in proportion to `parts`, no part giving more than it has; rounding is made up from the first ones.
fn in_proportion(parts: &[Bytes], amount: Bytes) -> Vec<Bytes> {
    let whole: Bytes = parts.iter().copied().sum();
    if amount >= whole {
        return parts.to_vec();
    }
    let mut split: Vec<Bytes> = parts
        .iter()
        .map(|part| {
            let share = u128::from(part.0) * u128::from(amount.0) / u128::from(whole.0.max(1));
            Bytes(u64::try_from(share).unwrap_or(u64::MAX))
        })
        .collect();
    let mut missing = amount - split.iter().copied().sum();
    for (share, part) in split.iter_mut().zip(parts) {
        let more = missing.min(*part - *share);
        *share += more;
        missing -= more;
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MiB on fast nodes, of the footprint, floor, and weight.
    fn claim(fast: u64, footprint: u64, floor: u64, weight: u32) -> Claim {
        Claim {
            fast_anon: Bytes::mib(fast),
            footprint: Bytes::mib(footprint),
            bound: Bytes::ZERO,
            floor: Bytes::mib(floor),
            ceiling: Bytes::MAX,
            weight,
        }
    }

    /// MiB free.
    fn nodes(free: u64, per_cpu: u64) -> FastNodes {
        let (free, per_cpu) = (Bytes::mib(free), Bytes::mib(per_cpu));
        FastNodes {
            total: Bytes::ZERO,
            free,
            per_cpu,
            low_watermark: Bytes::ZERO,
            high_watermark: Bytes::ZERO,
        }
    }

    #[test]
    fn floors_come_first_then_weights() {
        let check = |claims: &[Claim], budget, shares: &[u64]| {
            let shares: Vec<Bytes> = shares.iter().copied().map(Bytes::mib).collect();
            assert_eq!(entitlements(claims, Bytes::mib(budget)), shares);
        };
        check(&[], 100, &[]);
        check(&[claim(0, 900, 0, 100), claim(0, 900, 0, 300)], 400, &[100, 300]);
        check(&[claim(0, 900, 200, 100), claim(0, 900, 0, 100)], 400, &[300, 100]);
        check(&[claim(0, 50, 200, 100), claim(0, 900, 0, 100)], 400, &[50, 350]);
        check(&[claim(0, 900, 300, 1), claim(0, 900, 300, 1)], 400, &[300, 300]);
    }

    #[test]
    fn a_shortfall_is_taken_from_those_above_their_part() {
        let check = |claims: &[Claim], shortfall, given: &[u64]| {
            let nodes = FastNodes { low_watermark: Bytes::mib(shortfall), ..nodes(0, 0) };
            let given: Vec<Bytes> = given.iter().copied().map(Bytes::mib).collect();
            assert_eq!(arbitrate(claims, nodes), given);
        };
        check(&[claim(300, 300, 0, 100), claim(100, 100, 0, 100)], 0, &[0, 0]);
        check(&[claim(300, 300, 0, 100), claim(100, 100, 0, 100)], 100, &[100, 0]);
        check(&[claim(300, 300, 280, 100), claim(100, 100, 0, 100)], 100, &[10, 90]);
        check(&[claim(300, 300, 300, 100), claim(100, 100, 100, 100)], 100, &[0, 0]);
        let locked = Claim { bound: Bytes::mib(1000), ..claim(1000, 1000, 0, 100) };
        check(&[locked, claim(300, 300, 0, 100)], 100, &[0, 100]);
    }

    #[test]
    fn headroom_is_two_percent_above_the_low_watermark_and_lists_of_cpus_hold_at_most_half_of_them() {
        let check = |free, per_cpu, shortfall, room| {
            let nodes = FastNodes {
                total: Bytes::mib(1000),
                low_watermark: Bytes::mib(10),
                high_watermark: Bytes::mib(15),
                ..nodes(free, per_cpu)
            };
            assert_eq!(nodes.headroom(), Bytes::mib(30));
            assert_eq!((nodes.shortfall(), nodes.room()), (Bytes::mib(shortfall), Bytes::mib(room)));
        };
        check(25, 0, 5, 0);
        check(25, 3, 2, 0);
        check(25, 40, 0, 5);
        check(5, 40, 15, 0);
    }
}
