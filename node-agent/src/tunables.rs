//! Kernel-wide settings that are ours for a while: who demotes, who promotes and how fast, whether DAMON is taken, and what walks clear.

use host::damon::{Module, read_module_enabled, write_module_enabled};
use host::demotion::{read_demotion_enabled, write_demotion_enabled};
use host::lru_gen::{lru_gen_enabled, read_lru_gen_enabled, write_lru_gen_enabled};
use host::numa_balancing::{
    NumaBalancing, read_numa_balancing, read_numa_balancing_promote_rate_limit, write_numa_balancing,
    write_numa_balancing_promote_rate_limit,
};
use host::roots::Roots;

use crate::state::{State, StateError, Tunable, Verdict};

/// A setting could not be read, written or recorded.
#[derive(Debug, thiserror::Error)]
pub enum TunableError {
    /// The kernel.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// This kernel does not have it.
    #[error("this kernel has no {}", .0.name())]
    Absent(Tunable),
}

/// The present value as the state file spells it; `None` where the kernel does not have it.
pub fn read(roots: &Roots, tunable: Tunable) -> host::Result<Option<String>> {
    Ok(match tunable {
        Tunable::DemotionEnabled => read_demotion_enabled(&roots.sys)?.map(|on| on.to_string()),
        Tunable::NumaBalancing => read_numa_balancing(&roots.proc)?.map(|mode| mode.bits().to_string()),
        Tunable::PromoteRateLimit => {
            read_numa_balancing_promote_rate_limit(&roots.proc)?.map(|limit| limit.to_string())
        }
        Tunable::DamonStat => read_module_enabled(&roots.sys, Module::Stat)?.map(|on| on.to_string()),
        Tunable::LruGenEnabled => read_lru_gen_enabled(&roots.sys)?.map(|enabled| enabled.to_string()),
    })
}

fn write(roots: &Roots, tunable: Tunable, value: &str) -> host::Result<()> {
    match tunable {
        Tunable::DemotionEnabled => write_demotion_enabled(&roots.sys, value == "true"),
        Tunable::NumaBalancing => {
            let mode = match value {
                "0" => NumaBalancing::OFF,
                "2" => NumaBalancing::TIERING,
                "3" => NumaBalancing::BOTH,
                _ => NumaBalancing::NORMAL,
            };
            write_numa_balancing(&roots.proc, mode)
        }
        Tunable::PromoteRateLimit => {
            // What is not a number was never read.
            write_numa_balancing_promote_rate_limit(&roots.proc, value.parse().unwrap_or(u64::from(u16::MAX)))
        }
        Tunable::DamonStat => write_module_enabled(&roots.sys, Module::Stat, value == "true"),
        Tunable::LruGenEnabled => {
            write_lru_gen_enabled(&roots.sys, lru_gen_enabled(value, std::path::Path::new(tunable.name()))?)
        }
    }
}

/// Sets a value, its original being on disk first. Whether anything was written.
pub fn set(roots: &Roots, state: &mut State, tunable: Tunable, value: &str) -> Result<bool, TunableError> {
    let present = read(roots, tunable)?.ok_or(TunableError::Absent(tunable))?;
    if present == value {
        if !state.stands(tunable) {
            // Another set it so: there is nothing of ours to undo.
            state.forget_tunable(tunable)?;
        }
        return Ok(false);
    }
    state.will_write_tunable(tunable, &present, value)?;
    if let Err(error) = write(roots, tunable, value) {
        // What stands is not ours, and who finds it must not take it for another writer's answer to ours.
        state.put_tunable_back(tunable);
        return Err(error.into());
    }
    Ok(true)
}

/// Puts the original back, unless another writer has changed the value since. `None` where nothing of ours stands.
pub fn put_back(roots: &Roots, state: &mut State, tunable: Tunable) -> Result<Option<Verdict>, TunableError> {
    let Some(record) = state.tunable(tunable).filter(|_| state.stands(tunable)) else { return Ok(None) };
    let Some(present) = read(roots, tunable)? else { return Ok(None) };
    let verdict = record.verdict(&present);
    if verdict == Verdict::PutBack {
        write(roots, tunable, &record.original)?;
    }
    state.put_tunable_back(tunable);
    Ok(Some(verdict))
}

/// Keeps a setting at `wanted`, or with `None` as it was. What another writer set in the place of our value is returned:
/// it is theirs, and nothing of ours is left to undo.
pub fn hold(
    roots: &Roots,
    state: &mut State,
    tunable: Tunable,
    wanted: Option<&str>,
) -> Result<Option<String>, TunableError> {
    let Some(present) = read(roots, tunable)? else { return Ok(None) };
    let Some(record) = state.tunable(tunable) else {
        if let Some(wanted) = wanted {
            set(roots, state, tunable, wanted)?;
        }
        return Ok(None);
    };
    let stands = state.stands(tunable);
    let foreign = if stands { record.ours.last() != Some(&present) } else { record.original != present };
    if foreign {
        state.forget_tunable(tunable)?;
        if stands {
            return Ok(Some(present));
        }
    }
    match wanted {
        Some(wanted) => set(roots, state, tunable, wanted).map(drop)?,
        None => put_back(roots, state, tunable).map(drop)?,
    }
    Ok(None)
}

/// While it lives the kernel may demote. Dropping it puts back what was there.
///
/// The setting is global, and makes every reclaimer demote: hits of `memory.high` and `memory.max` then empty a cgroup's
/// DRAM before they free anything (measured on 6.12 and 7.2). So it is on only while an eviction of ours runs.
#[derive(Debug)]
pub struct DemotionWindow<'a> {
    roots: &'a Roots,
    state: &'a mut State,
    /// Not if demotion was on already, by another or for longer than this window.
    opened: bool,
}

impl<'a> DemotionWindow<'a> {
    /// Turns demotion on.
    pub fn open(roots: &'a Roots, state: &'a mut State) -> Result<Self, TunableError> {
        let opened = set(roots, state, Tunable::DemotionEnabled, "true")?;
        Ok(Self { roots, state, opened })
    }
}

impl Drop for DemotionWindow<'_> {
    fn drop(&mut self) {
        if self.opened
            && let Err(error) = put_back(self.roots, self.state, Tunable::DemotionEnabled)
        {
            tracing::error!(%error, "numa/demotion_enabled could not be put back; the next round tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    const DEMOTION: &str = "sys/kernel/mm/numa/demotion_enabled";

    struct Host {
        dir: tempfile::TempDir,
        roots: Roots,
        state: State,
    }

    fn host(present: &str) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let [proc, sys, debugfs] = ["proc", "sys", "debug"].map(|name| dir.path().join(name));
        let roots = Roots::new(proc, sys, debugfs);
        std::fs::create_dir_all(dir.path().join("sys/kernel/mm/numa")).unwrap();
        let state = State::open(&dir.path().join("state"), "boot").unwrap();
        let host = Host { dir, roots, state };
        host.write(present);
        host
    }

    impl Host {
        fn write(&self, value: &str) {
            std::fs::write(self.dir.path().join(DEMOTION), value).unwrap();
        }

        fn present(&self) -> String {
            read(&self.roots, Tunable::DemotionEnabled).unwrap().unwrap()
        }

        fn hold(&mut self, wanted: Option<&str>) -> Option<String> {
            hold(&self.roots, &mut self.state, Tunable::DemotionEnabled, wanted).unwrap()
        }
    }

    #[test]
    fn a_window_ends_as_it_found_things() {
        for present in ["0", "1"] {
            let mut host = host(present);
            let window = DemotionWindow::open(&host.roots, &mut host.state).unwrap();
            assert_eq!(read(window.roots, Tunable::DemotionEnabled).unwrap().as_deref(), Some("true"));
            drop(window);
            assert_eq!(host.present(), if present == "1" { "true" } else { "false" });
        }
    }

    #[test]
    fn a_window_within_a_longer_hold_leaves_it_open() {
        let mut host = host("0");
        assert_eq!(host.hold(Some("true")), None);
        drop(DemotionWindow::open(&host.roots, &mut host.state).unwrap());
        assert_eq!(host.present(), "true");
        assert_eq!(host.hold(None), None);
        assert_eq!(host.present(), "false");
    }

    #[test]
    fn what_another_sets_between_two_windows_is_theirs() {
        let mut host = host("0");
        drop(DemotionWindow::open(&host.roots, &mut host.state).unwrap());
        host.write("1");
        drop(DemotionWindow::open(&host.roots, &mut host.state).unwrap());
        assert_eq!(host.hold(None), None);
        assert_eq!(host.present(), "true");
        assert!(host.state.is_empty(), "nothing of ours is left to undo");
    }

    #[test]
    fn a_value_that_could_not_be_written_is_tried_again_and_nobody_is_blamed() {
        let mut host = host("0");
        let file = host.dir.path().join(DEMOTION);
        // Also root cannot write what is sealed.
        let sealed = memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&sealed, b"0").unwrap();
        fcntl_add_seals(&sealed, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
        std::fs::remove_file(&file).unwrap();
        symlink(format!("/proc/self/fd/{}", sealed.as_raw_fd()), &file).unwrap();
        for _ in 0..2 {
            assert!(hold(&host.roots, &mut host.state, Tunable::DemotionEnabled, Some("true")).is_err());
        }
        std::fs::remove_file(&file).unwrap();
        host.write("0");
        assert_eq!(host.hold(Some("true")), None);
        assert_eq!(host.present(), "true");
    }

    #[test]
    fn what_another_sets_in_the_place_of_ours_is_theirs_and_told() {
        let mut host = host("0");
        assert_eq!(host.hold(Some("true")), None);
        host.write("0");
        assert_eq!(host.hold(Some("true")).as_deref(), Some("false"));
        assert_eq!(host.present(), "false");
        assert!(host.state.is_empty());
    }
}
