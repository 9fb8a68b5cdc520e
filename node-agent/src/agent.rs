//! The loop: one closed set of events, one match.
//!
//! A round is Sample, Model, Decision, apply, publish ([`round`]). It runs on a thread of its own, since kernel writes may
//! block: each is a bounded step, and a round stops beginning steps after a while and goes on in the next.

mod ahead;
mod choice;
mod damon;
mod events;
mod lessons;
mod membership;
mod pods;
mod round;
mod settings;
mod topology;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host::cgroup::{CgroupId, CgroupPath, CgroupRoot};
use host::roots::Roots;
use tiering::{DemotionSupport, Instant};

use crate::ahead::ReclaimAhead;
use crate::config::Config;
use crate::engine::{Engine, Ground, PagesEngine};
use crate::exit::{ExitCode, Failure};
use crate::kubernetes::assignment::Assignment;
use crate::kubernetes::mailbox;
use crate::learned::LearnedFile;
use crate::managed::Managed;
use crate::node::NodeMemory;
use crate::promoter::{DamonPromoter, Promoter};
use crate::restore::{Outcome, Restored, restore_all};
use crate::snapshot::{Condition, ConfigView, Published, TierView, Totals};
use crate::state::{State, Tunable};
use crate::systemd::ServiceManager;
use events::{Event, Sources};

/// With nothing enforced a round is due after so many intervals at the latest.
pub(crate) const LONGEST_PAUSE: u32 = 5;

/// Which cgroups become managed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// The uppermost that match a policy: a pod with all that is below it.
    Uppermost,
    /// Every one that has processes.
    Processes,
}

/// What an agent is started with.
pub struct Start {
    /// Mount points.
    pub roots: Roots,
    /// The cgroup2 mount.
    pub root: CgroupRoot,
    /// A valid configuration.
    pub config: Config,
    /// Where it came from, to be watched; `None` for one that never changes.
    pub config_path: Option<PathBuf>,
    /// Where a cluster's assignments come from, in place of the policies of the configuration.
    pub cluster: Option<Cluster>,
    /// `run` or `observe`.
    pub command: &'static str,
    /// Which cgroups become managed ones.
    pub grain: Grain,
    /// The state file; `None` where nothing is ever written.
    pub state: Option<State>,
    /// Where the picture is published.
    pub published: Published,
    /// Called after each round, with the time until the next; whether to go on.
    pub after_round: Box<dyn FnMut(&Published) -> bool>,
}

/// What an agent that is one of a cluster's nodes' is told.
pub struct Cluster {
    /// What was last known, to begin with.
    pub last_known: Arc<Assignment>,
    /// What comes.
    pub assignments: mailbox::Receiver,
}

/// The running agent.
pub struct Agent {
    ground: Ground,
    /// What the tiers were made of.
    seen: topology::Seen,
    root: CgroupRoot,
    config: Config,
    config_path: Option<PathBuf>,
    grain: Grain,
    /// `None` where nothing may be written: then no engine moves anything.
    state: Option<State>,
    engine: Option<Engine>,
    /// Page moves for changes of tiers, where they are permitted and the engine is another.
    mover: Option<PagesEngine>,
    /// When it was tried what the host allows.
    probed: Instant,
    /// A step of the engine's failed since.
    engine_failed: bool,
    promoter: Promoter,
    kernel_promotion: settings::KernelPromotion,
    /// DAMON while it promotes for us.
    damon: Option<DamonPromoter>,
    /// Why it did not work when it was tried, and when.
    damon_failed: Option<(String, Instant)>,
    node: NodeMemory,
    /// What is remembered of the host, and what follows from it.
    law: tiering::law::Host,
    /// What was learned, for whoever comes after.
    learned: LearnedFile,
    /// Reclaims ahead of limits, once a policy asks for it; and who is watched.
    ahead: (Option<ReclaimAhead>, Vec<CgroupId>),
    /// In a cluster, which pods get which policies; `None` where the configuration says it.
    assignment: Option<Arc<Assignment>>,
    /// In a cluster, the cgroups of all pods by uid.
    pod_cgroups: BTreeMap<String, CgroupPath>,
    /// In boxes: a tree keeps room for eleven values where six are.
    managed: BTreeMap<CgroupId, Box<Managed>>,
    by_path: BTreeMap<CgroupPath, CgroupId>,
    totals: Totals,
    conditions: BTreeMap<&'static str, Condition>,
    config_view: ConfigView,
    /// Settings of the whole host that another writer wants otherwise.
    lost: BTreeSet<Tunable>,
    /// Settings of the whole host that could not be written.
    unheld: BTreeSet<Tunable>,
    sources: Sources,
    clock: std::time::Instant,
    next_round: Instant,
    /// When the tree was listed.
    discovered: Instant,
    /// How long that took.
    discovery_took: Duration,
    /// How long the leaves of a cgroup took, where that is much.
    listing_took: BTreeMap<CgroupId, Duration>,
    /// It is to be listed anew: events were lost.
    rescan: bool,
    /// Managed cgroups whose leaves are to be listed anew.
    stale: BTreeSet<CgroupId>,
    unwatched: usize,
    rounds: u64,
    published: Published,
    after_round: Box<dyn FnMut(&Published) -> bool>,
    own_cgroup: Option<host::cgroup::CgroupPath>,
    service: ServiceManager,
}

impl Agent {
    /// Finds out what this host can do, adopts what an agent before left, and finds the cgroups.
    pub fn start(start: Start) -> Result<Self, Failure> {
        let Start {
            roots,
            root,
            config,
            config_path,
            cluster,
            command,
            grain,
            state,
            published,
            after_round,
        } = start;
        let (assignment, assignments) =
            cluster.map(|cluster| (cluster.last_known, cluster.assignments)).unzip();
        let (topology, tiers) = topology::look(&roots.sys, &config.tiers)?;
        // Each watched file and each cgroup costs a descriptor.
        host::cgroup::raise_open_files(65_536)
            .map_err(|error| Failure::new(ExitCode::NotPermitted, error.to_string()))?;
        let ground = Ground::new(roots, tiers);
        let sources =
            Sources::new(&ground.roots, &root, config_path.as_deref(), assignments, state.is_some());
        let sources = sources.map_err(|error| Failure::new(ExitCode::Unexpected, error.to_string()))?;
        let learned =
            state.as_ref().map_or_else(LearnedFile::default, |_| LearnedFile::beside(&config.state_file));
        let own_cgroup = host::cgroup::own_cgroup(&root, &ground.roots.proc).ok().flatten();
        let mut agent = Self {
            promoter: Promoter::None,
            kernel_promotion: settings::KernelPromotion::default(),
            ground,
            seen: topology::Seen::new(topology),
            root,
            config_view: ConfigView {
                path: config_path
                    .as_deref()
                    .map(Path::display)
                    .map(|path| path.to_string())
                    .unwrap_or_default(),
                loads: 1,
                ..ConfigView::default()
            },
            config,
            config_path,
            grain,
            state,
            engine: None,
            mover: None,
            probed: Instant::default(),
            engine_failed: false,
            damon: None,
            damon_failed: None,
            node: NodeMemory::default(),
            law: tiering::law::Host::new(tiering::law::Settings {
                page: host::pages::page_size(),
                ..tiering::law::Settings::default()
            }),
            learned,
            ahead: (None, Vec::new()),
            assignment,
            pod_cgroups: BTreeMap::new(),
            managed: BTreeMap::new(),
            by_path: BTreeMap::new(),
            totals: Totals::default(),
            conditions: BTreeMap::new(),
            lost: BTreeSet::new(),
            unheld: BTreeSet::new(),
            sources,
            clock: std::time::Instant::now(),
            next_round: Instant::default(),
            discovered: Instant::default(),
            discovery_took: Duration::ZERO,
            listing_took: BTreeMap::new(),
            rescan: false,
            stale: BTreeSet::new(),
            unwatched: 0,
            rounds: 0,
            published,
            after_round,
            own_cgroup,
            service: ServiceManager::from_env(),
        };
        agent.published.update(|snapshot| snapshot.command = command);
        agent.choose_engine();
        agent.publish_assignment();
        agent.discover();
        agent.adopt()?;
        Ok(agent)
    }

    fn tier_views(&self) -> Vec<TierView> {
        let kernel_demotes = *self.ground.tiers.demotion_support() == DemotionSupport::Kernel;
        let view = |tier: &tiering::Tier| {
            let (capacity, free) = self.node.size_of(&tier.nodes);
            TierView {
                name: tier.name.to_string(),
                rank: tier.rank,
                nodes: tier.nodes.iter().map(|node| node.0).collect(),
                capacity_bytes: capacity.0,
                free_bytes: free.0,
                kernel_demotes,
            }
        };
        self.ground.tiers.tiers().iter().map(view).collect()
    }

    /// Time since the agent was started.
    fn now(&self) -> Instant {
        Instant(self.clock.elapsed())
    }

    /// Runs until told to stop, then puts everything back.
    pub fn run(mut self) -> Result<(), Failure> {
        self.service.ready("managing cgroups");
        let outcome = self.serve();
        self.service.stopping(Duration::from_mins(1));
        let restored = self.stop();
        outcome.and(restored)
    }

    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            let patience = self.next_round.since(self.now());
            let patience =
                self.service.watchdog_interval().map_or(patience, |watchdog| patience.min(watchdog));
            let events = self.sources.wait(patience).map_err(|error| {
                Failure::new(ExitCode::Unexpected, format!("the loop cannot wait: {error}"))
            })?;
            for event in events {
                match event {
                    Event::TreeChanged(changes) => self.tree_changed(changes),
                    Event::Written { cgroup, file, writer } => self.written(cgroup, file, writer.as_ref()),
                    Event::Stalled(cgroup) => self.stalled(cgroup),
                    Event::ConfigTouched => self.reload(),
                    Event::Assigned(assignment) => self.assign(&assignment)?,
                    Event::Stop(signal) => {
                        tracing::info!(signal, "{}", stopping(self.state.is_some()));
                        return Ok(());
                    }
                }
            }
            if self.next_round.since(self.now()).is_zero() {
                self.round()?;
                if !(self.after_round)(&self.published) {
                    return Ok(());
                }
            }
            self.service.alive(std::time::Instant::now());
        }
    }

    /// Reads the configuration again. One that is not valid changes nothing.
    fn reload(&mut self) {
        let Some(path) = self.config_path.clone() else { return };
        self.service.reloading();
        let loaded = match self.assignment {
            None => Config::load(&path),
            Some(_) => Config::load_node_settings(Some(&path)),
        };
        match loaded {
            Err(error) => {
                tracing::error!("the new configuration is refused, the old one stays in force: {error}");
                self.config_view.refusals += 1;
                self.config_view.error = Some(error.to_string());
                self.conditions.insert(
                    "ConfigAccepted",
                    Condition {
                        kind: "ConfigAccepted",
                        status: false,
                        reason: "Invalid",
                        message: error.to_string(),
                    },
                );
            }
            Ok(config) => {
                tracing::info!(path = %path.display(), policies = config.policies.len(), "configuration loaded");
                self.config_view.loads += 1;
                self.config_view.error = None;
                self.conditions.remove("ConfigAccepted");
                self.warn_of_fixed_settings(&config);
                let other_engine =
                    config.engine != self.config.engine || config.promoter != self.config.promoter;
                self.config = Config {
                    // What is set up once at the start stays as it is until the next.
                    listen: self.config.listen,
                    state_file: self.config.state_file.clone(),
                    tiers: self.config.tiers.clone(),
                    ..config
                };
                if other_engine || self.engine.is_none() {
                    self.choose_engine();
                }
                if self.assignment.is_none() {
                    self.assign_anew();
                }
            }
        }
        self.next_round = self.now();
        self.service.ready("managing cgroups");
    }

    fn warn_of_fixed_settings(&self, new: &Config) {
        let fixed = [
            ("listen", new.listen != self.config.listen),
            ("stateFile", new.state_file != self.config.state_file),
            ("tiers", new.tiers != self.config.tiers),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!("{key} changed; it takes effect when the agent is started again");
        }
    }

    /// Puts everything back.
    fn stop(&mut self) -> Result<(), Failure> {
        self.learn_all();
        drop(self.damon.take());
        let Some(state) = &mut self.state else { return Ok(()) };
        let report = restore_all(&self.ground.roots, &self.root, state)?;
        log_restored(&report);
        let failed = report.iter().filter(|line| matches!(line.outcome, Outcome::Failed(_))).count();
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::new(ExitCode::RestoreIncomplete, format!("{failed} values could not be put back")))
    }
}

/// What is said when it is told to stop: who only looks has nothing to put back.
const fn stopping(has_state: bool) -> &'static str {
    if has_state { "stopping: putting back what was changed" } else { "stopping" }
}

/// Logs what was put back.
pub fn log_restored(report: &[Restored]) {
    for line in report {
        let Restored { what, original, outcome } = line;
        match outcome {
            Outcome::PutBack => tracing::info!(what, original, "put back"),
            Outcome::AlreadyBack => tracing::debug!(what, original, "stood already"),
            Outcome::Foreign(value) => {
                tracing::warn!(what, original, value, "another writer's value is left");
            }
            Outcome::Gone => tracing::debug!(what, "gone, with its cgroup"),
            Outcome::Failed(error) => tracing::error!(what, original, error, "could not be put back"),
        }
    }
}

/// The label of an errno: its name where it is one that kernel files answer with.
pub(crate) fn errno_name(errno: Option<i32>) -> &'static str {
    match errno {
        Some(1) => "EPERM",
        Some(2) => "ENOENT",
        Some(4) => "EINTR",
        Some(5) => "EIO",
        Some(11) => "EAGAIN",
        Some(12) => "ENOMEM",
        Some(13) => "EACCES",
        Some(16) => "EBUSY",
        Some(17) => "EEXIST",
        Some(19) => "ENODEV",
        Some(22) => "EINVAL",
        Some(28) => "ENOSPC",
        Some(30) => "EROFS",
        Some(34) => "ERANGE",
        Some(_) => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_changed_nothing_does_not_say_that_it_puts_something_back() {
        assert_eq!(super::stopping(false), "stopping");
        assert!(super::stopping(true).contains("putting back"));
    }
}
