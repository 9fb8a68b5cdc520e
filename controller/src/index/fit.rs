//! What one object can hold, shared fairly: whoever has many pods, or long ones, takes nothing from others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::{Cut, NodeTieringSpec, PodAssignment};
use serde::Serialize;

/// Namespaces that are said to be cut; those that lost most.
const MOST_CUT: usize = 64;
/// Left for what is not of pods: names of namespaces that were cut, problems.
const RESERVED: usize = 16 << 10;

fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// The spec as it is where it has at most so many bytes. Else each namespace has an equal share of them, of which those that need
/// less leave the rest to others; of one that needs more, the first pods by name stay.
pub(super) fn within(mut spec: NodeTieringSpec, most: usize) -> NodeTieringSpec {
    if bytes(&spec) <= most {
        return spec;
    }
    let needs = needs(&spec);
    let mut by_need: Vec<(usize, &str)> =
        needs.iter().map(|(namespace, pods)| (pods.iter().sum::<usize>(), namespace.as_str())).collect();
    by_need.sort_unstable();
    let mut left = most.saturating_sub(RESERVED);
    let mut shares = BTreeMap::new();
    for (place, (need, namespace)) in by_need.iter().enumerate() {
        let share = (*need).min(left / (by_need.len() - place));
        left -= share;
        shares.insert((*namespace).to_owned(), share);
    }
    let mut taken: BTreeMap<&str, (usize, std::slice::Iter<'_, usize>)> =
        needs.iter().map(|(namespace, pods)| (namespace.as_str(), (0, pods.iter()))).collect();
    let mut cut: BTreeMap<String, u32> = BTreeMap::new();
    spec.pods.retain(|pod| {
        let Some((sum, sizes)) = taken.get_mut(pod.namespace.as_str()) else { return false };
        // Once one did not fit, none after it does: which stay is then known without looking at sizes.
        *sum += sizes.next().copied().unwrap_or_default();
        let stays = *sum <= shares.get(&pod.namespace).copied().unwrap_or_default();
        if !stays {
            *cut.entry(pod.namespace.clone()).or_default() += 1;
        }
        stays
    });
    let used: BTreeSet<&String> = spec.pods.iter().flat_map(policies).collect();
    spec.policies.retain(|key, _| used.contains(key));
    let mut cut: Vec<Cut> = cut.into_iter().map(|(namespace, pods)| Cut { namespace, pods }).collect();
    cut.sort_by_key(|cut| std::cmp::Reverse(cut.pods));
    cut.truncate(MOST_CUT);
    spec.cut = cut;
    spec
}

/// The bytes of each pod by namespace, in their order. A policy counts for the first pod of each namespace that has it.
fn needs(spec: &NodeTieringSpec) -> BTreeMap<String, Vec<usize>> {
    let mut paid: BTreeSet<(&str, &String)> = BTreeSet::new();
    let mut needs: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for pod in &spec.pods {
        let new = policies(pod).filter(|key| paid.insert((pod.namespace.as_str(), *key)));
        let new: usize = new.map(|key| key.len() + 4 + spec.policies.get(key).map_or(0, bytes)).sum();
        needs.entry(pod.namespace.clone()).or_default().push(bytes(pod) + 1 + new);
    }
    needs
}

fn policies(pod: &PodAssignment) -> impl Iterator<Item = &String> {
    pod.policy.iter().chain(pod.containers.iter().filter_map(|container| container.policy.as_ref()))
}

/// One of each group in turn, each group in its order.
pub(super) fn in_turn<T, K: Ord>(all: impl IntoIterator<Item = T>, group: impl Fn(&T) -> K) -> Vec<T> {
    let mut groups: BTreeMap<K, VecDeque<T>> = BTreeMap::new();
    for item in all {
        groups.entry(group(&item)).or_default().push_back(item);
    }
    let mut turns = Vec::new();
    while !groups.is_empty() {
        turns.extend(groups.values_mut().filter_map(VecDeque::pop_front));
        groups.retain(|_, rest| !rest.is_empty());
    }
    turns
}

#[cfg(test)]
mod tests {
    use api::{ContainerAssignment, MOST_SPEC_BYTES, PolicySpec, ResolvedPolicy};

    use super::*;

    /// Pods of each namespace, with so many containers of their own policy each.
    fn spec(namespaces: &[(&str, usize, usize)]) -> NodeTieringSpec {
        let mut spec = NodeTieringSpec::default();
        for (namespace, pods, containers) in namespaces {
            let policy =
                spec.refer(ResolvedPolicy::new(&format!("policy-of-{namespace}"), PolicySpec::default()));
            for n in 0..*pods {
                let container = |c| ContainerAssignment {
                    name: format!("container-{c:03}"),
                    id: Some("0".repeat(64)),
                    unmanaged: false,
                    policy: Some(policy.clone()),
                    memory: api::MemoryResources::default(),
                };
                spec.pods.push(PodAssignment {
                    uid: format!("8e8b2f0e-7d3c-4c55-9d0e-{n:012}"),
                    namespace: (*namespace).to_owned(),
                    name: format!("checkout-6d4b75cb6d-{n:05}"),
                    explicit: false,
                    policy: Some(policy.clone()),
                    memory: api::MemoryResources::default(),
                    containers: (0..*containers).map(container).collect(),
                });
            }
        }
        spec
    }

    fn kept(spec: &NodeTieringSpec, namespace: &str) -> usize {
        spec.pods.iter().filter(|pod| pod.namespace == namespace).count()
    }

    #[test]
    fn one_tenant_takes_no_room_from_others() {
        let whole = spec(&[("attacker", 70, 64), ("shop", 60, 0), ("team", 50, 2)]);
        assert!(bytes(&whole) > 2 * MOST_SPEC_BYTES);
        let fits = within(whole, MOST_SPEC_BYTES);
        assert!(bytes(&fits) <= MOST_SPEC_BYTES, "{}", bytes(&fits));
        assert_eq!((kept(&fits, "shop"), kept(&fits, "team")), (60, 50));
        let attacker = kept(&fits, "attacker");
        assert!((10..70).contains(&attacker), "{attacker}");
        let lost = u32::try_from(70 - attacker).unwrap();
        assert_eq!(fits.cut, [Cut { namespace: "attacker".to_owned(), pods: lost }]);
        assert_eq!(fits.policies.len(), 3);
    }

    #[test]
    fn many_plain_pods_share_alike() {
        let fits = within(spec(&[("a", 3000, 0), ("b", 3000, 0), ("c", 10, 0)]), MOST_SPEC_BYTES);
        assert!(
            bytes(&fits) <= MOST_SPEC_BYTES && bytes(&fits) > MOST_SPEC_BYTES - 2 * RESERVED,
            "{}",
            bytes(&fits)
        );
        assert_eq!((kept(&fits, "a"), kept(&fits, "c")), (kept(&fits, "b"), 10));
        assert_eq!(fits.cut.len(), 2);
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let whole = spec(&[("a", 110, 1)]);
        assert_eq!(within(whole.clone(), MOST_SPEC_BYTES), whole);
    }

    #[test]
    fn a_usual_node_is_assigned_in_few_bytes() {
        let mut whole = spec(&[("a", 60, 0), ("b", 50, 0)]);
        for (n, pod) in whole.pods.iter_mut().enumerate() {
            // Every third computes with its memory.
            if n % 3 == 0 {
                let quantity = |mib| Some(api::Quantity(tiering::Bytes::mib(mib)));
                pod.memory = api::MemoryResources { request: quantity(256), limit: quantity(1536) };
            }
        }
        let bytes = bytes(&whole);
        println!("110 pods: {bytes} bytes");
        assert!(bytes <= 24 << 10, "{bytes}");
    }

    #[test]
    fn groups_take_turns() {
        let turns = in_turn(["a1", "a2", "a3", "b1", "c1", "c2"], |item| item.as_bytes()[0]);
        assert_eq!(turns, ["a1", "b1", "c1", "a2", "c2", "a3"]);
    }
}
