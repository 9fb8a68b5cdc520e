//! What is remembered of one cgroup from sample to sample.
//!
//! # Problem
//! A sample says what is where now. What was touched, what came back and what our own moves did shows only beside the samples before it; and
//! some of them are late, or of another walk.
//!
//! # Approach
//! Each node's part has its ledger of ages ([`super::ledger`]) and what is bound there ([`super::bound`]). What was touched, and at which age, is told to
//! the law of touches ([`super::touches`]), to the portion on trial ([`super::portion`]) and to the breaker ([`super::churn`]). Stalls are measured
//! against a baseline from before our own moves.
//!
//! # Properties
//! - `what_is_touched_more_than_once_counts_in_each_minute`.
//! - `stalls_that_were_there_before_our_moves_hold_nothing_and_more_do`.
//! - `memory_of_a_node_that_goes_away_came_up_for_no_touch`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::churn::Breaker;
use super::exchange::Exchange;
use super::learned::Learned;
use super::limit::Usage;
use super::make::{is_near, walk_every};
use super::on_node::OnNode;
use super::portion::Portion;
use super::sample::{CgroupSample, Moved, Reach, Speed, Stayed};
use super::touches::TouchLaw;
use crate::age::AgeHistogram;
use crate::node::NodeId;
use crate::policy::Policy;
use crate::reason::DemoteReason;
use crate::stall::StallWindow;
use crate::token_bucket::TokenBucket;
use crate::units::{Bytes, Instant, Ratio};

const MINUTE: Duration = Duration::from_mins(1);

/// Stalls this long after our last move are no doing of ours.
const OURS_FOR: Duration = Duration::from_secs(30);

/// A walk that comes after so many times the usual interval says of what it finds touched only that it was idle for as long before the gap.
const LATE: u32 = 3;

/// What a cgroup has, on all nodes together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// On fast nodes.
    pub(super) fast: Bytes,
    /// On all tiers.
    pub(super) footprint: Bytes,
}

/// What a sample taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taught {
    /// Memory came back that had better stayed: the age may be longer now.
    pub came_back: bool,
    /// Bytes that the kernel promoted since the sample before.
    pub kernel_promoted: Bytes,
}

/// The memory of one managed cgroup.
#[derive(Clone, Debug)]
pub struct CgroupState {
    pub(super) policy: Arc<Policy>,
    /// Whether another reason than its policy forbids to act on it.
    pub(super) held: bool,
    pub(super) reach: Reach,
    pub(super) nodes: Vec<OnNode>,
    pub(super) last: Option<CgroupSample>,
    pub(super) touches: TouchLaw,
    pub(super) portion: Portion,
    pub(super) breaker: Breaker,
    pub(super) usage: Usage,
    pub(super) demote_bucket: TokenBucket,
    pub(super) promote_bucket: TokenBucket,
    pub(super) touched_per_minute: Bytes,
    pub(super) exchange: Exchange,
    stalls: Option<StallWindow>,
    pub(super) memory_stall: Option<Ratio>,
    pub(super) io_stall: Option<Ratio>,
    /// Stalls before our own moves.
    baseline: Ratio,
    last_move: Option<Instant>,
    walked: Option<Instant>,
    found: Instant,
    /// What was learned before it was found counts for its start.
    known: bool,
    watched_before: Duration,
}

impl CgroupState {
    pub(super) fn new(policy: Arc<Policy>, learned: Option<&Learned>, now: Instant) -> Self {
        let learned = learned.filter(|learned| learned.is_usable());
        Self {
            touches: TouchLaw::new(policy.demote.after, policy.demote.after_max, learned, now),
            demote_bucket: TokenBucket::new(policy.demote.max_rate, now),
            promote_bucket: TokenBucket::new(policy.promote.max_rate, now),
            policy,
            held: false,
            reach: Reach::default(),
            nodes: Vec::new(),
            last: None,
            portion: Portion::default(),
            breaker: Breaker::new(now),
            usage: Usage::default(),
            touched_per_minute: Bytes::ZERO,
            exchange: Exchange::default(),
            stalls: None,
            memory_stall: None,
            io_stall: None,
            baseline: Ratio::ZERO,
            last_move: None,
            walked: None,
            found: now,
            known: learned.is_some(),
            watched_before: learned
                .map_or(Duration::ZERO, |known| Duration::from_secs(known.watched_seconds)),
        }
    }

    /// What of so much cold memory on a node is worth a move: all of it or nothing.
    pub(super) fn worth(&self, cold: Bytes) -> Bytes {
        if cold < self.reach.least { Bytes::ZERO } else { cold }
    }

    pub(super) fn set_policy(&mut self, policy: Arc<Policy>, now: Instant) {
        self.touches.set_bounds(policy.demote.after, policy.demote.after_max);
        self.demote_bucket.set_rate(policy.demote.max_rate, now);
        self.promote_bucket.set_rate(policy.promote.max_rate, now);
        self.policy = policy;
    }

    pub(super) fn learned(&self, now: Instant) -> Learned {
        Learned::of(&self.touches, self.watched_before + now.since(self.found))
    }

    /// Takes a sample in.
    pub(super) fn observe(
        &mut self,
        mut sample: CgroupSample,
        speed_of: impl Fn(NodeId) -> Option<Speed>,
    ) -> Taught {
        let now = sample.at;
        let mut taught = Taught::default();
        // What leaves with its node comes up for no touch.
        self.nodes.retain(|on| sample.nodes.contains_key(&on.node) && speed_of(on.node).is_some());
        let promoted = self.kernel_promoted(&sample, &speed_of);
        taught.kernel_promoted = promoted;
        // Where walks were far apart (no slow node for a while), what is touched all the time was idle for no longer than usual.
        let usual = walk_every(self, self.sums());
        let elapsed = self.walked.map_or(Duration::ZERO, |at| now.since(at));
        let unseen = if elapsed > usual * LATE { elapsed.saturating_sub(usual) } else { Duration::ZERO };
        let mut touched_slow = Bytes::ZERO;
        let (mut walked, mut walked_slow) = (false, false);
        for (node, usage) in &sample.nodes {
            let Some(speed) = speed_of(*node) else { continue };
            let i = match self.nodes.binary_search_by_key(node, |on| on.node) {
                Ok(i) => i,
                Err(i) => {
                    self.nodes.insert(i, OnNode::new(*node, speed));
                    i
                }
            };
            let on = &mut self.nodes[i];
            on.speed = speed;
            on.anon = usage.anon;
            on.surely_movable = usage.anon - usage.unmovable;
            on.kernel_promoted = usage.kernel_promoted.or(on.kernel_promoted);
            let law = &mut self.touches;
            // What a walk finds touched was young if the walk before found it touched.
            let young = elapsed.saturating_mul(3) / 2;
            match (&usage.ages, speed) {
                (Some(reading), _) => {
                    walked |= reading.walked;
                    let gone = if speed == Speed::Slow { promoted } else { Bytes::ZERO };
                    let mut twice = Bytes::ZERO;
                    on.ledger.observe(reading, gone, now, |idle, more, bytes| {
                        law.touched(idle.saturating_sub(unseen), more, elapsed, bytes);
                        if idle <= young {
                            twice += bytes;
                        }
                    });
                    if reading.walked {
                        on.hot_twice = twice;
                    }
                }
                (None, Speed::Slow) => {
                    on.ledger.resize(usage.anon, now);
                    if let Some(bytes) = usage.touched {
                        on.hot_twice = Bytes(bytes.0 / 2);
                        on.ledger.touch(bytes.min(usage.anon), now, |idle, bytes| {
                            let missed = if idle > young { elapsed } else { Duration::ZERO };
                            law.touched(idle.saturating_sub(unseen), missed, elapsed, bytes);
                        });
                    }
                }
                (None, Speed::Fast) => {}
            }
            if let (Speed::Slow, Some(bytes)) = (speed, usage.touched) {
                walked_slow = true;
                touched_slow += each_minute(bytes, usage.anon, elapsed);
                on.hot = bytes.min(usage.anon);
            }
        }
        if taught.kernel_promoted > Bytes::ZERO {
            self.breaker.moved_up(taught.kernel_promoted);
            if !walked_slow {
                self.cool(taught.kernel_promoted);
            }
        }
        let shares =
            self.stalls.get_or_insert(StallWindow::new(now, sample.stalls)).shares(now, sample.stalls);
        (self.memory_stall, self.io_stall) = shares;
        self.note_baseline(now);
        self.usage.observe(&sample);
        // Memory by node is kept as `nodes`.
        sample.nodes.clear();
        self.last = Some(sample);
        if walked_slow {
            if self.walked.is_some() {
                let came_up = touched_slow + taught.kernel_promoted;
                self.touched_per_minute = per_minute(self.touched_per_minute, came_up, elapsed);
            }
            self.judge(now);
        }
        if walked || walked_slow {
            let working_set = self.working_set(MINUTE, now);
            let after = self.policy.demote.after;
            let idle = self.fast().map(|on| on.ledger.at_least(after, now)).sum::<Bytes>()
                + self.slow().map(|on| on.anon).sum();
            let rate = self.policy.demote.slow_touch_rate;
            taught.came_back = self.touches.walked(working_set, idle, rate, now);
        }
        let per_minute = self.touched_per_minute;
        self.breaker.tick(self.footprint(), per_minute, now);
        taught
    }

    /// A walk of the slow nodes judges what sank, and what changed places at a ceiling.
    fn judge(&mut self, now: Instant) {
        let allowed = self.touches.allowance(self.policy.demote.slow_touch_rate);
        let fast = self.on_fast();
        let slow = self.slow().map(|on| on.anon).sum();
        if self.portion.judge(self.touched_per_minute, allowed, fast, slow, now) {
            self.nodes.iter_mut().filter(|on| on.speed == Speed::Fast).for_each(|on| on.ledger.distrust());
        }
        self.walked = Some(now);
        if is_near(self.policy.ceiling(self.footprint()), fast) {
            let (hot, slow) = self
                .slow()
                .fold((Bytes::ZERO, Bytes::ZERO), |(hot, slow), on| (hot + on.hot, slow + on.anon));
            let policy = &self.policy.demote;
            let age = self.exchange.age(policy);
            let cold = self.fast().map(|on| on.older(age, now)).sum();
            self.exchange.walked((hot, slow), cold, self.touched_per_minute, policy);
        }
    }

    /// What the kernel promoted since the last sample. Where it does not count that, what left the slow nodes and turned up on the fast ones.
    fn kernel_promoted(&self, sample: &CgroupSample, speed_of: impl Fn(NodeId) -> Option<Speed>) -> Bytes {
        if self.last.is_none() {
            return Bytes::ZERO;
        }
        let mut counted = None;
        let mut grown = Bytes::ZERO;
        for (node, usage) in &sample.nodes {
            let on = self.nodes.iter().find(|on| on.node == *node);
            let before = on.map_or(Bytes::ZERO, |on| on.anon);
            if speed_of(*node) == Some(Speed::Fast) {
                grown += usage.anon - before;
            }
            if let (Some(total), Some(before)) = (usage.kernel_promoted, on.and_then(|on| on.kernel_promoted))
            {
                counted = Some(counted.unwrap_or(Bytes::ZERO) + (total - before));
            }
        }
        let shrunk = self
            .slow()
            .map(|on| on.anon - sample.nodes.get(&on.node).map_or(Bytes::ZERO, |usage| usage.anon));
        counted.unwrap_or_else(|| shrunk.sum::<Bytes>().min(grown))
    }

    fn note_baseline(&mut self, now: Instant) {
        let Some(stall) = self.memory_stall else { return };
        let ours = self.last_move.is_some_and(|at| now.since(at) < OURS_FOR);
        if !ours {
            let mixed = u128::from(self.baseline.ppm()) * 3 + u128::from(stall.ppm());
            self.baseline = Ratio::of_parts(mixed, 4_000_000);
        }
    }

    /// The stalls that came with our moves, where they are more than the policy allows above what was before.
    pub(super) fn stalls_too_much(&self) -> Option<Ratio> {
        let most = self.baseline.ppm().saturating_add(self.policy.pressure.memory.ppm());
        self.memory_stall.filter(|stall| stall.ppm() > most)
    }

    /// What was really moved of an order to demote.
    pub(super) fn demoted(&mut self, moved: &Moved, reason: Option<DemoteReason>, now: Instant) {
        let mut age = moved.least_age;
        if let Some(on) = self.on(moved.from) {
            // What is younger was not asked for.
            let movable = on.movable(now).min(on.older(moved.least_age, now));
            if matches!(moved.stayed, Stayed::Unknown | Stayed::Bound) && !moved.asked.is_zero() {
                on.bound.learn(moved.asked, moved.moved.min(moved.asked), movable, now);
            }
            if let Some((oldest, _)) = on.ledger.entries(now).next() {
                age = age.max(if moved.moved.is_zero() { age } else { age.min(oldest) });
            }
            on.ledger.left(moved.moved);
            on.anon -= moved.moved;
        }
        if moved.moved.is_zero() {
            return;
        }
        if let Some(on) = moved.to.and_then(|to| self.on(to)) {
            on.ledger.arrived(moved.moved, age, now);
            on.anon += moved.moved;
        }
        self.demote_bucket.spend(moved.moved, now);
        self.last_move = Some(now);
        match reason {
            // Idle for an age, it can't be what came up in the breaker's window.
            Some(DemoteReason::Cold) => self.portion.sank(moved.moved, now),
            Some(DemoteReason::Ceiling) => {
                let rest = self.exchange.swapped(moved.moved);
                self.breaker.moved_down(rest);
            }
            Some(DemoteReason::Headroom) => self.breaker.moved_down(moved.moved),
            None => {}
        }
    }

    /// What we really promoted.
    pub(super) fn promoted(&mut self, moved: &Moved, now: Instant) {
        self.promote_bucket.spend(moved.moved, now);
        self.breaker.moved_up(moved.moved);
        self.portion.came_up(moved.moved);
        if let Some(on) = self.on(moved.from) {
            on.hot -= moved.moved.max(moved.asked);
            on.anon -= moved.moved;
            on.ledger.take_youngest(moved.moved);
        }
        if let Some(on) = moved.to.and_then(|to| self.on(to)) {
            on.anon += moved.moved;
        }
        if !moved.moved.is_zero() {
            self.last_move = Some(now);
        }
    }

    /// Promoted by others: no more hot on the slow nodes.
    fn cool(&mut self, mut bytes: Bytes) {
        for on in self.nodes.iter_mut().filter(|on| on.speed == Speed::Slow) {
            let part = on.hot.min(bytes);
            on.hot -= part;
            bytes -= part;
        }
    }

    fn on(&mut self, node: NodeId) -> Option<&mut OnNode> {
        self.nodes.iter_mut().find(|on| on.node == node)
    }

    pub(super) fn fast(&self) -> impl Iterator<Item = &OnNode> {
        self.nodes.iter().filter(|on| on.speed == Speed::Fast)
    }

    pub(super) fn slow(&self) -> impl Iterator<Item = &OnNode> {
        self.nodes.iter().filter(|on| on.speed == Speed::Slow)
    }

    pub(super) fn sums(&self) -> Sums {
        self.nodes.iter().fold(Sums::default(), |mut sums, on| {
            sums.fast += if on.speed == Speed::Fast { on.anon } else { Bytes::ZERO };
            sums.footprint += on.anon;
            sums
        })
    }

    /// Whether it was watched for long enough to be judged: two walks and an age, or by an agent before.
    pub(super) fn has_started(&self, now: Instant) -> bool {
        self.known || now.since(self.found) >= self.policy.demote.after
    }

    /// Its policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The last sample.
    #[must_use]
    pub fn last(&self) -> Option<&CgroupSample> {
        self.last.as_ref()
    }

    /// Touches by age, and the age that follows.
    #[must_use]
    pub fn touches(&self) -> &TouchLaw {
        &self.touches
    }

    /// Bytes touched on slow nodes per minute.
    #[must_use]
    pub fn touched_per_minute(&self) -> Bytes {
        self.touched_per_minute
    }

    /// Share of the last seconds stalled on memory, where the kernel says.
    #[must_use]
    pub fn memory_stall(&self) -> Option<Ratio> {
        self.memory_stall
    }

    /// Anonymous memory on fast nodes.
    #[must_use]
    pub fn on_fast(&self) -> Bytes {
        self.fast().map(|on| on.anon).sum()
    }

    /// Anonymous memory on all tiers.
    #[must_use]
    pub fn footprint(&self) -> Bytes {
        self.nodes.iter().map(|on| on.anon).sum()
    }

    /// Anonymous memory by node.
    pub fn anon_by_node(&self) -> impl Iterator<Item = (NodeId, Bytes)> + '_ {
        self.nodes.iter().map(|on| (on.node, on.anon))
    }

    /// The least age that the last listing of a node calls this much of its oldest memory.
    #[must_use]
    pub fn listed_age(&self, node: NodeId, bytes: Bytes, now: Instant) -> Duration {
        let on = self.nodes.iter().find(|on| on.node == node);
        on.map_or(Duration::ZERO, |on| on.ledger.listed_age(bytes, now))
    }

    /// Ages of anonymous memory on fast nodes.
    #[must_use]
    pub fn ages(&self, now: Instant) -> AgeHistogram {
        AgeHistogram::new(self.fast().flat_map(|on| on.ledger.entries(now)))
    }

    /// Bytes accessed within `window`: what is on fast nodes and younger, and what was touched on slow ones.
    #[must_use]
    pub fn working_set(&self, window: Duration, now: Instant) -> Bytes {
        let fast: Bytes = self.fast().map(|on| on.ledger.total() - on.ledger.at_least(window, now)).sum();
        fast + self.slow().map(|on| on.hot).sum()
    }
}

/// Pages touched in a window, each counted in every minute of it in which it was touched: what is touched at random (Poisson) is found once
/// however often it was. Of what was touched altogether nobody knows how often; at most as if one part in twenty had not been.
fn each_minute(touched: Bytes, of: Bytes, elapsed: Duration) -> Bytes {
    const WHOLE: u64 = 1 << 20;
    let minutes = (elapsed.as_millis() + 30_000) / 60_000;
    let Ok(minutes @ 2..) = u32::try_from(minutes) else { return touched };
    let part = u128::from(touched.0) * u128::from(WHOLE) / u128::from(of.0.max(1));
    let left = WHOLE - u64::try_from(part).unwrap_or(WHOLE).min(WHOLE / 20 * 19);
    // The share that is left alone in each minute is the root of what is left alone in all.
    let all = |share: u64| (0..minutes).fold(WHOLE, |left, _| left * share / WHOLE);
    let (mut low, mut high) = (left, WHOLE);
    while high - low > 1 {
        let share = low.midpoint(high);
        if all(share) > left { high = share } else { low = share }
    }
    let each = u128::from(of.0) * u128::from(WHOLE - low) / u128::from(WHOLE);
    Bytes(u64::try_from(each).unwrap_or(u64::MAX).saturating_mul(minutes.into())).max(touched)
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
    fn what_is_touched_more_than_once_counts_in_each_minute() {
        // Of 1000 MiB, touched at random so often a minute: 1 - exp(-rate * minutes) of them are found.
        let check = |minutes, found_mib, each_mib: u64| {
            let window = Duration::from_mins(minutes);
            let touched = each_minute(Bytes::mib(found_mib), Bytes::mib(1000), window);
            assert_eq!(touched.0.div_ceil(minutes << 20), each_mib, "{found_mib} MiB in {minutes} min");
        };
        check(1, 500, 500);
        check(2, 181, 96);
        check(12, 699, 96);
        check(12, 24, 3);
        check(12, 950, 221);
        check(12, 1000, 221);
        check(10, 0, 0);
    }
}
