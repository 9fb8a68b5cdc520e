//! The arbiter, over arbitrary claims and a simulated host.

use proptest::prelude::*;
use tiering::Bytes;
use tiering::arbiter::{Claim, FastNodes, arbitrate, entitlements};

fn claim() -> impl Strategy<Value = Claim> {
    (
        0_u64..1 << 34,
        0_u64..1 << 34,
        0_u64..1 << 33,
        0_u64..=100,
        prop_oneof![Just(u64::MAX), 0_u64..1 << 34],
        1_u32..=10_000,
    )
        .prop_map(|(fast_anon, slow_anon, floor, bound_percent, ceiling, weight)| Claim {
            fast_anon: Bytes(fast_anon),
            footprint: Bytes(fast_anon + slow_anon),
            bound: Bytes(fast_anon / 100 * bound_percent),
            floor: Bytes(floor),
            ceiling: Bytes(ceiling.max(floor)),
            weight,
        })
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    prop::collection::vec(claim(), 0..12)
}

fn nodes() -> impl Strategy<Value = FastNodes> {
    (1_u64 << 30..1 << 38, 0_u64..=100, 0_u64..1 << 28, 0_u64..1 << 28, 0_u64..1 << 28).prop_map(
        |(total, free_percent, low, above_low, per_cpu)| FastNodes {
            total: Bytes(total),
            free: Bytes(total / 100 * free_percent / 10),
            per_cpu: Bytes(per_cpu),
            low_watermark: Bytes(low),
            high_watermark: Bytes(low + above_low),
        },
    )
}

fn floor_of(claim: &Claim) -> Bytes {
    claim.floor.min(claim.footprint).max(claim.bound)
}

fn sum(bytes: &[Bytes]) -> Bytes {
    bytes.iter().copied().sum()
}

proptest! {
    #[test]
    fn nothing_is_given_up_with_headroom(claims in claims(), mut nodes in nodes(), spare in 0_u64..1 << 30) {
        nodes.free = nodes.headroom().max(nodes.free_for_any()) + Bytes(spare);
        prop_assert!(arbitrate(&claims, nodes).iter().all(|given| given.is_zero()));
    }

    #[test]
    fn what_is_short_has_no_room(nodes in nodes()) {
        prop_assert!(nodes.shortfall().is_zero() || nodes.room().is_zero());
    }

    #[test]
    fn floors_hold(claims in claims(), nodes in nodes()) {
        for (claim, given) in claims.iter().zip(arbitrate(&claims, nodes)) {
            prop_assert!(given <= claim.fast_anon - floor_of(claim));
        }
    }

    #[test]
    fn nobody_gives_what_cannot_leave(claims in claims(), nodes in nodes()) {
        for (claim, given) in claims.iter().zip(arbitrate(&claims, nodes)) {
            prop_assert!(given <= claim.fast_anon - claim.bound);
        }
    }

    #[test]
    fn conservation(claims in claims(), nodes in nodes()) {
        let above_floors: Bytes = claims.iter().map(|claim| claim.fast_anon - floor_of(claim)).sum();
        let given = arbitrate(&claims, nodes);
        prop_assert_eq!(given.len(), claims.len());
        prop_assert_eq!(sum(&given), nodes.shortfall().min(above_floors));
    }

    #[test]
    fn entitlements_fit(claims in claims(), budget in 0_u64..1 << 37) {
        let floors: Bytes = claims.iter().map(floor_of).sum();
        let entitled = entitlements(&claims, Bytes(budget));
        prop_assert!(sum(&entitled) <= Bytes(budget).max(floors));
        for (claim, entitled) in claims.iter().zip(&entitled) {
            prop_assert!(*entitled >= floor_of(claim));
            prop_assert!(*entitled <= claim.footprint.min(claim.ceiling).max(floor_of(claim)));
        }
    }

    #[test]
    fn entitlements_leave_nothing_that_somebody_can_use(claims in claims(), budget in 0_u64..1 << 37) {
        let entitled = entitlements(&claims, Bytes(budget));
        let all = claims.iter().zip(&entitled).all(|(c, e)| *e >= c.footprint.min(c.ceiling));
        let left = Bytes(budget) - sum(&entitled);
        // Rounding leaves less than a byte for each claim and pass.
        prop_assert!(all || left.0 <= (claims.len() * claims.len()) as u64, "{left} left");
    }

    #[test]
    fn weight_counts(mut claims in claims(), alike in claim(), heavier in 1_u32..=10_000, budget in 0_u64..1 << 37) {
        let heavier = Claim { weight: heavier.max(alike.weight), ..alike };
        claims.extend([alike, heavier]);
        let entitled = entitlements(&claims, Bytes(budget));
        prop_assert!(entitled[claims.len() - 1] >= entitled[claims.len() - 2]);
    }

    #[test]
    fn the_shortfall_of_a_host_ends_in_one_round_unless_floors_forbid(claims in claims(), mut nodes in nodes()) {
        let mut claims = claims;
        let given = arbitrate(&claims, nodes);
        for (claim, given) in claims.iter_mut().zip(&given) {
            claim.fast_anon -= *given;
            nodes.free += *given;
        }
        let at_floors = claims.iter().all(|claim| claim.fast_anon <= floor_of(claim));
        prop_assert!(nodes.shortfall().is_zero() || at_floors);
        let again = sum(&arbitrate(&claims, nodes));
        prop_assert!(again.is_zero());
    }
}
