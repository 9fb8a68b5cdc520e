//! Binary files about pages: `pagemap` and `kpageflags`.
//!
//! The input is 64-bit words: how many frames to ask for, those frames, then the words of both files.
#![no_main]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;

use host::pages::kpageflags::Kpageflags;
use host::pages::movable::MovablePages;
use host::pages::node_pfns::{NodePfns, read_node_pfns};
use host::pages::page_size;
use host::pages::pagemap::Pagemap;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use thermocline_fuzz::directory;

const PID: i32 = 7;

thread_local! {
    static HOST: RefCell<Option<(TempDir, NodePfns)>> = const { RefCell::new(None) };
}

/// A host whose first 128 MiB are node 0 and the next are node 1.
fn host() -> (TempDir, NodePfns) {
    let dir = directory();
    let node = dir.path().join("devices/system/node");
    for place in ["node0/memory0", "node1/memory1"] {
        fs::create_dir_all(node.join(place)).expect("a directory");
    }
    fs::create_dir_all(dir.path().join("devices/system/memory")).expect("a directory");
    fs::create_dir(dir.path().join(PID.to_string())).expect("a directory");
    fs::write(dir.path().join("devices/system/memory/block_size_bytes"), "8000000\n").expect("a file");
    for list in ["online", "has_cpu", "has_memory"] {
        fs::write(node.join(list), "0-1\n").expect("a file");
    }
    let nodes = read_node_pfns(dir.path()).expect("frames of nodes");
    (dir, nodes)
}

fuzz_target!(|data: &[u8]| {
    HOST.with_borrow_mut(|made| {
        let (dir, nodes) = made.get_or_insert_with(host);
        let proc = dir.path();
        let words: Vec<u64> = data.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let Some((count, words)) = words.split_first() else { return };
        let (asked, words) = words.split_at((*count % 32).min(words.len() as u64) as usize);
        // Also the odd bytes at the end, which are no whole word.
        let bytes = &data[data.len() - words.len() * 8 - data.len() % 8..];
        fs::write(proc.join("kpageflags"), bytes).expect("a file");
        fs::write(proc.join(PID.to_string()).join("pagemap"), bytes).expect("a file");

        let mut kpageflags = Kpageflags::open(proc).expect("the file");
        let mut flags = HashMap::new();
        // Frames are what pagemap has room for: 55 bits.
        let frames: Vec<u64> = asked.iter().map(|frame| frame >> 9).collect();
        kpageflags.read(&mut frames.clone(), &mut flags).expect("what is there");
        for frame in &frames {
            let word = usize::try_from(*frame).ok().and_then(|frame| words.get(frame));
            assert_eq!(flags.get(frame).map(|flags| flags.anon()), word.map(|word| word >> 12 & 1 == 1));
        }
        if let Some(tail) = frames.first() {
            let head = kpageflags.head_of(*tail).expect("what is there");
            assert!(head.is_none_or(|flags| flags.head()));
        }

        let (page, pages) = (page_size(), words.len() as u64);
        let mut entries = Vec::new();
        let mut pagemap = Pagemap::open(proc, PID).expect("the file");
        pagemap.read(0..(pages + 3) * page, &mut entries).expect("what is there");
        assert!(entries.iter().map(|entry| entry.is_present()).eq(words.iter().map(|word| word >> 63 == 1)));

        let mut movable = MovablePages::open(proc).expect("the file");
        let found =
            movable.of(proc, PID, 0..(pages + 3) * page, &BTreeSet::from([0]), nodes).expect("what is there");
        let mut end = 0;
        for folio in found {
            assert!(folio.address >= end && folio.pages > 0 && folio.address % page == 0);
            end = folio.address + folio.pages * page;
            let entry = entries[usize::try_from(folio.address / page).expect("an index")];
            assert!(entry.is_exclusive() && entry.pfn().and_then(|pfn| nodes.node_of(pfn)) == Some(0));
        }
        assert!(end <= pages * page);
    });
});
