//! The state file: what a crash, a full disk or a person may have left.
#![no_main]

use std::cell::RefCell;
use std::fs;

use host::cgroup::{CgroupId, CgroupPath, ControlFile};
use libfuzzer_sys::fuzz_target;
use node_agent::state::{State, StateError, Verdict};
use tempfile::TempDir;
use thermocline_fuzz::directory;

const BOOT: &str = "boot";

thread_local! {
    static DIRECTORY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    DIRECTORY.with_borrow_mut(|made| {
        let path = made.get_or_insert_with(directory).path().join("state");
        fs::write(&path, data).expect("a file");
        match State::open(&path, BOOT) {
            Ok(mut state) => {
                for (_, _, cgroup, record) in state.files() {
                    assert!(cgroup.is_in(&CgroupPath::root()));
                    assert_eq!(record.verdict(&record.original), Verdict::AlreadyBack);
                }
                // Saved and opened again it says the same.
                let (id, file) = (CgroupId::from(u64::MAX), ControlFile::MemoryHigh);
                let cgroup = CgroupPath::root().child("new");
                state.will_write_file(id, &cgroup, file, "max", "4096").expect("saved");
                let before = records(&state);
                drop(state);
                let state = State::open(&path, BOOT).expect("what was saved can be opened");
                assert_eq!(records(&state), before);
                assert_eq!(state.file(id, file).map(|record| record.verdict("4096")), Some(Verdict::PutBack));
            }
            Err(StateError::Unreadable { .. }) => {
                assert_eq!(fs::read(&path).expect("the file"), data, "what is not understood is kept");
            }
            // Not text at all.
            Err(StateError::Io { .. }) => assert!(std::str::from_utf8(data).is_err()),
            Err(error) => panic!("{error}"),
        }
    });
});

fn records(state: &State) -> String {
    let files: Vec<_> = state.files().collect();
    let tunables: Vec<_> = state.tunables().collect();
    format!("{files:?} {tunables:?}")
}
