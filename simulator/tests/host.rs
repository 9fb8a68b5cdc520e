//! Properties of the model, whoever acts in it.

use simulator::laws::{Law, Peer, Thermocline};
use simulator::world::World;
use simulator::{host::Host, run};

const BUSY: &str = "
about: Everything at once, on a small host.
lasts: 20m
host:
  cpus: 8
  nodes:
    - { id: 0, kind: fast, size: 8Gi, distances: [10, 20, 17] }
    - { id: 1, kind: fast, size: 8Gi, distances: [20, 10, 28] }
    - { id: 2, kind: slow, size: 8Gi, distances: [17, 28, 10] }
pods:
  - name: store
    count: 2
    memory:
      - { name: hot, size: 1Gi, touched: { zipf: 1.0, accesses: 10000 } }
      - { name: cold, size: 1Gi }
      - { name: moving, size: 512Mi, touched: { perSecond: 1, shifts: 5m, parts: 4 } }
      - { name: held, size: 256Mi, kind: pinned }
      - { name: locked, size: 256Mi, kind: locked }
      - { name: segment, size: 256Mi, kind: shared, touched: { every: 3m } }
  - name: log
    managed: false
    memoryMax: 3Gi
    memory:
      - { name: heap, size: 64Mi, upTo: 1Gi, grows: 1Mi, touched: { every: 45s } }
    files: { read: 100Mi, of: 1Ti }
  - name: job
    starts: 4m
    ends: 9m
    memory:
      - { name: heap, size: 4Gi, touched: { perSecond: 0.2 } }
";

fn world() -> World {
    World::parse(BUSY).expect("a world")
}

fn laws(world: &World) -> Vec<Box<dyn Law>> {
    let peers = [Peer::Nothing, Peer::Kernel].into_iter().chain(Peer::COMPARED);
    let mut laws: Vec<Box<dyn Law>> = peers.map(|peer| Box::new(peer.law(None)) as Box<dyn Law>).collect();
    laws.push(Box::new(Thermocline::new(world)));
    laws
}

#[test]
fn pages_are_conserved() {
    for seed in 0..2 {
        let world = world();
        for mut law in laws(&world) {
            let mut host = Host::new(&world, seed);
            while host.now < world.lasts.0 {
                host.step();
                law.act(&mut host);
                let has = |node: usize| {
                    let anon: u64 = (0..host.pods.len()).map(|pod| host.truly_on(pod, None, node)).sum();
                    anon + host.cached_on(node)
                };
                for node in 0..host.nodes.len() {
                    let used = host.nodes[node].total - host.nodes[node].free();
                    assert_eq!(used, has(node), "{} on node {node} at {:?}", law.name(), host.now);
                    assert!(used <= host.nodes[node].total);
                }
            }
        }
    }
}

#[test]
fn what_cannot_move_never_moves() {
    let world = world();
    for mut law in laws(&world) {
        let host = run(&world, law.as_mut(), 1).host;
        for pod in (0..host.pods.len()).filter(|pod| host.pods[*pod].spec_name == "store") {
            for set in ["held", "locked"] {
                assert_eq!(host.truly_on(pod, Some(set), 2), 0, "{set} by {}", law.name());
            }
        }
    }
}

#[test]
fn a_seed_says_all() {
    let world = world();
    let minutes = |seed| {
        let host = run(&world, &mut Thermocline::new(&world), seed).host;
        host.pods.into_iter().map(|pod| pod.ledger.minutes).collect::<Vec<_>>()
    };
    assert_eq!(minutes(5), minutes(5));
    assert_ne!(minutes(5), minutes(6));
}

#[test]
fn counts_of_cgroups_lag_on_many_cpus() {
    let seen_late = |cpus: u32| {
        // A MiB a second is 256 updates; a reader sees them at once where that is 64 of each CPU, else every two seconds.
        let world = World::parse(&format!(
            "about: x\nlasts: 1m\nhost: {{ cpus: {cpus}, nodes: [{{ id: 0, kind: fast, size: 4Gi }}] }}\npods:\n  - name: a\n    memory:\n      - {{ name: heap, size: 1Mi, upTo: 1Gi, grows: 1Mi }}\n",
        ))
        .expect("a world");
        let mut host = Host::new(&world, 0);
        let mut late = 0;
        while host.now < world.lasts.0 {
            host.step();
            late += u32::from(host.numa_stat(0).anon[0] != host.truly_on(0, None, 0));
        }
        late
    };
    assert_eq!(seen_late(2), 0);
    assert!((25..=35).contains(&seen_late(256)), "{}", seen_late(256));
}

#[test]
fn a_walk_finds_what_was_touched_since_the_last() {
    let world = World::parse(
        "about: x\nlasts: 1m\nhost: { nodes: [{ id: 0, kind: fast, size: 4Gi }] }\npods:\n  - name: a\n    memory:\n      - { name: used, size: 1Gi, touched: { every: 20s } }\n      - { name: cold, size: 1Gi }\n",
    )
    .unwrap();
    let mut host = Host::new(&world, 0);
    host.step();
    host.walk(0);
    let touched = |host: &mut Host| host.walk(0)[0].iter().map(|(_, pages)| pages).sum::<u64>();
    assert_eq!(touched(&mut host), 0);
    for _ in 0..20 {
        host.step();
    }
    assert_eq!(touched(&mut host), (1 << 30) / 4096);
    let generations = host.generations(0, 0);
    assert_eq!(generations.len(), 4);
    assert_eq!(generations.iter().map(|generation| generation.anon).sum::<u64>(), (2 << 30) / 4096);
}
