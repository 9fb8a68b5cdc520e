//! DAMON as the promoter: what it may do, and what it did.

use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId};
use tiering::law::{self, CgroupKey};
use tiering::{Instant, NodeId};

use super::Agent;
use crate::kdamond::{self, KdamondError};
use crate::promoter::{Claim, DamonPromoter, Promoter, Report, kdamond};
use crate::state::StateError;

impl Agent {
    /// Has DAMON promote what policies and nodes allow now, and books what it did since the last round. It runs while something
    /// that may be promoted is on a slow node.
    pub(super) fn promote_by_damon(&mut self, now: Instant) -> Result<(), StateError> {
        let mut failed = self.book_promoted(now);
        let wanted = self.promoter == Promoter::Damon
            && self.managed.values().any(|managed| managed.enforced() && managed.policy.promote.enabled);
        if failed.is_none() && wanted {
            let claims = self.promotion_claims(now);
            // Nodes came or went.
            if self.damon.as_ref().is_some_and(|damon| !damon.watches(&self.ground.slow)) {
                self.stop_damon()?;
            }
            if self.damon.is_none() && !claims.is_empty() {
                failed = self.start_damon()?;
            }
            if let Some(damon) = &self.damon {
                damon.promote(claims);
            }
        }
        if failed.is_some() || !wanted {
            self.stop_damon()?;
        }
        if let Some(why) = failed {
            tracing::warn!("DAMON does not promote: {why}; tried again later");
            self.damon_failed = Some((why, now));
            self.choose_engine();
        }
        Ok(())
    }

    /// Starts a kdamond, or says why it does not run.
    fn start_damon(&mut self) -> Result<Option<String>, StateError> {
        let Some(state) = &mut self.state else { return Ok(None) };
        let (roots, slow) = (&self.ground.roots, &self.ground.slow);
        let started = kdamond(roots, slow).map_err(KdamondError::from).and_then(|value| {
            let tree = kdamond::set_up(roots, state, &value)?;
            Ok(DamonPromoter::start(roots, &self.root, slow, tree, value)?)
        });
        match started {
            Ok(damon) => {
                tracing::info!(nodes = ?slow, "DAMON watches the slow nodes");
                self.damon = Some(damon);
                Ok(None)
            }
            Err(KdamondError::State(error)) => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Ends the promoter and takes its kdamond away.
    pub(super) fn stop_damon(&mut self) -> Result<(), StateError> {
        let ran = self.damon.take().is_some();
        let Some(state) = self.state.as_mut().filter(|state| ran || state.nr_kdamonds().is_some()) else {
            return Ok(());
        };
        match kdamond::take_away(&self.ground.roots, state) {
            Ok(()) => Ok(()),
            Err(KdamondError::State(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "DAMON's kdamond can't be taken away; each round tries again");
                Ok(())
            }
        }
    }

    /// Takes in what the promoter reports; why it ended, if it did.
    fn book_promoted(&mut self, now: Instant) -> Option<String> {
        let reports: Vec<Report> = self.damon.iter().flat_map(DamonPromoter::reports).collect();
        let mut failed = None;
        for report in reports {
            match report {
                Report::Promoted { cgroup: id, from, to, moved } => {
                    *self.totals.promoted_bytes.entry(Promoter::Damon).or_default() += moved.bytes.0;
                    for (why, pages) in &moved.failed {
                        *self.totals.failed_pages.entry(("damon", why)).or_default() += pages;
                    }
                    let done = law::Moved {
                        from,
                        to: Some(to),
                        asked: moved.bytes,
                        moved: moved.bytes,
                        stayed: law::Stayed::Touched,
                        least_age: Duration::ZERO,
                    };
                    self.law.promoted(CgroupKey(id.get()), &done, now);
                    if let Some(managed) = self.managed.get_mut(&id) {
                        tracing::debug!(cgroup = %managed.cgroup.path(), pod = managed.pod_name(), bytes = %moved.bytes, failed = ?moved.failed, "promoted by DAMON");
                        managed.note_damon_promoted(&moved, now);
                    }
                }
                Report::Cpu(spent) => self.totals.damon_cpu_seconds += spent.as_secs_f64(),
                Report::Restarted => {
                    tracing::info!("DAMON's kdamond had ended by itself and was started again");
                }
                Report::Failed(why) => failed = Some(why),
            }
        }
        failed
    }

    /// What each cgroup with memory on slow nodes may have promoted.
    fn promotion_claims(&mut self, now: Instant) -> Vec<Claim> {
        let claims = self.law.claims(now).into_iter();
        let claim = |(CgroupKey(key), bounds): (CgroupKey, law::Claim)| {
            let managed = self.managed.get(&CgroupId::from(key))?;
            let able = managed.leaves.iter().filter(|leaf| may_use(leaf, bounds.to));
            let leaves: Vec<_> = able.map(|leaf| leaf.path().clone()).collect();
            let is_whole = leaves.len() == managed.leaves.len();
            Some(Claim { cgroup: managed.cgroup.id(), leaves, is_whole, bounds })
        };
        claims.filter_map(claim).collect()
    }
}

/// Whether a cgroup may use a node. What can't be read may not: DAMON asks nobody.
fn may_use(leaf: &Cgroup, node: NodeId) -> bool {
    match leaf.read_cpuset_mems_effective() {
        // Without the controller every node is allowed.
        Ok(mems) => mems.is_none_or(|mems| mems.is_empty() || mems.contains(&node.0)),
        Err(_) => false,
    }
}
