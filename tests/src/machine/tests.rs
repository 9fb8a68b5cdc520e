use std::collections::BTreeSet;

use super::*;

const NODES: &str = "about: x\nnodes:\n  - { id: 0, kind: dram, size: 1Gi, cpus: 2 }\n";

fn error(text: &str) -> String {
    Kind::parse("m", text).unwrap_err().to_string()
}

/// The error of a file whose second node is this.
fn second(node: &str) -> String {
    error(&format!("{NODES}  - {node}\n"))
}

#[test]
fn every_file_of_the_project_is_a_machine_and_is_in_the_table() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/machines");
    let files: BTreeSet<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    for (name, text) in FILES {
        Kind::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(files, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn a_guest_that_is_told_of_a_machine_knows_all_of_it_but_the_words_for_people() {
    for kind in kinds() {
        assert!(!kind.told.contains(' '), "{}", kind.told);
        let told = Kind::parse(&kind.name, &kind.told).unwrap();
        assert_eq!(told, Kind { about: "-".to_owned(), ..kind.clone() });
    }
}

#[test]
fn what_a_file_does_not_say_is_as_usual() {
    let kind = Kind::parse("m", &format!("{NODES}  - {{ id: 1, kind: dram, size: 1Gi }}\n")).unwrap();
    assert_eq!(kind.kernels, Kernel::ALL);
    assert_eq!(kind.nodes[1].distances, [20, 10]);
    assert_eq!(kind.boot.words(), ["psi=1"]);
    assert_eq!((kind.fast_nodes(), kind.slow_nodes()), (vec![0], vec![1]));
}

#[test]
fn boot_options_are_words_of_the_command_line() {
    let text = format!(
        "{NODES}boot: {{ psi: false, lockdown: integrity, numaBalancing: false, lruGen: false, thp: never }}"
    );
    let kind = Kind::parse("m", &text).unwrap();
    let words = ["psi=0", "lockdown=integrity", "numa_balancing=disable", "transparent_hugepage=never"];
    assert_eq!(kind.boot.words(), words);
    assert_eq!(kind.boot.lru_gen, Some(false));
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let said = second("{ id: 1, kind: dram, size: 1Gi, colour: red }");
    assert!(said.starts_with("4:") && said.contains("colour"), "{said}");
    let said = error(&format!("{NODES}boat: {{}}\n"));
    assert!(said.starts_with("4:") && said.contains("boat"), "{said}");
}

#[test]
fn a_node_without_a_size_is_refused() {
    let said = second("{ id: 1, kind: dram }");
    assert!(said.starts_with("4:") && said.contains("size"), "{said}");
    let said = second("{ id: 1, kind: dram, size: 12 }");
    assert!(
        said.starts_with("4:") && said.contains("`12` is no size; write it like 1536Mi or 2Gi"),
        "{said}"
    );
}

#[test]
fn ids_that_are_not_there_are_refused() {
    assert_eq!(
        second("{ id: 2, kind: dram, size: 1Gi }"),
        "4:5: node 2 is where node 1 should be: ids count from 0"
    );
    assert_eq!(
        second("{ id: 0, kind: dram, size: 1Gi }"),
        "4:5: node 0 is where node 1 should be: ids count from 0"
    );
}

#[test]
fn distances_are_whole_and_the_same_both_ways() {
    let with = |first: &str, second: &str| {
        let node =
            |id: usize, row: &str| format!("  - {{ id: {id}, kind: dram, size: 1Gi, cpus: 1{row} }}\n");
        error(&format!("about: x\nnodes:\n{}{}", node(0, first), node(1, second)))
    };
    let row = |row: &str| format!(", distances: [{row}]");
    assert_eq!(with(&row("10, 20"), ""), "4:5: node 1 has no distances, node 0 has: all or none");
    assert_eq!(with(&row("10"), &row("20, 10")), "3:5: node 0 has 1 distances, there are 2 nodes");
    assert_eq!(
        with(&row("11, 20"), &row("20, 10")),
        "3:5: node 0 has the distance 11 to itself, which is 10"
    );
    assert_eq!(
        with(&row("10, 9"), &row("9, 10")),
        "3:5: node 0 has the distance 9 to node 1: it is more than 10"
    );
    assert_eq!(with(&row("10, 20"), &row("30, 10")), "3:5: from node 0 to 1 it is 20, back it is 30");
}

#[test]
fn what_firmware_tells_belongs_to_the_kinds_it_tells_of() {
    let said = second("{ id: 1, kind: hmat, size: 1Gi, latency: 250ns }");
    assert_eq!(said, "4:5: node 1 needs latency and bandwidth: firmware tells of both");
    let said = second("{ id: 1, kind: kmem, size: 1Gi, latency: 250ns }");
    assert!(said.contains("for kind hmat and hbm alone"), "{said}");
    let said = second("{ id: 1, kind: hmat, size: 1Gi, latency: 50ns, bandwidth: 40Gi }");
    assert!(said.contains("not slower than DRAM"), "{said}");
    let said = second("{ id: 1, kind: hbm, size: 1Gi, latency: 90ns, bandwidth: 40Gi }");
    assert!(said.contains("not faster than DRAM"), "{said}");
    let said = second("{ id: 1, kind: kmem, size: 1Gi, cpus: 1 }");
    assert!(said.contains("only nodes of kind dram may"), "{said}");
}

#[test]
fn nodes_are_listed_as_the_kernel_lists_them() {
    assert_eq!([node_list(&[0]), node_list(&[0, 1]), node_list(&[0, 2])], ["0", "0-1", "0,2"]);
    assert_eq!(node_list(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
}

#[test]
fn a_cxl_device_is_the_last_node() {
    let cxl = "  - { id: 1, kind: cxl, size: 512Mi }\n";
    assert!(Kind::parse("m", &format!("{NODES}{cxl}")).is_ok());
    let said = error(&format!("{NODES}{cxl}  - {{ id: 2, kind: dram, size: 1Gi }}\n"));
    assert_eq!(said, "4:5: node 1 is of kind cxl and not the last: the kernel numbers it after all others");
}

#[test]
fn somebody_has_cpus() {
    assert_eq!(error("about: x\nnodes:\n  - { id: 0, kind: dram, size: 1Gi }\n"), "3:5: no node has CPUs");
}

#[test]
fn a_kernel_that_is_none_is_named() {
    let said = error(&format!("{NODES}kernels: [\"5.4\"]\n"));
    assert_eq!(said, "4:11: `5.4` is no kernel series: expected one of 6.1, 6.12, 7.2");
}

#[test]
fn a_node_belongs_to_the_nearest_with_cpus() {
    let sockets = Kind::named("sockets").unwrap();
    assert_eq!([0, 1, 2, 3].map(|node| sockets.initiator(node)), [0, 1, 0, 1]);
    assert_eq!((sockets.fast_nodes(), sockets.slow_nodes()), (vec![0, 1], vec![2, 3]));
    let hbm = Kind::named("hbm-flat").unwrap();
    assert_eq!((hbm.fast_nodes(), hbm.slow_nodes()), (vec![0, 1], vec![2]));
}

#[test]
fn most_scenarios_are_for_the_two_plain_machines() {
    let plain: Vec<_> =
        kinds().iter().filter(|kind| kind.is_plain()).map(|kind| kind.name.as_str()).collect();
    assert_eq!(plain, ["hmat", "kmem"]);
}
