//! Promotion by DAMON: one kdamond watches the slow nodes, and a scheme for each leaf moves what it finds hot of that leaf's
//! anonymous memory to a fast node, within the leaf's grant.
//!
//! A scheme stands from the moment that something of its leaf is on a slow node, so that what becomes hot comes back without
//! waiting for a round. Of a hot region only those pages are moved that were accessed since they were demoted or looked at: the
//! filter for young pages looks at each. Memory after `MADV_FREE` is not young until it is used again.
//!
//! What DAMON says it moved is not believed: a page for which the target had no room counts as moved. What left the slow nodes by
//! `memory.numa_stat` is, and a cgroup of which nothing does is left alone for a while.
//!
//! The kernel's answers take up to a tenth of a second, so the work is done by a thread; it keeps ceilings between two rounds, and
//! holds all promotion when no round comes.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host::cgroup::{Cgroup, CgroupId, CgroupPath, CgroupRoot};
use host::damon::{
    AccessPattern, Action, Filter, Intervals, Kdamond, Match, OURS, Quota, Scheme, SchemeStats, State, Tree,
    Weights,
};
use host::pages::node_pfns::read_node_pfns;
use host::pages::page_size;
use host::roots::Roots;
use tiering::law::{self, by_leaf, grants};
use tiering::{Bytes, NodeId, NodeSet};

use crate::engine::Moved;

/// One page of each region is looked at this often. Ten thousand looks a second cost about a hundredth of a core, and pages that are
/// accessed once a second are found in one look out of ten.
const SAMPLE: Duration = Duration::from_millis(100);
/// Found hot after this long at the latest, where all of a region is.
const AGGREGATION: Duration = Duration::from_millis(500);
/// Grants are for this long.
const WINDOW: Duration = Duration::from_secs(1);
/// Until a scheme's quota is in force: the first window that begins after one aggregation.
const FIRST_WINDOW: Duration = Duration::from_millis(100);
/// Regions are at least so many, on a slow node of this size or more.
const REGIONS: std::ops::RangeInclusive<u64> = 256..=1000;
/// Regions are not made smaller than this for the sake of their number.
const LEAST_REGION: u64 = 2 << 20;
/// Each scheme costs a look at every page of every hot region.
const MOST_SCHEMES: usize = 64;
/// Between two looks at what was done, while something is.
const BUSY_TICK: Duration = Duration::from_millis(500);
/// Between two looks otherwise.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// For how long a leaf counts as busy after something of it was moved.
const BUSY_FOR: Duration = Duration::from_secs(3);
/// Without a round for so long nothing more is promoted: rooms and ceilings are not known any more.
const STALE: Duration = Duration::from_secs(5);
/// So many looks on end at which DAMON moved something and nothing had left the slow nodes.
const STUCK_LOOKS: u32 = 4;
/// A cgroup that is stuck is left alone for this long.
const STUCK_FOR: Duration = Duration::from_secs(30);
/// A quota is at most so many hundredths of the rate where tries are charged. What is moved beyond the rate is waited for, so over a minute
/// the rate is passed by a twentieth at most.
const MOST_EFFORT: u64 = 400;
/// A kdamond that ends by itself is started again so often, each minute.
const RESTARTS: u32 = 3;

/// The kdamond that watches some nodes, without schemes.
pub fn kdamond(roots: &Roots, slow: &NodeSet) -> host::Result<Kdamond> {
    let pfns = read_node_pfns(&roots.sys)?;
    let page = page_size();
    let frames = slow.iter().flat_map(|node| pfns.of_node(node.0));
    let mut regions: Vec<_> = frames.map(|range| range.start * page..range.end * page).collect();
    regions.sort_unstable_by_key(|range| range.start);
    let watched: u64 = regions.iter().map(|range| range.end - range.start).sum();
    let least = (watched / LEAST_REGION).clamp(10, *REGIONS.start());
    Ok(Kdamond {
        intervals: Intervals { sample: SAMPLE, aggregation: AGGREGATION, update: OURS },
        nr_regions: least..=*REGIONS.end(),
        regions,
        schemes: Vec::new(),
    })
}

/// What the thread found since the report before.
#[derive(Debug)]
pub enum Report {
    /// What left the slow nodes.
    Promoted {
        /// Of this managed cgroup.
        cgroup: CgroupId,
        /// The slow node where most of it was.
        from: NodeId,
        /// The fast node.
        to: NodeId,
        /// How much.
        moved: Moved,
    },
    /// CPU that the kdamond took.
    Cpu(Duration),
    /// It ended by itself and was started again.
    Restarted,
    /// It can't go on. No report follows.
    Failed(String),
}

/// The promoter. Dropping it ends the thread within a tick of the kernel's, and leaves the kdamond to be taken away.
#[derive(Debug)]
pub struct DamonPromoter {
    watched: NodeSet,
    claims: Option<Sender<Vec<Claim>>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

impl DamonPromoter {
    /// Takes a running kdamond.
    pub fn start(
        roots: &Roots,
        root: &CgroupRoot,
        slow: &NodeSet,
        tree: Tree,
        kdamond: Kdamond,
    ) -> host::Result<Self> {
        let (claims, orders) = channel();
        let (sender, reports) = channel();
        let mut worker = Worker {
            roots: roots.clone(),
            root: CgroupRoot::open_unchecked(root.mount())?,
            slow: slow.clone(),
            tree,
            kdamond,
            claims: Vec::new(),
            claimed: Instant::now(),
            leaves: Vec::new(),
            pods: BTreeMap::new(),
            stats: Vec::new(),
            looked: Instant::now(),
            cpu: None,
            restarts: 0,
            restarted: Instant::now(),
            reports: sender,
        };
        let thread = std::thread::Builder::new()
            .name("damon".to_owned())
            .spawn(move || worker.run(&orders))
            .map_err(|error| host::Error::Unsupported { what: "a thread", reason: error.to_string() })?;
        Ok(Self { watched: slow.clone(), claims: Some(claims), reports, thread: Some(thread) })
    }

    /// Whether it watches these nodes and no others.
    #[must_use]
    pub fn watches(&self, nodes: &NodeSet) -> bool {
        self.watched == *nodes
    }

    /// Has it promote for these claims and no others.
    pub fn promote(&self, claims: Vec<Claim>) {
        // A thread that ended has said so by a report.
        let _ = self.claims.as_ref().map(|sender| sender.send(claims));
    }

    /// What it did since it was asked last.
    pub fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        self.reports.try_iter()
    }
}

impl Drop for DamonPromoter {
    fn drop(&mut self) {
        drop(self.claims.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a cgroup may be promoted, as far as is known at a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The managed cgroup.
    pub cgroup: CgroupId,
    /// The cgroups that its memory is charged to and that may use the target.
    pub leaves: Vec<CgroupPath>,
    /// Whether these are all of its leaves.
    pub is_whole: bool,
    /// What bounds it.
    pub bounds: law::Claim,
}

/// One scheme's leaf.
#[derive(Debug)]
struct Leaf {
    pod: CgroupId,
    cgroup: Cgroup,
    busy_until: Option<Instant>,
    /// Which scheme is its. The kernel keeps what a scheme may still do by its place, too.
    place: usize,
    /// Its quota is in force: 6.12 has none in a scheme's first interval. Until then it stands for no region.
    bounded: bool,
}

/// A managed cgroup while it has a claim.
#[derive(Debug)]
struct Pod {
    /// Anonymous bytes on slow nodes when it was looked at last.
    slow: Bytes,
    busy_until: Option<Instant>,
    /// Looks on end at which nothing had left the slow nodes though DAMON said so.
    stuck: u32,
    stuck_until: Option<Instant>,
    /// What was promoted lately, less what its rate allowed since.
    owed: Bytes,
    /// Bytes tried for a hundred that are moved, where the kernel charges tries: hot memory of others is tried, too.
    effort: u64,
}

impl Default for Pod {
    fn default() -> Self {
        Self {
            slow: Bytes::ZERO,
            busy_until: None,
            stuck: 0,
            stuck_until: None,
            owed: Bytes::ZERO,
            effort: 100,
        }
    }
}

impl Pod {
    /// Learns from what was tried and moved.
    fn learn(&mut self, tried: u64, applied: u64) {
        if tried > 0 {
            let percent = tried.saturating_mul(100).checked_div(applied).unwrap_or(MOST_EFFORT);
            self.effort = self.effort.midpoint(percent).clamp(100, MOST_EFFORT);
        }
    }
}

struct Worker {
    roots: Roots,
    root: CgroupRoot,
    slow: NodeSet,
    tree: Tree,
    kdamond: Kdamond,
    claims: Vec<Claim>,
    claimed: Instant,
    /// In the order of the schemes.
    leaves: Vec<Leaf>,
    pods: BTreeMap<CgroupId, Pod>,
    /// What the schemes had done at the last look. The kernel keeps a scheme by its place, whatever leaf it is for.
    stats: Vec<SchemeStats>,
    looked: Instant,
    cpu: Option<(i32, Duration)>,
    restarts: u32,
    restarted: Instant,
    reports: Sender<Report>,
}

fn is_after(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}

impl Worker {
    fn run(&mut self, orders: &Receiver<Vec<Claim>>) {
        loop {
            let now = Instant::now();
            let busy = self.leaves.iter().any(|leaf| !leaf.bounded || is_after(leaf.busy_until, now));
            match orders.recv_timeout(if busy { BUSY_TICK } else { IDLE_TICK }) {
                Ok(claims) => {
                    let claims = orders.try_iter().last().unwrap_or(claims);
                    self.take(claims);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Err(error) = self.tick() {
                let _ = self.reports.send(Report::Failed(error.to_string()));
                return;
            }
        }
    }

    /// Takes new claims. What a look of its own found is newer than what the round knew.
    fn take(&mut self, claims: Vec<Claim>) {
        let now = Instant::now();
        self.claimed = now;
        self.pods.retain(|id, _| claims.iter().any(|claim| claim.cgroup == *id));
        for claim in &claims {
            let pod = self.pods.entry(claim.cgroup).or_default();
            if !is_after(pod.busy_until, now) {
                pod.slow = claim.bounds.slow;
            }
        }
        self.claims = claims;
    }

    /// Looks at what was done, and has the kernel take what is granted now.
    fn tick(&mut self) -> host::Result<()> {
        self.look()?;
        if self.leaves.iter().any(|leaf| !leaf.bounded) {
            let quotas = self.tree.read_effective_quotas()?;
            let wanted = self.kdamond.schemes.iter().map(|scheme| scheme.quota.bytes);
            for (leaf, (quota, wanted)) in self.leaves.iter_mut().zip(quotas.into_iter().zip(wanted)) {
                leaf.bounded |= quota > 0 && quota <= wanted;
            }
        }
        self.choose_leaves();
        let schemes = self.schemes(Instant::now());
        if schemes == self.kdamond.schemes {
            return self.survive(self.tree.read_state()?.unwrap_or(State::Off));
        }
        self.kdamond.schemes = schemes;
        self.tree.write(&self.kdamond)?;
        self.stats.resize(self.kdamond.schemes.len(), SchemeStats::default());
        let state = self.tree.commit()?;
        self.survive(state)
    }

    /// Starts the kdamond again where it ended, as 6.12 does when a cgroup went away in the wrong moment.
    fn survive(&mut self, state: State) -> host::Result<()> {
        if state == State::On {
            return Ok(());
        }
        if self.restarted.elapsed() >= Duration::from_mins(1) {
            (self.restarts, self.restarted) = (0, Instant::now());
        }
        self.restarts += 1;
        if self.restarts > RESTARTS {
            return Err(host::Error::Unsupported {
                what: "DAMON",
                reason: "its kdamond ends by itself, again and again".to_owned(),
            });
        }
        self.kdamond.schemes.clear();
        self.leaves.clear();
        self.stats.clear();
        self.tree.write(&self.kdamond)?;
        self.tree.turn_on()?;
        let _ = self.reports.send(Report::Restarted);
        Ok(())
    }

    /// What the schemes did since the last look, as far as `memory.numa_stat` agrees.
    fn look(&mut self) -> host::Result<()> {
        let now = Instant::now();
        self.note_cpu()?;
        if self.leaves.is_empty() {
            return Ok(());
        }
        let stats = self.tree.read_stats()?;
        let since = std::mem::replace(&mut self.looked, now).elapsed();
        let charges_tries = self.tree.charges_tries();
        let mut done: BTreeMap<CgroupId, (u64, u64)> = BTreeMap::new();
        for ((leaf, stats), before) in self.leaves.iter_mut().zip(&stats).zip(&self.stats) {
            let bytes = stats.sz_applied.saturating_sub(before.sz_applied);
            if bytes > 0 {
                leaf.busy_until = Some(now + BUSY_FOR);
            }
            let (tried, applied) = done.entry(leaf.pod).or_default();
            *tried += stats.sz_tried.saturating_sub(before.sz_tried);
            *applied += bytes;
        }
        self.stats = stats;
        for claim in &mut self.claims {
            let Some(pod) = self.pods.get_mut(&claim.cgroup) else { continue };
            let (tried, applied) = done.get(&claim.cgroup).copied().unwrap_or_default();
            pod.owed -= claim.bounds.rate.over(since);
            if charges_tries {
                pod.learn(tried, applied);
            }
            if applied == 0 && !is_after(pod.busy_until, now) {
                continue;
            }
            let leaves: Vec<&Leaf> = self.leaves.iter().filter(|leaf| leaf.pod == claim.cgroup).collect();
            let (fast, slow) = anon(&leaves, &self.slow)?;
            let moved = (pod.slow - slow).min(Bytes(applied));
            pod.slow = slow;
            pod.owed += moved;
            // The others' memory counts for the ceiling, and is as the round knew it.
            let is_whole = claim.is_whole && leaves.len() == claim.leaves.len();
            claim.bounds.fast = if is_whole { fast } else { claim.bounds.fast + moved };
            if applied == 0 {
                continue;
            }
            pod.busy_until = Some(now + BUSY_FOR);
            pod.stuck = if moved.is_zero() { pod.stuck + 1 } else { 0 };
            let mut moved = Moved { bytes: moved, ..Moved::default() };
            if pod.stuck >= STUCK_LOOKS {
                moved.count("no_room", applied / page_size());
                (pod.stuck, pod.stuck_until) = (0, Some(now + STUCK_FOR));
            }
            let law::Claim { from, to, .. } = claim.bounds;
            let _ = self.reports.send(Report::Promoted { cgroup: claim.cgroup, from, to, moved });
        }
        Ok(())
    }

    fn note_cpu(&mut self) -> host::Result<()> {
        let Some(pid) = self.tree.read_pid()? else { return Ok(()) };
        let spent = match host::proc::read_cpu_time(&self.roots.proc, pid) {
            Ok(spent) => spent,
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = self.cpu.replace((pid, spent)).filter(|(known, _)| *known == pid);
        let since = spent.saturating_sub(before.map_or(Duration::ZERO, |(_, before)| before));
        if !since.is_zero() {
            let _ = self.reports.send(Report::Cpu(since));
        }
        Ok(())
    }

    /// Which leaves have a scheme: those that claims name and that are there, those with most on slow nodes first where there
    /// are too many. One that has a scheme keeps its place as long as all do.
    fn choose_leaves(&mut self) {
        let now = Instant::now();
        let mut wanted: Vec<(bool, Bytes, CgroupId, &CgroupPath)> = Vec::new();
        for claim in &self.claims {
            let busy = self.pods.get(&claim.cgroup).is_some_and(|pod| is_after(pod.busy_until, now));
            wanted.extend(claim.leaves.iter().map(|leaf| (busy, claim.bounds.slow, claim.cgroup, leaf)));
        }
        wanted.sort_by_key(|(busy, slow, _, _)| std::cmp::Reverse((*busy, *slow)));
        wanted.truncate(MOST_SCHEMES);
        let root = &self.root;
        self.leaves.retain(|leaf| {
            leaf.cgroup.still_there(root)
                && wanted.iter().any(|(_, _, pod, path)| *pod == leaf.pod && *path == leaf.cgroup.path())
        });
        for (_, _, pod, path) in wanted {
            if self.leaves.iter().any(|leaf| leaf.cgroup.path() == path) {
                continue;
            }
            // 6.12 takes a cgroup by its path, and ends the kdamond where there is none.
            if let Ok(cgroup) = self.root.cgroup(path) {
                self.leaves.push(Leaf { pod, cgroup, busy_until: None, place: usize::MAX, bounded: false });
            }
        }
        for (place, leaf) in self.leaves.iter_mut().enumerate().filter(|(place, leaf)| *place != leaf.place) {
            (leaf.place, leaf.bounded) = (place, false);
        }
    }

    /// A scheme for each leaf.
    fn schemes(&self, now: Instant) -> Vec<Scheme> {
        let stale = self.claimed.elapsed() >= STALE;
        let bounds: Vec<(law::Claim, law::Pace)> = self
            .claims
            .iter()
            .map(|claim| {
                let mut pace = self.pace(claim, now);
                pace.is_held |= stale;
                (claim.bounds, pace)
            })
            .collect();
        let mut by_path: BTreeMap<&CgroupPath, (&Claim, Bytes)> = BTreeMap::new();
        for (claim, grant) in self.claims.iter().zip(grants(&bounds)) {
            let leaves: Vec<&Leaf> = self.leaves.iter().filter(|leaf| leaf.pod == claim.cgroup).collect();
            let busy: Vec<bool> = leaves.iter().map(|leaf| is_after(leaf.busy_until, now)).collect();
            for (leaf, grant) in leaves.iter().zip(by_leaf(grant, &busy)) {
                by_path.insert(leaf.cgroup.path(), (claim, grant));
            }
        }
        let scheme_of = |leaf: &Leaf| {
            let (claim, grant) = by_path.get(leaf.cgroup.path())?;
            Some(scheme(leaf, claim, *grant))
        };
        self.leaves.iter().filter_map(scheme_of).collect()
    }
}

impl Worker {
    /// What was seen of a claim. It waits while nothing moves, and while more was promoted than a window's worth.
    fn pace(&self, claim: &Claim, now: Instant) -> law::Pace {
        let Some(pod) = self.pods.get(&claim.cgroup) else { return law::Pace::NEW };
        law::Pace {
            is_busy: is_after(pod.busy_until, now),
            is_held: is_after(pod.stuck_until, now) || pod.owed > claim.bounds.rate.over(WINDOW),
            effort: pod.effort,
        }
    }
}

/// Anonymous bytes of some leaves on other nodes and on the slow ones.
fn anon(leaves: &[&Leaf], slow_nodes: &NodeSet) -> host::Result<(Bytes, Bytes)> {
    let (mut fast, mut slow) = (Bytes::ZERO, Bytes::ZERO);
    for leaf in leaves {
        let stat = match leaf.cgroup.read_memory_numa_stat() {
            Err(error) if error.is_gone() => continue,
            stat => stat?.unwrap_or_default(),
        };
        for (node, bytes) in &stat.anon {
            let side = if slow_nodes.contains(NodeId(*node)) { &mut slow } else { &mut fast };
            *side += Bytes(*bytes);
        }
    }
    Ok((fast, slow))
}

/// The scheme of one leaf. One with nothing granted stands for no region at all: it keeps its place, and its counts.
fn scheme(leaf: &Leaf, claim: &Claim, grant: Bytes) -> Scheme {
    let least = if grant.0 < page_size() || !leaf.bounded { u32::MAX } else { 1 };
    Scheme {
        action: Action::MigrateHot(claim.bounds.to.0),
        pattern: AccessPattern::accessed(least),
        apply_interval: Duration::ZERO,
        quota: Quota {
            // Nothing would be no bound.
            bytes: grant.0.max(page_size()),
            time: Duration::ZERO,
            reset: if leaf.bounded { WINDOW } else { FIRST_WINDOW },
            // All alike, and in turn: the kernel ranks regions of all cgroups, and the hotter ones of another that may not be promoted
            // would come first for ever.
            weights: Weights::default(),
            goals: Vec::new(),
            failed: (1, 1000),
        },
        // The cgroup first: asking whether a page is young clears that for others.
        filters: vec![
            Filter::only(Match::Memcg(leaf.cgroup.path().to_string())),
            Filter::only(Match::Anon),
            Filter::only(Match::Young),
        ],
    }
}
