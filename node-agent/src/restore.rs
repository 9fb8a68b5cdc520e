//! Putting back what was there before.

use host::cgroup::{Cgroup, CgroupId, CgroupPath, CgroupRoot, ControlFile};
use host::parse::{Limit, id_list, limit};
use host::roots::Roots;

use crate::kdamond;
use crate::state::{Record, State, StateError, Verdict};
use crate::tunables;

/// What came of one file or setting.
#[derive(Debug)]
pub enum Outcome {
    /// The original stands again.
    PutBack,
    /// It stood already.
    AlreadyBack,
    /// Another writer's value stands; it was left.
    Foreign(String),
    /// The cgroup is gone, and its values with it.
    Gone,
    /// It could not be put back; the record is kept for another try.
    Failed(String),
}

/// One line of a restore's report.
#[derive(Debug)]
pub struct Restored {
    /// The file or setting.
    pub what: String,
    /// The value to be put back.
    pub original: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Puts back everything that the state file knows of.
pub fn restore_all(roots: &Roots, root: &CgroupRoot, state: &mut State) -> Result<Vec<Restored>, StateError> {
    let all: Vec<_> = state.files().map(|(id, file, _, _)| (id, file)).collect();
    // Where the state file can't be written, as much as possible is put back nevertheless.
    let files = restore_files(root, state, &all);
    // First the kdamond: while it runs damon_stat can't.
    let kdamond = restore_kdamond(roots, state);
    let tunables = restore_tunables(roots, state);
    let mut report = files?;
    report.extend(kdamond?);
    report.extend(tunables?);
    Ok(report)
}

/// Stops the kdamond that is ours, and takes its directory away.
pub fn restore_kdamond(roots: &Roots, state: &mut State) -> Result<Option<Restored>, StateError> {
    let Some(original) = state.nr_kdamonds() else { return Ok(None) };
    let outcome =
        kdamond::put_back(&roots.sys, original).unwrap_or_else(|error| Outcome::Failed(error.to_string()));
    if !matches!(outcome, Outcome::Failed(_)) {
        state.forget_kdamond()?;
    }
    Ok(Some(Restored { what: "DAMON's nr_kdamonds".to_owned(), original: original.to_string(), outcome }))
}

/// Puts back the kernel-wide settings.
pub fn restore_tunables(roots: &Roots, state: &mut State) -> Result<Vec<Restored>, StateError> {
    let mut report = Vec::new();
    let tunables: Vec<_> =
        state.tunables().map(|(tunable, record)| (tunable, record.original.clone())).collect();
    for (tunable, original) in tunables {
        let outcome = match tunables::put_back(roots, state, tunable) {
            Ok(Some(Verdict::PutBack)) => Outcome::PutBack,
            Ok(Some(Verdict::AlreadyBack)) => Outcome::AlreadyBack,
            Ok(Some(Verdict::Foreign) | None) => match tunables::read(roots, tunable) {
                Ok(Some(present)) if present != original => Outcome::Foreign(present),
                _ => Outcome::AlreadyBack,
            },
            Err(error) => Outcome::Failed(error.to_string()),
        };
        if !matches!(outcome, Outcome::Failed(_)) {
            state.forget_tunable(tunable)?;
        }
        report.push(Restored { what: tunable.name().to_owned(), original, outcome });
    }
    Ok(report)
}

/// Puts back some cgroups' files.
pub fn restore_files(
    root: &CgroupRoot,
    state: &mut State,
    which: &[(CgroupId, ControlFile)],
) -> Result<Vec<Restored>, StateError> {
    let records: Vec<(CgroupId, ControlFile, CgroupPath, Record)> = state
        .files()
        .filter(|(id, file, _, _)| which.contains(&(*id, *file)))
        .map(|(id, file, path, record)| (id, file, path.clone(), record.clone()))
        .collect();
    let mut report = Vec::new();
    let mut done = Vec::new();
    for (id, file, path, record) in records {
        let outcome = match root.cgroup(&path) {
            Ok(cgroup) if cgroup.id() == id => restore_file(root, &cgroup, file, &record),
            Ok(_) => Ok(Outcome::Gone),
            Err(error) => Err(error),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            if error.is_gone() { Outcome::Gone } else { Outcome::Failed(error.to_string()) }
        });
        if !matches!(outcome, Outcome::Failed(_)) {
            done.push((id, file));
        }
        report.push(Restored { what: format!("{path}/{file}"), original: record.original, outcome });
    }
    state.forget_files(done)?;
    Ok(report)
}

fn restore_file(
    root: &CgroupRoot,
    cgroup: &Cgroup,
    file: ControlFile,
    record: &Record,
) -> host::Result<Outcome> {
    let Some(present) = read_file(cgroup, file)? else { return Ok(Outcome::Gone) };
    match record.verdict(&present) {
        Verdict::AlreadyBack => Ok(Outcome::AlreadyBack),
        // A restore that was killed before it could forget.
        Verdict::Foreign if is_released(root, file, record, &present)? => Ok(Outcome::AlreadyBack),
        Verdict::Foreign => Ok(Outcome::Foreign(present)),
        Verdict::PutBack => write_file(root, cgroup, file, &record.original).map(|()| Outcome::PutBack),
    }
}

/// Whether the file holds what stands for inheriting where the kernel does not let a cgroup with processes inherit again:
/// all nodes.
fn is_released(root: &CgroupRoot, file: ControlFile, record: &Record, present: &str) -> host::Result<bool> {
    if file != ControlFile::CpusetMems || !record.original.is_empty() {
        return Ok(false);
    }
    let all = root.cgroup(&CgroupPath::root())?.read_cpuset_mems_effective()?;
    Ok(all.is_some_and(|all| host::parse::format_id_list(&all) == present))
}

/// A file of ours as the state file spells it; `None` where its controller is off.
pub fn read_file(cgroup: &Cgroup, file: ControlFile) -> host::Result<Option<String>> {
    Ok(match file {
        ControlFile::MemoryHigh => cgroup.read_memory_high()?.map(|limit| limit.to_string()),
        ControlFile::CpusetMems => cgroup.read_cpuset_mems()?.map(|mems| host::parse::format_id_list(&mems)),
    })
}

fn write_file(root: &CgroupRoot, cgroup: &Cgroup, file: ControlFile, value: &str) -> host::Result<()> {
    let path = cgroup.file_path(file.name());
    match file {
        ControlFile::MemoryHigh => {
            let value: Limit = limit(value, &path)?;
            cgroup.write_memory_high(value).map(drop)
        }
        // Kernels before 7 do not let a cgroup with processes inherit again.
        ControlFile::CpusetMems if value.is_empty() => cgroup.release_cpuset_mems(root).map(drop),
        ControlFile::CpusetMems => cgroup.write_cpuset_mems(&id_list(value, &path)?),
    }
}
