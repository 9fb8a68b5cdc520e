//! What each cgroup may be promoted per second, as a pure function of what the policies and the nodes allow.
//!
//! # Properties
//! - A cgroup is granted at most its rate, all its leaves together.
//! - A cgroup is granted at most half of what is missing to its ceiling: the kernel may use a grant twice before it takes the
//!   next one.
//! - All grants together are at most one and a half times the node's room, and what one is granted for being idle hinders no
//!   other: whoever promotes shares the room with those who do.

use std::time::Duration;

use host::cgroup::{CgroupId, CgroupPath};
use tiering::{ByteRate, Bytes, NodeId};

/// Less than this is not worth a kdamond's look, and a grant of nothing would be none to DAMON.
const LEAST: Bytes = Bytes::mib(1);

/// What a cgroup may be promoted, as far as is known at a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The managed cgroup.
    pub cgroup: CgroupId,
    /// The cgroups that its memory is charged to and that may use the target.
    pub leaves: Vec<CgroupPath>,
    /// Whether these are all of its leaves.
    pub is_whole: bool,
    /// The fast node.
    pub target: NodeId,
    /// Its rate cap.
    pub rate: ByteRate,
    /// Most bytes on fast nodes.
    pub ceiling: Bytes,
    /// Anonymous bytes on fast nodes.
    pub fast: Bytes,
    /// Anonymous bytes on slow nodes.
    pub slow: Bytes,
    /// Room on the target.
    pub room: Bytes,
}

/// What a claim gets, in bytes per second; `busy` tells of each whether something of it was promoted lately.
#[must_use]
pub(super) fn grants(claims: &[Claim], busy: &[bool]) -> Vec<Bytes> {
    let all = claims.len().max(1) as u64;
    let busy_claims = busy.iter().filter(|busy| **busy).count().max(1) as u64;
    claims
        .iter()
        .zip(busy)
        .map(|(claim, busy)| {
            let share = if *busy || all == 1 { claim.room.0 / busy_claims } else { claim.room.0 / all / 2 };
            let below_ceiling = claim.ceiling - claim.fast;
            let rate = claim.rate.over(Duration::from_secs(1));
            let grant = rate.min(Bytes(share)).min(Bytes(below_ceiling.0 / 2));
            if grant < LEAST.min(rate) { Bytes::ZERO } else { grant }
        })
        .collect()
}

/// A cgroup's grant by leaf: seven eighths are for those of which something was promoted lately.
#[must_use]
pub(super) fn by_leaf(grant: Bytes, busy: &[bool]) -> Vec<Bytes> {
    let (busy_leaves, all) = (busy.iter().filter(|busy| **busy).count() as u64, busy.len() as u64);
    let idle_leaves = all - busy_leaves;
    let (for_busy, for_idle) = match (busy_leaves, idle_leaves) {
        (0, idle) => (0, grant.0 / idle.max(1)),
        (busy, 0) => (grant.0 / busy, 0),
        (busy, idle) => (grant.0 / 8 * 7 / busy, grant.0 / 8 / idle),
    };
    busy.iter().map(|busy| Bytes(if *busy { for_busy } else { for_idle })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(rate: u64, ceiling: u64, fast: u64, room: u64) -> Claim {
        Claim {
            cgroup: CgroupId::from(1),
            leaves: vec![CgroupPath::new("/a").unwrap()],
            is_whole: true,
            target: NodeId(0),
            rate: ByteRate::mib_per_s(rate),
            ceiling: Bytes::mib(ceiling),
            fast: Bytes::mib(fast),
            slow: Bytes::mib(1000),
            room: Bytes::mib(room),
        }
    }

    fn check(claims: &[(Claim, bool)], mib: &[u64]) {
        let (claims, busy): (Vec<_>, Vec<_>) = claims.iter().cloned().unzip();
        let granted = grants(&claims, &busy);
        assert_eq!(granted, mib.iter().map(|mib| Bytes::mib(*mib)).collect::<Vec<_>>());
    }

    #[test]
    fn one_alone_gets_its_rate_within_ceiling_and_room() {
        let most = 1 << 20;
        check(&[(claim(200, most, 0, 1000), false)], &[200]);
        check(&[(claim(200, most, 0, 100), false)], &[100]);
        check(&[(claim(200, 300, 200, 1000), true)], &[50]);
        check(&[(claim(200, 300, 300, 1000), true)], &[0]);
        check(&[(claim(200, 300, 400, 1000), true)], &[0]);
        check(&[(claim(200, most, 0, 0), true)], &[0]);
    }

    #[test]
    fn who_promotes_shares_the_room_and_who_does_not_takes_little_of_it() {
        let most = 1 << 20;
        let one = || claim(200, most, 0, 160);
        check(&[(one(), true), (one(), false), (one(), false), (one(), false)], &[160, 20, 20, 20]);
        check(&[(one(), true), (one(), true)], &[80, 80]);
    }

    #[test]
    fn all_grants_together_are_at_most_one_and_a_half_times_the_room() {
        for bits in 0..64_u32 {
            let claims = vec![claim(200, 1 << 20, 0, 120); 6];
            let busy: Vec<bool> = (0..6).map(|bit| bits >> bit & 1 == 1).collect();
            let sum: Bytes = grants(&claims, &busy).into_iter().sum();
            assert!(sum <= Bytes::mib(180), "{busy:?}: {sum}");
        }
    }

    #[test]
    fn leaves_share_a_grant() {
        let mib = Bytes::mib;
        assert_eq!(by_leaf(mib(80), &[false]), [mib(80)]);
        assert_eq!(by_leaf(mib(80), &[false, false]), [mib(40); 2]);
        assert_eq!(by_leaf(mib(80), &[true, false]), [mib(70), mib(10)]);
        assert_eq!(by_leaf(mib(80), &[true, true]), [mib(40); 2]);
        assert!(by_leaf(mib(80), &[]).is_empty());
    }
}
