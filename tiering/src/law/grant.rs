//! What a promoter that works by itself may move between two plans.
//!
//! # Problem
//! DAMON promotes for many cgroups at once and many times a second, each within a quota of its own. Who has nothing hot leaves a quota unused, and
//! which that is shows only afterwards. A plan is a second old when it is acted upon.
//!
//! # Approach
//! A plan says for each cgroup what bounds it ([`Claim`]). Each time that the promoter looks, the bounds become quotas: what a node has room for,
//! and what it and the link let pass, is shared by those who promote, and a quarter of it by those who do not, so that they can begin.
//!
//! # Properties
//! - `one_is_granted_its_rate_within_ceiling_and_room`, and at most half of what is missing to its ceiling: the kernel may use a grant twice before it
//!   takes the next one.
//! - `grants_fit_the_node_and_the_link`: all of them together, whoever promotes.
//! - `leaves_share_a_grant`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::node::NodeId;
use crate::units::{ByteRate, Bytes};

/// Less than this is not worth a look, and a grant of nothing would be none to DAMON.
const LEAST: Bytes = Bytes::mib(1);

/// What bounds the promotion of a cgroup until the next plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The slow node where most of its memory is.
    pub from: NodeId,
    /// The nearest fast node that it may use.
    pub to: NodeId,
    /// Its own rate: its policy's, less for who churns or holds more than its share of a tight node.
    pub rate: ByteRate,
    /// Most anonymous bytes on fast nodes.
    pub ceiling: Bytes,
    /// Anonymous bytes on fast nodes.
    pub fast: Bytes,
    /// Anonymous bytes on slow nodes.
    pub slow: Bytes,
    /// Room of `to`.
    pub room: Bytes,
    /// What `to` lets pass in the second after the plan, of all cgroups together.
    pub node_rate: Bytes,
    /// What the link of `from` lets pass in that second.
    pub link_rate: Bytes,
}

/// What the promoter has seen of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Whether something of it was promoted lately.
    pub is_busy: bool,
    /// Whether it has to wait: more was promoted than its rate allowed, or nothing moves.
    pub is_held: bool,
    /// Bytes tried for a hundred that are moved, where tries count against the quota; at least 100.
    pub effort: u64,
}

impl Pace {
    /// Of what nothing was seen yet.
    pub const NEW: Self = Self { is_busy: false, is_held: false, effort: 100 };
}

/// Claims on one thing that bounds them together.
#[derive(Clone, Copy, Default)]
struct Sharers {
    busy: u64,
    idle: u64,
}

impl Sharers {
    fn add(&mut self, pace: Pace) {
        if pace.is_busy {
            self.busy += 1;
        } else {
            self.idle += 1;
        }
    }

    /// What one of them gets.
    fn share(self, of: Bytes, pace: Pace) -> Bytes {
        let (part, sharers) = match (pace.is_busy, self.busy, self.idle) {
            (true, busy, 0) => (of.0, busy),
            (false, 0, idle) => (of.0, idle),
            (true, busy, _) => (of.0 / 4 * 3, busy),
            (false, _, idle) => (of.0 / 4, idle),
        };
        Bytes(part / sharers.max(1))
    }
}

/// What each claim gets, in bytes per second.
#[must_use]
pub fn grants(claims: &[(Claim, Pace)]) -> Vec<Bytes> {
    let (mut nodes, mut links) = (BTreeMap::new(), BTreeMap::new());
    for (claim, pace) in claims {
        nodes.entry(claim.to).or_insert_with(Sharers::default).add(*pace);
        links.entry(claim.from).or_insert_with(Sharers::default).add(*pace);
    }
    let grant = |(claim, pace): &(Claim, Pace)| {
        if pace.is_held {
            return Bytes::ZERO;
        }
        let (to, from) = (nodes[&claim.to], links[&claim.from]);
        let rate = claim
            .rate
            .over(Duration::from_secs(1))
            .min(to.share(claim.node_rate, *pace))
            .min(from.share(claim.link_rate, *pace));
        let tried = Bytes(rate.0.saturating_mul(pace.effort) / 100);
        let below_ceiling = Bytes((claim.ceiling - claim.fast).0 / 2);
        let grant = tried.min(to.share(claim.room, *pace)).min(below_ceiling);
        if grant < LEAST.min(rate) { Bytes::ZERO } else { grant }
    };
    claims.iter().map(grant).collect()
}

/// A cgroup's grant by leaf, by whether something of the leaf was promoted lately: seven eighths are for those.
#[must_use]
pub fn by_leaf(grant: Bytes, busy: &[bool]) -> Vec<Bytes> {
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
    use proptest::prelude::*;

    use super::*;

    const NO_CEILING: u64 = 1 << 20;

    fn claim(rate: u64, ceiling: u64, fast: u64, room: u64) -> Claim {
        Claim {
            from: NodeId(2),
            to: NodeId(0),
            rate: ByteRate::mib_per_s(rate),
            ceiling: Bytes::mib(ceiling),
            fast: Bytes::mib(fast),
            slow: Bytes::mib(1000),
            room: Bytes::mib(room),
            node_rate: Bytes::mib(2048),
            link_rate: Bytes::mib(1024),
        }
    }

    fn pace(is_busy: bool) -> Pace {
        Pace { is_busy, ..Pace::NEW }
    }

    fn check(claims: &[(Claim, bool)], mib: &[u64]) {
        let claims: Vec<_> = claims.iter().map(|(claim, busy)| (*claim, pace(*busy))).collect();
        assert_eq!(grants(&claims), mib.iter().map(|mib| Bytes::mib(*mib)).collect::<Vec<_>>());
    }

    #[test]
    fn one_is_granted_its_rate_within_ceiling_and_room() {
        check(&[(claim(200, NO_CEILING, 0, 1000), false)], &[200]);
        check(&[(claim(200, NO_CEILING, 0, 100), false)], &[100]);
        check(&[(claim(200, 300, 200, 1000), true)], &[50]);
        check(&[(claim(200, 300, 300, 1000), true)], &[0]);
        check(&[(claim(200, 300, 400, 1000), true)], &[0]);
        check(&[(claim(200, NO_CEILING, 0, 0), true)], &[0]);
    }

    #[test]
    fn who_promotes_shares_and_who_does_not_takes_little_of_it() {
        let one = || claim(200, NO_CEILING, 0, 160);
        check(&[(one(), true), (one(), false), (one(), false)], &[120, 20, 20]);
        check(&[(one(), true), (one(), true)], &[80, 80]);
        let narrow = || Claim { link_rate: Bytes::mib(160), ..claim(200, NO_CEILING, 0, 1000) };
        check(&[(narrow(), true), (narrow(), false), (narrow(), false)], &[120, 20, 20]);
        let elsewhere = Claim { from: NodeId(3), to: NodeId(1), ..one() };
        check(&[(one(), true), (elsewhere, true)], &[160, 160]);
    }

    #[test]
    fn who_has_to_wait_gets_nothing_and_tries_in_vain_are_made_up_for() {
        let one = claim(100, NO_CEILING, 0, 1000);
        let held = Pace { is_held: true, ..pace(true) };
        let labours = Pace { effort: 300, ..pace(true) };
        assert_eq!(grants(&[(one, held), (one, labours)]), [Bytes::ZERO, Bytes::mib(300)]);
    }

    proptest! {
        #[test]
        fn grants_fit_the_node_and_the_link(
            paces in prop::collection::vec((any::<bool>(), 0_u32..2, 2_u32..4, 1_u64..400), 1..8),
            room in 0_u64..500, node_rate in 0_u64..500, link_rate in 0_u64..500,
        ) {
            let claims: Vec<(Claim, Pace)> = paces
                .iter()
                .map(|&(busy, to, from, rate)| {
                    let claim = claim(rate, NO_CEILING, 0, room);
                    let (node_rate, link_rate) = (Bytes::mib(node_rate), Bytes::mib(link_rate));
                    (Claim { from: NodeId(from), to: NodeId(to), node_rate, link_rate, ..claim }, pace(busy))
                })
                .collect();
            let granted = grants(&claims);
            let sum = |of: &dyn Fn(&Claim) -> bool| -> Bytes {
                claims.iter().zip(&granted).filter(|((claim, _), _)| of(claim)).map(|(_, grant)| *grant).sum()
            };
            for node in 0..4 {
                prop_assert!(sum(&|claim| claim.to == NodeId(node)) <= Bytes::mib(room.min(node_rate)));
                prop_assert!(sum(&|claim| claim.from == NodeId(node)) <= Bytes::mib(link_rate));
            }
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
