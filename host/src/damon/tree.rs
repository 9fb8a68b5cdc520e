//! The files of the first kdamond.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::kdamond::{Filter, Goal, Intervals, Kdamond, Match, Quota, Scheme, TriedRegion};
use crate::error::{Error, Result};
use crate::{file, parse};

/// Every file of the tree answers EBUSY while another of its files is being written or a command is under way: 6.12 takes a tick
/// of the kdamond for one.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Writes, again while the kernel is busy.
pub(super) fn write_patiently(path: &Path, text: &str) -> Result<()> {
    patiently(|| file::write(path, text))
}

fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Err(error) if error.errno() == Some(libc::EBUSY) && waited < PATIENCE => {
                thread::sleep(BETWEEN_TRIES);
                waited += BETWEEN_TRIES;
            }
            done => return done,
        }
    }
}

/// Whether a kdamond runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    On,
    /// It does not.
    Off,
}

/// What a scheme did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchemeStats {
    /// Regions it was for.
    pub nr_tried: u64,
    /// Their bytes.
    pub sz_tried: u64,
    /// Regions it did something with.
    pub nr_applied: u64,
    /// Bytes of pages it did something with. A page that had no room where it was to go, and stayed, is counted.
    pub sz_applied: u64,
    /// Bytes of pages that passed the filters; from 6.14 on.
    pub sz_ops_filter_passed: Option<u64>,
    /// Times it reached its quota.
    pub qt_exceeds: u64,
}

/// The first kdamond's directory. Remembers what it wrote, so that writing a value that differs a little costs a little.
#[derive(Debug)]
pub struct Tree {
    dir: PathBuf,
    written: BTreeMap<PathBuf, String>,
    schemes: usize,
}

impl Tree {
    /// The first of those that are set up.
    #[must_use]
    pub fn first(sys: &Path) -> Self {
        Self { dir: super::kdamonds(sys).join("0"), written: BTreeMap::new(), schemes: 0 }
    }

    /// Reads `state`; `None` where no kdamond is set up.
    pub fn read_state(&self) -> Result<Option<State>> {
        let path = self.dir.join("state");
        let text = patiently(|| file::read_if_there(&path))?;
        text.map(|text| match text.trim_end() {
            "on" => Ok(State::On),
            "off" => Ok(State::Off),
            other => Err(Error::malformed(&path, 1, other)),
        })
        .transpose()
    }

    /// Reads `pid`; `None` while it does not run.
    pub fn read_pid(&self) -> Result<Option<i32>> {
        let path = self.dir.join("pid");
        let Some(text) = patiently(|| file::read_if_there(&path))? else { return Ok(None) };
        let pid = text.trim_end();
        if pid == "-1" {
            return Ok(None);
        }
        pid.parse().map(Some).map_err(|_| Error::malformed(&path, 1, pid))
    }

    /// Reads the update interval of the first context, by which one may know whose kdamond it is; `None` where no context is
    /// set up.
    pub fn read_update_interval(&self) -> Result<Option<Duration>> {
        let path = self.attributes().join("intervals/update_us");
        Ok(patiently(|| file::read_number_if_there(&path))?.map(Duration::from_micros))
    }

    /// Starts it with what is written.
    pub fn turn_on(&self) -> Result<()> {
        self.command("on")
    }

    /// Stops it, and waits until it has stopped. One that does not run is no error.
    pub fn turn_off(&self) -> Result<()> {
        match self.command("off") {
            // 6.12 answers EPERM where it has stopped already.
            Err(error) if !error.is_gone() => match self.read_state()? {
                None | Some(State::Off) => Ok(()),
                Some(State::On) => Err(error),
            },
            done => file::there(done).map(|_| ()),
        }
    }

    /// Has the running kdamond take what is written now, and tells whether it still runs.
    pub fn commit(&self) -> Result<State> {
        self.command("commit")?;
        Ok(self.read_state()?.unwrap_or(State::Off))
    }

    /// Whether a quota is charged with all that is tried, as kernels before 7.2 have it; see [`Quota::bytes`]. Known once a scheme is
    /// written.
    #[must_use]
    pub fn charges_tries(&self) -> bool {
        !self.scheme(0).join("quotas/fail_charge_num").exists()
    }

    /// What each scheme did, in the order in which they were written.
    pub fn read_stats(&self) -> Result<Vec<SchemeStats>> {
        self.command("update_schemes_stats")?;
        (0..self.schemes).map(|index| read_scheme_stats(&self.scheme(index).join("stats"))).collect()
    }

    /// The bytes that each scheme may do in the present interval, in the order in which they were written. Zero for one whose first
    /// interval has not begun: 6.12 takes that for no bound.
    pub fn read_effective_quotas(&self) -> Result<Vec<u64>> {
        self.command("update_schemes_effective_quotas")?;
        let read = |index| {
            let path = self.scheme(index).join("quotas/effective_bytes");
            parse::number(&patiently(|| file::read(&path))?, &path)
        };
        (0..self.schemes).map(read).collect()
    }

    /// The regions to which a scheme applies now.
    pub fn read_tried_regions(&self, scheme: usize) -> Result<Vec<TriedRegion>> {
        self.command("update_schemes_tried_regions")?;
        let dir = self.scheme(scheme).join("tried_regions");
        (0_usize..).map_while(|index| read_tried_region(&dir.join(index.to_string())).transpose()).collect()
    }

    /// Writes a whole kdamond. Files that hold what is wanted, as far as this value wrote them, are not written again.
    ///
    /// # Errors
    /// [`Error::Gone`] where no kdamond is set up; after an error nothing is known of what is written.
    pub fn write(&mut self, kdamond: &Kdamond) -> Result<()> {
        let written = self.write_all(kdamond);
        if written.is_err() {
            self.written.clear();
        }
        written
    }

    fn write_all(&mut self, kdamond: &Kdamond) -> Result<()> {
        let contexts = self.dir.join("contexts");
        self.put_count(&contexts, "nr_contexts", 1)?;
        let context = contexts.join("0");
        self.put(context.join("operations"), "paddr")?;
        let attributes = self.attributes();
        let Intervals { sample, aggregation, update } = kdamond.intervals;
        for (name, interval) in [("sample_us", sample), ("aggr_us", aggregation), ("update_us", update)] {
            self.put(attributes.join("intervals").join(name), interval.as_micros())?;
        }
        // Least above most is refused only when the kernel takes it.
        self.put(attributes.join("nr_regions/min"), kdamond.nr_regions.start())?;
        self.put(attributes.join("nr_regions/max"), kdamond.nr_regions.end())?;

        let targets = context.join("targets");
        self.put_count(&targets, "nr_targets", 1)?;
        let regions = targets.join("0/regions");
        self.put_count(&regions, "nr_regions", kdamond.regions.len())?;
        for (index, range) in kdamond.regions.iter().enumerate() {
            let region = regions.join(index.to_string());
            self.put(region.join("start"), range.start)?;
            self.put(region.join("end"), range.end)?;
        }

        let schemes = context.join("schemes");
        self.put_count(&schemes, "nr_schemes", kdamond.schemes.len())?;
        self.schemes = kdamond.schemes.len();
        for (index, scheme) in kdamond.schemes.iter().enumerate() {
            self.put_scheme(&schemes.join(index.to_string()), scheme)?;
        }
        Ok(())
    }

    fn put_scheme(&mut self, dir: &Path, scheme: &Scheme) -> Result<()> {
        self.put(dir.join("action"), scheme.action.as_str())?;
        if let Some(node) = scheme.action.target() {
            self.put(dir.join("target_nid"), node)?;
        }
        self.put(dir.join("apply_interval_us"), scheme.apply_interval.as_micros())?;
        let pattern = dir.join("access_pattern");
        let range = |name: &str| (pattern.join(name).join("min"), pattern.join(name).join("max"));
        for (name, least, most) in [
            ("sz", *scheme.pattern.size.start(), *scheme.pattern.size.end()),
            (
                "nr_accesses",
                (*scheme.pattern.accesses.start()).into(),
                (*scheme.pattern.accesses.end()).into(),
            ),
            ("age", (*scheme.pattern.age.start()).into(), (*scheme.pattern.age.end()).into()),
        ] {
            let (min, max) = range(name);
            self.put(min, least)?;
            self.put(max, most)?;
        }
        self.put_quota(&dir.join("quotas"), &scheme.quota)?;
        // From 6.15 on those that look at pages have a directory of their own; the older one is to go.
        let own = dir.join("ops_filters");
        let filters = if own.is_dir() { own } else { dir.join("filters") };
        self.put_count(&filters, "nr_filters", scheme.filters.len())?;
        for (index, filter) in scheme.filters.iter().enumerate() {
            self.put_filter(&filters.join(index.to_string()), filter)?;
        }
        Ok(())
    }

    fn put_quota(&mut self, dir: &Path, quota: &Quota) -> Result<()> {
        self.put(dir.join("bytes"), quota.bytes)?;
        self.put(dir.join("ms"), quota.time.as_millis())?;
        self.put(dir.join("reset_interval_ms"), quota.reset.as_millis())?;
        let weights = quota.weights;
        for (name, weight) in [
            ("sz_permil", weights.size),
            ("nr_accesses_permil", weights.accesses),
            ("age_permil", weights.age),
        ] {
            self.put(dir.join("weights").join(name), weight)?;
        }
        // The kernel checks the two against each other when it takes them.
        self.put_if_there(dir.join("fail_charge_num"), quota.failed.0)?;
        self.put_if_there(dir.join("fail_charge_denom"), quota.failed.1)?;
        let goals = dir.join("goals");
        self.put_count(&goals, "nr_goals", quota.goals.len())?;
        for (index, goal) in quota.goals.iter().enumerate() {
            let Goal { metric, target, current, node, memcg } = goal;
            let dir = goals.join(index.to_string());
            self.put(dir.join("target_metric"), metric)?;
            self.put(dir.join("target_value"), target)?;
            self.put(dir.join("current_value"), current)?;
            if let Some(node) = node {
                self.put(dir.join("nid"), node)?;
            }
            if let Some(path) = memcg {
                self.put(dir.join("path"), path)?;
            }
        }
        Ok(())
    }

    fn put_filter(&mut self, dir: &Path, filter: &Filter) -> Result<()> {
        self.put(dir.join("type"), filter.of.as_str())?;
        self.put(dir.join("matching"), if filter.rejects { "Y" } else { "N" })?;
        self.put_if_there(dir.join("allow"), "N")?;
        if let Match::Memcg(path) = &filter.of {
            self.put(dir.join("memcg_path"), path)?;
        }
        Ok(())
    }

    /// Writes a file unless it holds this already.
    fn put(&mut self, path: PathBuf, value: impl Display) -> Result<()> {
        let value = value.to_string();
        if self.written.get(&path) != Some(&value) {
            write_patiently(&path, &value)?;
            self.written.insert(path, value);
        }
        Ok(())
    }

    fn put_if_there(&mut self, path: PathBuf, value: impl Display) -> Result<()> {
        file::there(self.put(path, value)).map(|_| ())
    }

    /// Writes how many directories there are to be. Those that were there are made anew, empty.
    fn put_count(&mut self, dir: &Path, name: &str, count: usize) -> Result<()> {
        let (path, value) = (dir.join(name), count.to_string());
        if self.written.get(&path) != Some(&value) {
            write_patiently(&path, &value)?;
            self.written.retain(|known, _| !known.starts_with(dir));
            self.written.insert(path, value);
        }
        Ok(())
    }

    fn attributes(&self) -> PathBuf {
        self.dir.join("contexts/0/monitoring_attrs")
    }

    fn scheme(&self, index: usize) -> PathBuf {
        self.dir.join("contexts/0/schemes").join(index.to_string())
    }

    fn command(&self, word: &str) -> Result<()> {
        write_patiently(&self.dir.join("state"), word)
    }
}

fn read_scheme_stats(dir: &Path) -> Result<SchemeStats> {
    let read = |name: &str| patiently(|| file::read_number_if_there(&dir.join(name)));
    let number = |name: &str| read(name)?.ok_or_else(|| Error::Gone { path: dir.join(name) });
    Ok(SchemeStats {
        nr_tried: number("nr_tried")?,
        sz_tried: number("sz_tried")?,
        nr_applied: number("nr_applied")?,
        sz_applied: number("sz_applied")?,
        sz_ops_filter_passed: read("sz_ops_filter_passed")?,
        qt_exceeds: number("qt_exceeds")?,
    })
}

fn read_tried_region(dir: &Path) -> Result<Option<TriedRegion>> {
    let read = |name: &str| -> Result<Option<u64>> {
        let path = dir.join(name);
        let Some(text) = patiently(|| file::read_if_there(&path))? else { return Ok(None) };
        parse::number(&text, &path).map(Some)
    };
    let (Some(start), Some(end)) = (read("start")?, read("end")?) else { return Ok(None) };
    let (accesses, age) = (read("nr_accesses")?.unwrap_or(0), read("age")?.unwrap_or(0));
    Ok(Some(TriedRegion { range: start..end, accesses, age }))
}

#[cfg(test)]
mod tests;
