//! The kdamond that is ours: set up with its record on disk first, and taken away again.
//!
//! It would outlive us otherwise: DAMON belongs to nobody's process. No other is ever touched, and while another is set up there
//! is none of ours: the two would clear each other's accessed bits, and `nr_kdamonds` can't be changed but for all at once.

use std::path::Path;

use host::damon::{
    Kdamond, Module, OURS, Obstacle, State as Running, Tree, obstacle, read_module_enabled, read_nr_kdamonds,
    write_nr_kdamonds,
};
use host::roots::Roots;

use crate::restore::Outcome;
use crate::state::{State, StateError, Tunable};
use crate::tunables::{self, TunableError};

/// Why there is no kdamond of ours.
#[derive(Debug, thiserror::Error)]
pub enum KdamondError {
    /// Another holds DAMON, or it is not there.
    #[error("{}", told(*.0))]
    Obstacle(Obstacle),
    /// It was started and does not run.
    #[error("its kdamond ended by itself")]
    Ended,
    /// The kernel refused.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// `damon_stat.enabled`.
    #[error(transparent)]
    Tunable(#[from] TunableError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
}

fn told(obstacle: Obstacle) -> String {
    match obstacle {
        Obstacle::Absent => "this kernel has no DAMON".to_owned(),
        Obstacle::Foreign(count) => {
            format!("{count} kdamond(s) of another writer are set up; they are left alone")
        }
        Obstacle::Held(module) => format!("{} holds DAMON", module.name()),
    }
}

/// Starts one. Where that fails, what was done is undone.
pub fn set_up(roots: &Roots, state: &mut State, kdamond: &Kdamond) -> Result<Tree, KdamondError> {
    // What an agent before or a failure left.
    if let Some(original) = state.nr_kdamonds() {
        put_back(&roots.sys, original)?;
        state.forget_kdamond()?;
    }
    if let Some(obstacle) = obstacle(&roots.sys)? {
        return Err(KdamondError::Obstacle(obstacle));
    }
    let started = start(roots, state, kdamond);
    if started.is_err() {
        take_away(roots, state)?;
    }
    started
}

fn start(roots: &Roots, state: &mut State, kdamond: &Kdamond) -> Result<Tree, KdamondError> {
    if read_module_enabled(&roots.sys, Module::Stat)? == Some(true) {
        tunables::set(roots, state, Tunable::DamonStat, "false")?;
    }
    state.will_set_up_kdamond(0)?;
    write_nr_kdamonds(&roots.sys, 1)?;
    let mut tree = Tree::first(&roots.sys);
    tree.write(kdamond)?;
    tree.turn_on()?;
    match tree.read_state()? {
        Some(Running::On) => Ok(tree),
        _ => Err(KdamondError::Ended),
    }
}

/// Takes ours away. Whether `damon_stat` is switched on again is for the agent to say, whose engine it may mislead.
pub fn take_away(roots: &Roots, state: &mut State) -> Result<(), KdamondError> {
    if let Some(original) = state.nr_kdamonds() {
        put_back(&roots.sys, original)?;
        state.forget_kdamond()?;
    }
    Ok(())
}

/// Stops the kdamond that the state file calls ours and takes its directory away, unless it became another's since.
pub fn put_back(sys: &Path, original: u64) -> host::Result<Outcome> {
    let Some(present) = read_nr_kdamonds(sys)?.filter(|present| *present != original) else {
        return Ok(Outcome::AlreadyBack);
    };
    let tree = Tree::first(sys);
    let runs = tree.read_state()? == Some(Running::On);
    // One that does not run was not set up whole: we were ended before, or turned it off and were ended then.
    if present > 1 || (runs && tree.read_update_interval()? != Some(OURS)) {
        return Ok(Outcome::Foreign(present.to_string()));
    }
    tree.turn_off()?;
    write_nr_kdamonds(sys, original)?;
    Ok(Outcome::PutBack)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KDAMONDS: &str = "sys/kernel/mm/damon/admin/kdamonds";

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let [proc, sys, debugfs] = ["proc", "sys", "debug"].map(|name| dir.path().join(name));
        (dir, Roots::new(proc, sys, debugfs))
    }

    fn check_put_back(count: &str, state: &str, update_us: &str, expected: &str) {
        let (dir, roots) = host(&[
            (&format!("{KDAMONDS}/nr_kdamonds"), count),
            (&format!("{KDAMONDS}/0/state"), state),
            (&format!("{KDAMONDS}/0/contexts/0/monitoring_attrs/intervals/update_us"), update_us),
        ]);
        let outcome = put_back(&roots.sys, 0).unwrap();
        assert!(format!("{outcome:?}").starts_with(expected), "{outcome:?}");
        let left = std::fs::read_to_string(dir.path().join(KDAMONDS).join("nr_kdamonds")).unwrap();
        assert_eq!(left.starts_with('0'), expected != "Foreign", "{left:?}");
    }

    #[test]
    fn only_what_is_ours_is_taken_away() {
        let ours = OURS.as_micros().to_string();
        check_put_back("0\n", "off\n", "60000000\n", "AlreadyBack");
        check_put_back("1\n", "on\n", &ours, "PutBack");
        check_put_back("1\n", "off\n", "60000000\n", "PutBack");
        check_put_back("1\n", "on\n", "60000000\n", "Foreign");
        check_put_back("2\n", "on\n", &ours, "Foreign");
    }
}
