//! Files about the host's memory: nodes, zones, counters, generations.
#![no_main]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use host::lru_gen::{LruGen, lru_gen_enabled};
use host::numa_balancing::numa_balancing;
use host::{dax, demotion, node, zoneinfo};
use libfuzzer_sys::fuzz_target;
use thermocline_fuzz::parsed;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();

    parsed(text, zoneinfo::zoneinfo);
    parsed(text, node::node_meminfo);
    let online = BTreeSet::from([0, 1, 5]);
    if let Some(distances) = parsed(text, |text, path| node::node_distance(text, path, &online)) {
        assert!(distances.iter().map(|(node, _)| *node).eq(online));
    }
    if let Some(mode) = parsed(text, numa_balancing) {
        assert_eq!(parsed(&mode.bits().to_string(), numa_balancing), Some(mode));
    }
    parsed(text, demotion::demotion_enabled);
    parsed(text, lru_gen_enabled);
    parsed(text, dax::dax_target_node);
    let _ = dax::dax_kind(Path::new(text));

    if let Some(all) = generations(text) {
        let spelled = spell(&all);
        let again = generations(&spelled).expect("what was read can be read again");
        assert_eq!(spell(&again), spelled);
        for memcg in all.memcgs() {
            assert_eq!(all.memcg(memcg.path()).map(|first| first.path()), Some(memcg.path()));
        }
        // Leaving some out leaves the others as they are.
        let mut odd = LruGen::default();
        odd.parse(text.as_bytes(), Path::new("lru_gen"), |id, _| id % 2 == 1).expect("less of the same");
        let expected = all.memcgs().filter(|memcg| memcg.id() % 2 == 1).map(|memcg| memcg.path());
        assert!(odd.memcgs().map(|memcg| memcg.path()).eq(expected));
    }
});

fn generations(text: &str) -> Option<LruGen> {
    let mut all = LruGen::default();
    parsed(text, |text, path| all.parse(text.as_bytes(), path, |_, _| true))?;
    Some(all)
}

/// As the kernel writes it.
fn spell(all: &LruGen) -> String {
    let mut text = String::new();
    for memcg in all.memcgs() {
        let _ = writeln!(text, "memcg {:5} {}", memcg.id(), memcg.path());
        for (node, generations) in memcg.nodes() {
            let _ = writeln!(text, " node {node:5}");
            for g in generations {
                let _ = writeln!(
                    text,
                    " {:10} {:10} {:10} {:10} ",
                    g.seq, g.birth_age_ms, g.anon_pages, g.file_pages
                );
            }
        }
    }
    text
}
