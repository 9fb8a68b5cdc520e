//! What the agent changed and what was there before: the state file.
//!
//! Before the first write to a kernel file its original value is on disk, and so is every value about to be written. So
//! whoever comes after a crash knows of each file what to put back, and can tell a value of ours from one that another
//! writer put there since. The file holds records only while something of ours stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use host::cgroup::{CgroupId, CgroupPath, ControlFile};
use serde::{Deserialize, Serialize};

/// A kernel-wide setting that the agent may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tunable {
    /// `/sys/kernel/mm/numa/demotion_enabled`.
    DemotionEnabled,
    /// `/proc/sys/kernel/numa_balancing`.
    NumaBalancing,
    /// `/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps`.
    PromoteRateLimit,
    /// `/sys/module/damon_stat/parameters/enabled`.
    DamonStat,
    /// `/sys/kernel/mm/lru_gen/enabled`.
    LruGenEnabled,
}

impl Tunable {
    /// The name under which people know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DemotionEnabled => "numa/demotion_enabled",
            Self::NumaBalancing => "kernel.numa_balancing",
            Self::PromoteRateLimit => "kernel.numa_balancing_promote_rate_limit_MBps",
            Self::DamonStat => "damon_stat.enabled",
            Self::LruGenEnabled => "lru_gen/enabled",
        }
    }
}

/// One value's history: what to put back, and which values are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What stood before our first write, as the kernel spells it.
    pub original: String,
    /// Values of ours that may stand: the last one written and the one about to be.
    pub ours: Vec<String>,
}

impl Record {
    /// What a restore should do about `present`.
    #[must_use]
    pub fn verdict(&self, present: &str) -> Verdict {
        if present == self.original {
            Verdict::AlreadyBack
        } else if self.ours.iter().any(|value| value == present) {
            Verdict::PutBack
        } else {
            Verdict::Foreign
        }
    }
}

/// See [`Record::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The original stands.
    AlreadyBack,
    /// A value of ours stands.
    PutBack,
    /// Another writer's value stands: it is theirs to keep.
    Foreign,
}

/// A cgroup's file that the agent changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileRecord {
    cgroup: u64,
    path: String,
    file: String,
    #[serde(flatten)]
    record: Record,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// Inodes of cgroups mean nothing after a boot.
    boot_id: String,
    tunables: BTreeMap<Tunable, Record>,
    files: Vec<FileRecord>,
    /// How many kdamonds were set up before ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nr_kdamonds: Option<u64>,
}

const VERSION: u32 = 1;

/// Why there is no state file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent has it.
    #[error(
        "another agent is running: it holds {}, and two agents would undo each other's work",
        path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// It can't be written.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        op: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It can't be understood. Nothing is thrown away: a person should look.
    #[error(
        "{} is not a state file of this version: {reason}; it may hold original values of memory.high and cpuset.mems: \
         look at it, put them back, then remove it",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The open state file. While it lives no other agent can open it.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    boot_id: String,
    _lock: File,
    tunables: BTreeMap<Tunable, Record>,
    /// Settings that hold a value of ours now. Others may have a record still: see [`State::put_tunable_back`].
    standing: BTreeSet<Tunable>,
    files: BTreeMap<(CgroupId, ControlFile), (CgroupPath, Record)>,
    nr_kdamonds: Option<u64>,
}

impl State {
    /// Opens the state file, or begins one. Records of an earlier boot are dropped: what they speak of is gone.
    pub fn open(path: &Path, boot_id: &str) -> Result<Self, StateError> {
        let failed = |op, source| StateError::Io { path: path.to_owned(), op, source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|source| failed("make the directory of", source))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| failed("lock", source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::Held { path: lock_path }),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", source)),
        }
        let contents = match fs::read_to_string(path) {
            Ok(text) => {
                parse(&text).map_err(|reason| StateError::Unreadable { path: path.to_owned(), reason })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::default(),
            Err(source) => return Err(failed("read", source)),
        };
        let mut state = Self {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            _lock: lock,
            tunables: BTreeMap::new(),
            standing: BTreeSet::new(),
            files: BTreeMap::new(),
            nr_kdamonds: None,
        };
        if contents.boot_id == boot_id {
            state.standing = contents.tunables.keys().copied().collect();
            state.tunables = contents.tunables;
            state.nr_kdamonds = contents.nr_kdamonds;
            state.files = contents
                .files
                .into_iter()
                .filter_map(|file| {
                    let kind = control_file(&file.file)?;
                    let path = CgroupPath::new(&file.path)?;
                    Some(((CgroupId::from(file.cgroup), kind), (path, file.record)))
                })
                .collect();
        }
        Ok(state)
    }

    /// The record of a cgroup's file.
    #[must_use]
    pub fn file(&self, cgroup: CgroupId, file: ControlFile) -> Option<&Record> {
        self.files.get(&(cgroup, file)).map(|(_, record)| record)
    }

    /// All records of cgroup files.
    pub fn files(&self) -> impl Iterator<Item = (CgroupId, ControlFile, &CgroupPath, &Record)> {
        self.files.iter().map(|((id, file), (path, record))| (*id, *file, path, record))
    }

    /// The record of a kernel-wide setting.
    #[must_use]
    pub fn tunable(&self, tunable: Tunable) -> Option<&Record> {
        self.tunables.get(&tunable)
    }

    /// Whether a value of ours stands in a setting, as far as this process and the file tell.
    #[must_use]
    pub fn stands(&self, tunable: Tunable) -> bool {
        self.standing.contains(&tunable)
    }

    /// All kernel-wide settings that were changed.
    pub fn tunables(&self) -> impl Iterator<Item = (Tunable, &Record)> {
        self.tunables.iter().map(|(tunable, record)| (*tunable, record))
    }

    /// How many kdamonds were set up before ours; `None` while none is ours.
    #[must_use]
    pub fn nr_kdamonds(&self) -> Option<u64> {
        self.nr_kdamonds
    }

    /// Call before the first write to a kdamond's files, with how many are set up. On disk when it returns.
    pub fn will_set_up_kdamond(&mut self, nr_kdamonds: u64) -> Result<(), StateError> {
        if self.nr_kdamonds.is_some() {
            return Ok(());
        }
        self.nr_kdamonds = Some(nr_kdamonds);
        self.save().inspect_err(|_| self.nr_kdamonds = None)
    }

    /// No kdamond is ours any more.
    pub fn forget_kdamond(&mut self) -> Result<(), StateError> {
        if self.nr_kdamonds.take().is_some() { self.save() } else { Ok(()) }
    }

    /// Call before writing `value` to a cgroup's file that holds `present`. On disk when it returns.
    pub fn will_write_file(
        &mut self,
        cgroup: CgroupId,
        path: &CgroupPath,
        file: ControlFile,
        present: &str,
        value: &str,
    ) -> Result<(), StateError> {
        let before = self.files.get(&(cgroup, file)).cloned();
        let (_, record) = self
            .files
            .entry((cgroup, file))
            .or_insert_with(|| (path.clone(), Record { original: present.to_owned(), ours: Vec::new() }));
        if !note(record, present, value) {
            return Ok(());
        }
        // What is not on disk must not look as if it was to the next call.
        self.save().inspect_err(|_| {
            match before {
                Some(before) => self.files.insert((cgroup, file), before),
                None => self.files.remove(&(cgroup, file)),
            };
        })
    }

    /// Call before writing `value` to a setting that holds `present`. On disk when it returns.
    pub fn will_write_tunable(
        &mut self,
        tunable: Tunable,
        present: &str,
        value: &str,
    ) -> Result<(), StateError> {
        let fresh = || Record { original: present.to_owned(), ours: Vec::new() };
        let stands = self.standing.contains(&tunable);
        let before = self.tunables.get(&tunable).cloned();
        let record = self.tunables.entry(tunable).or_insert_with(fresh);
        if !stands && record.original != present {
            *record = fresh();
        }
        note(record, present, value);
        if before.as_ref() != Some(record) {
            self.save().inspect_err(|_| {
                match before {
                    Some(before) => self.tunables.insert(tunable, before),
                    None => self.tunables.remove(&tunable),
                };
            })?;
        }
        self.standing.insert(tunable);
        Ok(())
    }

    /// The setting's original stands again. Its record stays on disk, so that switching back and forth, as demotion is for
    /// each eviction, costs one disk write in all: putting back what is back already does no harm.
    pub fn put_tunable_back(&mut self, tunable: Tunable) {
        self.standing.remove(&tunable);
    }

    /// Another writer's value took the place of ours: it is what to put back from now on.
    pub fn adopt_original(
        &mut self,
        cgroup: CgroupId,
        file: ControlFile,
        value: &str,
    ) -> Result<(), StateError> {
        if let Some((_, record)) = self.files.get_mut(&(cgroup, file)) {
            value.clone_into(&mut record.original);
            record.ours.clear();
            self.save()?;
        }
        Ok(())
    }

    /// The files' originals stand again, or their cgroups are gone.
    pub fn forget_files(
        &mut self,
        which: impl IntoIterator<Item = (CgroupId, ControlFile)>,
    ) -> Result<(), StateError> {
        let mut changed = false;
        for key in which {
            changed |= self.files.remove(&key).is_some();
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Nothing of ours stands in the setting.
    pub fn forget_tunable(&mut self, tunable: Tunable) -> Result<(), StateError> {
        self.standing.remove(&tunable);
        if self.tunables.remove(&tunable).is_some() { self.save() } else { Ok(()) }
    }

    /// Whether nothing of ours stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tunables.is_empty() && self.files.is_empty() && self.nr_kdamonds.is_none()
    }

    /// Writes beside and renames, so that a crash leaves the old or the new contents, never a part.
    fn save(&self) -> Result<(), StateError> {
        let failed = |op, source| StateError::Io { path: self.path.clone(), op, source };
        let contents = Contents {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            tunables: self.tunables.clone(),
            files: self
                .files
                .iter()
                .map(|((id, file), (path, record))| FileRecord {
                    cgroup: id.get(),
                    path: path.to_string(),
                    file: file.name().to_owned(),
                    record: record.clone(),
                })
                .collect(),
            nr_kdamonds: self.nr_kdamonds,
        };
        let text = serde_json::to_vec_pretty(&contents).map_err(|error| failed("write", error.into()))?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside).map_err(|source| failed("write", source))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|source| failed("write", source))?;
        fs::rename(&beside, &self.path).map_err(|source| failed("replace", source))?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(|source| failed("sync the directory of", source))?;
        }
        Ok(())
    }
}

/// Takes in a coming write; whether the record changed.
fn note(record: &mut Record, present: &str, value: &str) -> bool {
    // Nothing of ours stands: whatever is there now is what to put back, also where it changed since it was adopted.
    if record.ours.is_empty() {
        present.clone_into(&mut record.original);
    }
    let mut ours = Vec::with_capacity(2);
    if present != record.original && present != value && record.ours.iter().any(|known| known == present) {
        ours.push(present.to_owned());
    }
    ours.push(value.to_owned());
    let changed = record.ours != ours;
    record.ours = ours;
    changed
}

fn parse(text: &str) -> Result<Contents, String> {
    let contents: Contents = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if contents.version == VERSION {
        Ok(contents)
    } else {
        Err(format!("its version is {}, not {VERSION}", contents.version))
    }
}

fn control_file(name: &str) -> Option<ControlFile> {
    [ControlFile::MemoryHigh, ControlFile::CpusetMems].into_iter().find(|file| file.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "boot";

    fn cgroup() -> (CgroupId, CgroupPath) {
        (CgroupId::from(7), CgroupPath::new("/a").unwrap())
    }

    fn open(dir: &tempfile::TempDir) -> State {
        State::open(&dir.path().join("run/state"), BOOT).unwrap()
    }

    #[test]
    fn the_first_value_seen_is_the_original_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let (id, path) = cgroup();
        let mut state = open(&dir);
        state.will_write_file(id, &path, ControlFile::MemoryHigh, "max", "100").unwrap();
        state.will_write_file(id, &path, ControlFile::MemoryHigh, "100", "90").unwrap();
        drop(state);

        let state = open(&dir);
        let record = state.file(id, ControlFile::MemoryHigh).unwrap();
        let check = |present, verdict| assert_eq!(record.verdict(present), verdict, "{present}");
        check("max", Verdict::AlreadyBack);
        check("100", Verdict::PutBack);
        check("90", Verdict::PutBack);
        check("80", Verdict::Foreign);
    }

    #[test]
    fn what_is_put_back_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (id, path) = cgroup();
        let mut state = open(&dir);
        state.will_write_file(id, &path, ControlFile::CpusetMems, "", "0").unwrap();
        state.will_write_tunable(Tunable::NumaBalancing, "1", "2").unwrap();
        state.forget_files([(id, ControlFile::CpusetMems)]).unwrap();
        state.forget_tunable(Tunable::NumaBalancing).unwrap();
        drop(state);
        assert!(open(&dir).is_empty());
    }

    #[test]
    fn a_kdamond_is_ours_from_before_it_is_made_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(&dir);
        assert_eq!(state.nr_kdamonds(), None);
        state.will_set_up_kdamond(0).unwrap();
        // What was there before is known from the first time.
        state.will_set_up_kdamond(1).unwrap();
        drop(state);
        let mut state = open(&dir);
        assert_eq!(state.nr_kdamonds(), Some(0));
        assert!(!state.is_empty());
        state.forget_kdamond().unwrap();
        drop(state);
        assert!(open(&dir).is_empty());
    }

    #[test]
    fn a_value_that_changed_since_it_was_adopted_is_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let (id, path) = cgroup();
        let mut state = open(&dir);
        state.will_write_file(id, &path, ControlFile::MemoryHigh, "max", "100").unwrap();
        state.adopt_original(id, ControlFile::MemoryHigh, "200").unwrap();
        state.will_write_file(id, &path, ControlFile::MemoryHigh, "300", "100").unwrap();
        drop(state);
        let state = open(&dir);
        let record = state.file(id, ControlFile::MemoryHigh).unwrap();
        assert_eq!((record.original.as_str(), record.ours.as_slice()), ("300", &["100".to_owned()][..]));
    }

    #[test]
    fn a_setting_that_is_switched_often_is_saved_once_and_follows_what_others_set_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let saved = || fs::metadata(dir.path().join("run/state")).unwrap().modified().unwrap();
        let mut state = open(&dir);
        state.will_write_tunable(Tunable::DemotionEnabled, "false", "true").unwrap();
        let first = saved();
        for _ in 0..3 {
            state.put_tunable_back(Tunable::DemotionEnabled);
            assert!(!state.stands(Tunable::DemotionEnabled));
            state.will_write_tunable(Tunable::DemotionEnabled, "false", "true").unwrap();
        }
        assert_eq!(saved(), first);

        state.put_tunable_back(Tunable::DemotionEnabled);
        state.will_write_tunable(Tunable::DemotionEnabled, "1", "true").unwrap();
        drop(state);
        let state = open(&dir);
        assert_eq!(state.tunable(Tunable::DemotionEnabled).unwrap().original, "1");
        assert!(state.stands(Tunable::DemotionEnabled), "after a crash it may be ours");
    }

    #[test]
    fn records_of_an_earlier_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (id, path) = cgroup();
        open(&dir).will_write_file(id, &path, ControlFile::MemoryHigh, "max", "1").unwrap();
        assert!(State::open(&dir.path().join("run/state"), "another").unwrap().is_empty());
    }

    #[test]
    fn two_agents_do_not_share_a_state_file() {
        let dir = tempfile::tempdir().unwrap();
        let _held = open(&dir);
        assert!(matches!(State::open(&dir.path().join("run/state"), BOOT), Err(StateError::Held { .. })));
    }

    #[test]
    fn a_file_that_is_not_understood_is_kept_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"version":2,"boot_id":"boot","tunables":{},"files":[]}"#] {
            let path = dir.path().join("state");
            fs::write(&path, text).unwrap();
            assert!(matches!(State::open(&path, BOOT), Err(StateError::Unreadable { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
