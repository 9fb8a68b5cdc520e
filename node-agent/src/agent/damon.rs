//! DAMON as the promoter: what it may do, and what it did.

use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId};
use tiering::{Instant, NodeId, law};

use super::Agent;
use crate::kdamond::{self, KdamondError};
use crate::managed::Managed;
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
            let claims = self.promotion_claims();
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
                Report::Promoted(id, moved) => {
                    self.node.took(&self.ground.fast, moved.bytes);
                    *self.totals.promoted_bytes.entry(Promoter::Damon).or_default() += moved.bytes.0;
                    for (why, pages) in &moved.failed {
                        *self.totals.failed_pages.entry(("damon", why)).or_default() += pages;
                    }
                    let way = self.managed.get(&id).and_then(|managed| {
                        Some((managed.key(), self.most_on_slow(managed)?, self.promotion_target(managed)))
                    });
                    if let Some((key, from, to)) = way {
                        let (stayed, least_age) = (law::Stayed::Touched, Duration::ZERO);
                        let (asked, moved) = (moved.bytes, moved.bytes);
                        self.law.promoted(
                            key,
                            &law::Moved { from, to, asked, moved, stayed, least_age },
                            now,
                        );
                    }
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
    fn promotion_claims(&self) -> Vec<Claim> {
        self.managed
            .iter()
            .filter(|(_, managed)| managed.enforced() && managed.policy.promote.enabled)
            .filter_map(|(id, managed)| self.promotion_claim(*id, managed))
            .collect()
    }

    fn promotion_claim(&self, cgroup: CgroupId, managed: &Managed) -> Option<Claim> {
        let known = self.law.cgroup(managed.key()).filter(|known| known.last().is_some())?;
        let (footprint, fast) = (known.footprint(), known.on_fast());
        // What the plan lets it bring up: nothing at its ceiling, or where that only goes to and fro.
        let rate = managed.plan().map(|plan| plan.promote_budget)?;
        if footprint == fast || rate.0 == 0 {
            return None;
        }
        let target = self.promotion_target(managed)?;
        let leaves: Vec<_> = managed
            .leaves
            .iter()
            .filter(|leaf| may_use(leaf, target))
            .map(|leaf| leaf.path().clone())
            .collect();
        Some(Claim {
            cgroup,
            is_whole: leaves.len() == managed.leaves.len(),
            leaves,
            target,
            rate,
            ceiling: managed.policy.ceiling(footprint),
            fast,
            slow: footprint - fast,
            room: self.node.promotion_room(&self.ground, target),
        })
    }

    /// The slow node where most of its memory is.
    fn most_on_slow(&self, managed: &Managed) -> Option<NodeId> {
        let by_node = self.law.cgroup(managed.key())?.anon_by_node();
        by_node
            .filter(|(node, _)| self.ground.slow.contains(*node))
            .max_by_key(|(_, bytes)| *bytes)
            .map(|(node, _)| node)
    }

    /// The fast node that the kernel would promote to from where most of the cgroup's slow memory is, or where that may not be
    /// used, the allowed one with most room.
    fn promotion_target(&self, managed: &Managed) -> Option<NodeId> {
        let from = self.most_on_slow(managed)?;
        let fast = self.ground.fast.intersection(&managed.allowed);
        let nearest = self.ground.tiers.promotion_target(from);
        if fast.contains(nearest) {
            return Some(nearest);
        }
        fast.iter().max_by_key(|node| self.node.room(*node))
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
