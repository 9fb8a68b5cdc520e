//! Reclaims ahead of limits, on a thread of its own: a reclaim may block, and usage is read more often than rounds come.
//!
//! What to reclaim is the law's to say ([`tiering::law::Ahead`]). Nothing is written that would have to be put back.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

use host::cgroup::{Cgroup, CgroupId, CgroupRoot};
use host::demotion::read_demotion_enabled;
use host::parse::Limit;
use host::reclaim::{ReclaimSwappiness, write_memory_reclaim};
use host::roots::Roots;
use host::swap::{read_has_swap, read_may_swap};
use tiering::law::{Ahead, Reclaim, Uncharged};
use tiering::{Bytes, CpuBudget, Instant};

/// Between two readings of usage of who is near a limit.
const EVERY: Duration = Duration::from_millis(250);
/// And of who is far from it: limits change, too.
const SELDOM: Duration = Duration::from_secs(1);

/// Of a core, reading takes no more than one part in so many, averaged over a minute: with very many cgroups it is done less often.
const PART_OF_A_CORE: u32 = 200;

/// An eviction of ours has demotion on for about so long, and so many follow each other at most.
const WINDOW: Duration = Duration::from_millis(5);
const WINDOWS: u32 = 20;

/// A managed cgroup whose policy asks for it.
#[derive(Debug)]
pub struct Target {
    /// Who it is.
    pub id: CgroupId,
    /// Itself and those below it: each may have a limit of its own.
    pub cgroups: Vec<Cgroup>,
}

/// What came of it for one managed cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// By how much usage fell.
    pub bytes: u64,
    /// Why the last reclaim uncharged nothing.
    pub failed: Option<Failed>,
}

/// Why nothing was uncharged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Demotion is on for the whole host, by another's wish: memory would be moved down instead, and stay charged.
    Demotes,
    /// Nothing of it is clean page cache, or may be swapped.
    NothingToUncharge,
    /// The kernel refused.
    Host(String),
}

type Done = Arc<Mutex<BTreeMap<CgroupId, Reclaimed>>>;

/// The thread; it ends when this is dropped, after the reclaim that is under way.
#[derive(Debug)]
pub struct ReclaimAhead {
    targets: Sender<Vec<Target>>,
    done: Done,
}

impl ReclaimAhead {
    /// Starts it, with nothing to do.
    pub fn start(roots: Roots, root: CgroupRoot) -> std::io::Result<Self> {
        let (targets, taken) = channel();
        let done = Done::default();
        let noted = Arc::clone(&done);
        std::thread::Builder::new()
            .name("reclaim-ahead".to_owned())
            .spawn(move || Watching { roots, root, done: noted, watched: Vec::new() }.serve(&taken))?;
        Ok(Self { targets, done })
    }

    /// From now on these, and no others.
    pub fn watch(&self, targets: Vec<Target>) {
        // A thread that panicked has said so.
        let _ = self.targets.send(targets);
    }

    /// What was done for a cgroup since it was watched first.
    #[must_use]
    pub fn of(&self, id: CgroupId) -> Option<Reclaimed> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

struct Watching {
    roots: Roots,
    root: CgroupRoot,
    done: Done,
    watched: Vec<Watched>,
}

struct Watched {
    of: CgroupId,
    cgroup: Cgroup,
    ahead: Ahead,
    next: Instant,
}

impl Watching {
    fn serve(mut self, targets: &Receiver<Vec<Target>>) {
        let began = Clock::now();
        let (mut pause, mut budget) = (EVERY, CpuBudget::new(PART_OF_A_CORE, Instant::default()));
        loop {
            let taken = if self.watched.is_empty() {
                targets.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                targets.recv_timeout(pause)
            };
            match taken {
                Ok(targets) => self.take(targets),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let (mut watched, pass) = (std::mem::take(&mut self.watched), cpu_time());
            let mut reclaiming = Duration::ZERO;
            let now = Instant(began.elapsed());
            watched.retain_mut(|watched| match self.step(watched, now, &mut reclaiming) {
                Ok(()) => true,
                Err(error) if error.is_gone() => false,
                Err(error) => {
                    self.note(watched.of, |done| done.failed = Some(Failed::Host(error.to_string())));
                    true
                }
            });
            self.watched = watched;
            budget.spend(cpu_time().saturating_sub(pass + reclaiming), Instant(began.elapsed()));
            pause = EVERY.max(budget.wait());
        }
    }

    fn take(&mut self, targets: Vec<Target>) {
        let known: BTreeMap<CgroupId, Ahead> =
            self.watched.iter().map(|watched| (watched.cgroup.id(), watched.ahead)).collect();
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.retain(|id, _| targets.iter().any(|target| target.id == *id));
        self.watched = targets
            .into_iter()
            .flat_map(|target| target.cgroups.into_iter().map(move |cgroup| (target.id, cgroup)))
            .map(|(of, cgroup)| Watched {
                of,
                ahead: known.get(&cgroup.id()).copied().unwrap_or_default(),
                cgroup,
                next: Instant::default(),
            })
            .collect();
    }

    fn note(&self, id: CgroupId, how: impl FnOnce(&mut Reclaimed)) {
        how(self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
    }

    /// Reads one cgroup where it is time to, and reclaims where it is near its limit; adds what the latter took.
    fn step(&self, watched: &mut Watched, now: Instant, reclaiming: &mut Duration) -> host::Result<()> {
        let Watched { cgroup, ahead, next, .. } = watched;
        if now < *next {
            return Ok(());
        }
        *next = now + SELDOM;
        let bytes = |limit: Option<Limit>| match limit {
            Some(Limit::Bytes(bytes)) => Some(Bytes(bytes)),
            Some(Limit::Max) | None => None,
        };
        let limits = [bytes(cgroup.read_memory_high()?), bytes(cgroup.read_memory_max()?)];
        let Some(limit) = limits.into_iter().flatten().min() else { return Ok(()) };
        let Some(current) = cgroup.read_memory_current()?.map(Bytes) else { return Ok(()) };
        ahead.observe(current, now);
        *next = now + ahead.safe_for(limit).min(SELDOM);
        if ahead.over(limit).is_zero() {
            return Ok(());
        }
        let began = cpu_time();
        let outcome = self.reclaim(watched, current, limit);
        *reclaiming += cpu_time().saturating_sub(began);
        outcome
    }

    fn reclaim(&self, watched: &mut Watched, current: Bytes, limit: Bytes) -> host::Result<()> {
        let Watched { of, cgroup, ahead, .. } = watched;
        if self.demotes()? {
            self.note(*of, |done| done.failed = Some(Failed::Demotes));
            return Ok(());
        }
        let Some(reclaim) = ahead.reclaim(limit, self.uncharged(cgroup)?) else {
            self.note(*of, |done| done.failed = Some(Failed::NothingToUncharge));
            return Ok(());
        };
        write(cgroup, reclaim)?;
        let left = cgroup.read_memory_current()?.map_or(current, Bytes);
        ahead.reclaimed(left);
        self.note(*of, |done| {
            done.bytes += (current - left).0;
            done.failed = None;
        });
        Ok(())
    }

    /// Whether demotion is on for longer than an eviction of ours.
    fn demotes(&self) -> host::Result<bool> {
        for _ in 0..WINDOWS {
            if read_demotion_enabled(&self.roots.sys)? != Some(true) {
                return Ok(false);
            }
            std::thread::sleep(WINDOW);
        }
        Ok(true)
    }

    fn uncharged(&self, cgroup: &Cgroup) -> host::Result<Uncharged> {
        let stat = cgroup.read_memory_stat()?.unwrap_or_default();
        let of = |field: Option<u64>| Bytes(field.unwrap_or(0));
        let file = of(stat.inactive_file) + of(stat.active_file);
        let may_swap = read_has_swap(&self.roots.proc)? && read_may_swap(&self.root, cgroup)?;
        Ok(Uncharged {
            clean_file: file - of(stat.file_dirty) - of(stat.file_writeback),
            swappable: if may_swap { of(stat.anon) } else { Bytes::ZERO },
        })
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Kernels before 6.7 or so take no swappiness; there the kernel chooses, and swaps only where the cgroup may.
fn write(cgroup: &Cgroup, reclaim: Reclaim) -> host::Result<()> {
    let write = |swappiness| write_memory_reclaim(cgroup.as_fd(), reclaim.bytes.0, swappiness).map(drop);
    if !reclaim.file_only {
        return write(ReclaimSwappiness::Default);
    }
    match write(ReclaimSwappiness::Number(0)) {
        Err(error) if error.errno() == Some(EINVAL) => write(ReclaimSwappiness::Default),
        outcome => outcome,
    }
}

/// `EINVAL`.
const EINVAL: i32 = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixture::{cgroup, ground, write as files};

    /// A cgroup of this usage under a limit of 100 MiB, and what becomes of it in one step.
    fn check(current_mib: u64, demotes: &str, stat: &str, reclaim: Option<&str>, failed: Option<&Failed>) {
        let dir = tempfile::tempdir().unwrap();
        let current = (current_mib << 20).to_string();
        files(
            dir.path(),
            &[
                ("cgroup/pod/memory.current", &current),
                ("cgroup/pod/memory.high", "104857600"),
                ("cgroup/pod/memory.max", "max"),
                ("cgroup/pod/memory.stat", stat),
                ("cgroup/pod/memory.reclaim", ""),
                ("sys/kernel/mm/numa/demotion_enabled", demotes),
                ("proc/swaps", "Filename\n"),
            ],
        );
        let ground = ground(dir.path());
        let root = CgroupRoot::open_unchecked(dir.path().join("cgroup")).unwrap();
        let watching =
            Watching { roots: ground.roots.clone(), root, done: Done::default(), watched: Vec::new() };
        let cgroup = cgroup(dir.path(), "/pod");
        let id = cgroup.id();
        let mut watched = Watched { of: id, cgroup, ahead: Ahead::default(), next: Instant::default() };
        watching.step(&mut watched, Instant::default(), &mut Duration::default()).unwrap();
        let written = std::fs::read_to_string(dir.path().join("cgroup/pod/memory.reclaim")).unwrap();
        assert_eq!(written, reclaim.unwrap_or(""), "{current_mib} MiB {demotes} {stat}");
        let done = watching.done.lock().unwrap().get(&id).and_then(|done| done.failed.clone());
        assert_eq!(done.as_ref(), failed, "{current_mib} MiB {demotes} {stat}");
    }

    const CACHE: &str =
        "anon 10485760\ninactive_file 83886080\nactive_file 0\nfile_dirty 0\nfile_writeback 0\n";

    #[test]
    fn near_a_limit_clean_cache_goes_and_far_from_it_nothing() {
        check(50, "false", CACHE, None, None);
        check(90, "false", CACHE, Some("6291456 swappiness=0"), None);
    }

    #[test]
    fn what_would_be_demoted_or_is_not_there_is_not_asked_for() {
        check(90, "true", CACHE, None, Some(&Failed::Demotes));
        let dirty = "anon 10485760\ninactive_file 83886080\nfile_dirty 83886080\n";
        check(90, "false", dirty, None, Some(&Failed::NothingToUncharge));
    }
}
