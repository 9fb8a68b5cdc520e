//! What is remembered of one managed cgroup from round to round.

use core::time::Duration;

use crate::decide::{self, Bounds, Decision, DemoteReason, Target, allowed_slow_touch};
use crate::effective_age::EffectiveAge;
use crate::model::Model;
use crate::node::NodeSet;
use crate::policy::Policy;
use crate::sample::CgroupSample;
use crate::stall::StallWindow;
use crate::token_bucket::TokenBucket;
use crate::units::{Bytes, Instant};

/// The memory of one managed cgroup: its last sample and model, its age, its rate caps.
#[derive(Clone, Debug)]
pub struct Track {
    policy: Policy,
    age: EffectiveAge,
    demote_bucket: TokenBucket,
    promote_bucket: TokenBucket,
    last: Option<CgroupSample>,
    model: Option<Model>,
    stalls: Option<StallWindow>,
    demoted: Option<DemotionSpell>,
    /// Since the last walk of slow nodes; `None` before the first.
    window: Option<Window>,
    touched_per_minute: Bytes,
    /// What the last walk found touched on slow nodes, less what was promoted since.
    hot_slow: Bytes,
}

/// What came back between two walks.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    promoted: Bytes,
    /// What the walk that began it found: promoting that is no second comeback.
    found: Bytes,
}

/// A run of voluntary demotions with no pause longer than the age.
#[derive(Clone, Copy, Debug)]
struct DemotionSpell {
    began: Instant,
    latest: Instant,
}

impl Track {
    /// A cgroup just found.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            age: EffectiveAge::new(policy.demote.after, policy.demote.after_max, now),
            demote_bucket: TokenBucket::new(policy.demote.max_rate, now),
            promote_bucket: TokenBucket::new(policy.promote.max_rate, now),
            policy,
            last: None,
            model: None,
            stalls: None,
            demoted: None,
            window: None,
            touched_per_minute: Bytes::ZERO,
            hot_slow: Bytes::ZERO,
        }
    }

    /// Its policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes a new policy and keeps what was learned.
    pub fn set_policy(&mut self, policy: Policy, now: Instant) {
        self.age.set_bounds(policy.demote.after, policy.demote.after_max);
        self.demote_bucket.set_rate(policy.demote.max_rate, now);
        self.promote_bucket.set_rate(policy.promote.max_rate, now);
        self.policy = policy;
    }

    /// The last model.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// The effective age.
    #[must_use]
    pub fn age(&self) -> EffectiveAge {
        self.age
    }

    /// Times memory came back soon after it was demoted.
    #[must_use]
    pub fn comebacks(&self) -> u64 {
        self.age.comebacks()
    }

    /// What the demotion rate cap lets pass now.
    pub fn demote_cap(&mut self, now: Instant) -> Bytes {
        self.demote_bucket.available(now)
    }

    /// What the promotion rate cap lets pass now.
    pub fn promote_cap(&mut self, now: Instant) -> Bytes {
        self.promote_bucket.available(now)
    }

    /// Bytes touched on slow nodes per minute.
    #[must_use]
    pub fn touched_per_minute(&self) -> Bytes {
        self.touched_per_minute
    }

    /// Time between walks: at most four generations exist, so memory that is provably `age` old needs two walks
    /// within it.
    #[must_use]
    pub fn scan_interval(&self) -> Duration {
        (self.age.get() / 2).max(Duration::from_secs(1))
    }

    /// Takes in what was read.
    pub fn observe(&mut self, sample: CgroupSample, fast_nodes: &NodeSet) -> &Model {
        let now = sample.at;
        let stalled =
            self.stalls.get_or_insert(StallWindow::new(now, sample.stalls)).shares(now, sample.stalls);
        let model = Model::new(&sample, self.last.as_ref(), fast_nodes, stalled);
        self.last = Some(sample);
        if let Some(window) = &mut self.window {
            window.promoted += model.promoted;
        }
        // What the kernel counts is the kernel's own work; ours is told by `promoted`.
        if self.last.as_ref().is_some_and(|last| last.promoted_total.is_some()) {
            self.hot_slow -= model.promoted;
        }
        if let Some(touched) = model.slow_touched {
            self.hot_slow = touched;
            // What the first walk finds was touched at any time before it.
            let next = Window { began: now, promoted: Bytes::ZERO, found: touched };
            if let Some(window) = self.window.replace(next) {
                self.learn(window.promoted - window.found + touched, now.since(window.began), &model, now);
            }
        }
        self.model.insert(model)
    }

    /// One walk's lesson: what came back since the walk before, `elapsed` ago.
    fn learn(&mut self, came_back: Bytes, elapsed: Duration, model: &Model, now: Instant) {
        self.touched_per_minute = per_minute(self.touched_per_minute, came_back, elapsed);
        if self.touched_per_minute <= allowed_slow_touch(model, &self.policy) {
            self.age.quiet(now);
            return;
        }
        if came_back.is_zero() {
            return;
        }
        let soon = self.age.get().saturating_mul(2).saturating_add(elapsed);
        if let Some(spell) = self.demoted.take_if(|spell| now.since(spell.latest) <= soon) {
            // Of a long spell, any part may have come back; more than two ages is not soon.
            self.age.came_back(now.since(spell.began).min(soon), now);
        }
    }

    /// What to do now, within what the node allows. Without a model there is nothing to decide on.
    pub fn decide(
        &mut self,
        target: Target,
        fast_room: Bytes,
        give_up: Bytes,
        now: Instant,
    ) -> Option<Decision> {
        let bounds = Bounds {
            target,
            fast_room,
            give_up,
            hot_slow: self.hot_slow,
            demote_cap: self.demote_bucket.available(now),
            promote_cap: self.promote_bucket.available(now),
        };
        let model = self.model.as_ref()?;
        Some(decide::decide(model, &self.policy, self.age.get(), self.touched_per_minute, bounds))
    }

    /// Memory was demoted, as verified on the host; for no reason of a decision's where its tiers are changed.
    pub fn demoted(&mut self, bytes: Bytes, reason: Option<DemoteReason>, now: Instant) {
        if bytes.is_zero() {
            return;
        }
        self.demote_bucket.spend(bytes, now);
        if reason != Some(DemoteReason::Cold) {
            return;
        }
        let age = self.age.get();
        let began =
            self.demoted.filter(|spell| now.since(spell.latest) <= age).map_or(now, |spell| spell.began);
        self.demoted = Some(DemotionSpell { began, latest: now });
    }

    /// Memory was promoted between two walks by one that finds itself what is hot: no walk will see that it was touched.
    pub fn brought_back(&mut self, bytes: Bytes, now: Instant) {
        self.promoted(bytes, now);
        if let Some(window) = &mut self.window {
            window.promoted += bytes;
        }
    }

    /// Memory was promoted by us.
    pub fn promoted(&mut self, bytes: Bytes, now: Instant) {
        self.promote_bucket.spend(bytes, now);
        self.hot_slow -= bytes;
    }
}

/// The rate after a window in which `bytes` came. Windows shorter than a minute fade out over one: a single page in a
/// window of a second is a page a minute, not sixty.
fn per_minute(before: Bytes, bytes: Bytes, elapsed: Duration) -> Bytes {
    const MINUTE_MS: u128 = 60_000;
    let millis = elapsed.as_millis();
    let per_minute = if millis >= MINUTE_MS {
        u128::from(bytes.0) * MINUTE_MS / millis
    } else {
        u128::from(before.0) * (MINUTE_MS - millis) / MINUTE_MS + u128::from(bytes.0)
    };
    Bytes(u64::try_from(per_minute).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_are_counted_by_the_minute() {
        let check = |before_mib, mib, seconds, per_minute_mib| {
            let rate = per_minute(Bytes::mib(before_mib), Bytes::mib(mib), Duration::from_secs(seconds));
            assert_eq!(rate, Bytes::mib(per_minute_mib));
        };
        check(0, 2, 1, 2);
        check(60, 0, 1, 59);
        check(60, 1, 1, 60);
        check(60, 30, 60, 30);
        check(60, 30, 120, 15);
        check(60, 30, 0, 90);
    }
}
