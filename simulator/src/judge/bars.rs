//! Each bar's verdict.

use std::time::Duration;

use api::Percentage;

use super::{Regret, Runs, Verdict};
use crate::host::{Host, Minute, Pod};
use crate::run::{Run, pods, share_on};
use crate::world::{AgeBack, Bar, Moved, NodeKind, PAGE, SetRef, SharesOf, Shift, Sinks, Within, WouldFree};

/// Nanoseconds of an access to DRAM and to a slow node, and of a page's move (literature: MEMTIS' CXL, `move_pages(2)`).
const FAST_NS: f64 = 80.0;
const SLOW_NS: f64 = 170.0;
const MOVE_NS: f64 = 1100.0;

/// Below a huge page, touches are noise.
const LEAST_ALLOWANCE: u64 = (2 << 20) / PAGE;

impl Runs<'_> {
    /// What a bar says.
    pub(super) fn verdict(&self, index: usize, bar: &Bar) -> Verdict {
        let host = &self.ours.host;
        match bar {
            Bar::NeverDemoted(sets) => {
                let bytes: u64 = sets.iter().map(|set| demoted(host, set) * PAGE).sum();
                verdict(format!("{} stays", list(sets)), "0 B down", size(bytes), bytes == 0, bytes as f64)
            }
            Bar::OnlyGive(sets) => {
                let all: u64 = (0..host.pods.len()).map(|pod| host.demoted_of(pod, None)).sum();
                let others = (all - sets.iter().map(|set| demoted(host, set)).sum::<u64>().min(all)) * PAGE;
                verdict(
                    format!("only {} gives", list(sets)),
                    "0 B of others",
                    size(others),
                    others == 0,
                    others as f64,
                )
            }
            Bar::NearestSlowNode(sets) => {
                let far: u64 = sets.iter().map(|set| far_pages(host, set) * PAGE).sum();
                verdict(
                    format!("{} on the nearest slow node", list(sets)),
                    "0 B elsewhere",
                    size(far),
                    far == 0,
                    far as f64,
                )
            }
            Bar::GivenBy(SharesOf { of, share }) => {
                let all: u64 = (0..host.pods.len()).map(|pod| host.demoted_of(pod, None)).sum();
                let given = if all == 0 { 0.0 } else { demoted(host, of) as f64 / all as f64 };
                at_least(format!("given by {of}"), part(*share), given)
            }
            Bar::HeadroomWithin(within) => self.headroom(index, *within),
            Bar::Sunk(SharesOf { of, share }) => {
                at_least(format!("{of} is down"), part(*share), share_on(host, of, NodeKind::Slow))
            }
            Bar::Regret(most) => {
                let regret = Regret::of(host);
                let ratio = regret.ratio();
                let seen = format!("{ratio:.2} x, {} saved", percent(regret.saved_share()));
                verdict(
                    "slow accesses over the oracle's",
                    format!("<= {most} x"),
                    seen,
                    ratio <= *most,
                    ratio,
                )
            }
            Bar::BeatsPeers(_) => self.beats_peers(),
            Bar::Saved(least) => at_least("DRAM saved", part(*least), Regret::of(host).saved_share()),
            Bar::Moved(moved) => self.moved(moved),
            Bar::Throughput(least) => self.throughput(*least),
            Bar::Sinks(sinks) => self.sinks(sinks),
            Bar::AgeBack(back) => self.age_back(back),
            Bar::FewerSlowAccesses(SharesOf { of, share }) => self.fewer(of, part(*share)),
            Bar::Shift(shift) => self.shift(index, shift),
            Bar::TouchesAllowed(_) => self.touches(),
            Bar::AtCeiling(SharesOf { of, share }) => self.at_ceiling(of, part(*share)),
            Bar::WouldFree(would) => self.would_free(index, would),
        }
    }

    fn headroom(&self, index: usize, Within { rounds, after }: Within) -> Verdict {
        let from = after.map_or(Duration::ZERO, |after| after.0);
        let last = self.ours.last_short[index].map_or(Duration::ZERO, |last| last.saturating_sub(from));
        let allowed = Duration::from_secs(u64::from(rounds));
        let asked = after.map_or_else(
            || format!("within {rounds} rounds"),
            |after| format!("within {rounds} rounds of {after}"),
        );
        let seen = if last.is_zero() {
            "not short after it".to_owned()
        } else {
            format!("after {} rounds", last.as_secs())
        };
        verdict("headroom everywhere", asked, seen, last <= allowed, last.as_secs_f64())
    }

    fn beats_peers(&self) -> Verdict {
        let ours = Regret::of(&self.ours.host);
        // The savings differ: what counts is how far each is from the best at its own. Who saves less than three quarters of what was
        // asked, in the mean, did not get there.
        let mut best = ("none gets there".to_owned(), f64::INFINITY);
        for peer in &self.peers {
            let theirs = Regret::of(&peer.host);
            if theirs.saved >= ours.saved * 0.75 && theirs.ratio() < best.1 {
                best = (peer.law.clone(), theirs.ratio());
            }
        }
        let (ratio, holds) = (ours.ratio(), ours.ratio() < best.1);
        let seen = format!("{ratio:.2} x the oracle's, {} {:.2} x", best.0, best.1);
        verdict("fewer slow accesses than every peer", "at the same saving", seen, holds, ratio / best.1)
    }

    fn moved(&self, Moved { of, per_minute, after }: &Moved) -> Verdict {
        let minutes = minutes(&self.ours.host, of);
        let working_set = minutes.iter().map(|minute| minute.working_set).max().unwrap_or(0).max(1) as f64;
        let from = (after.0.as_secs() / 60) as usize;
        let moved = |minute: &Minute| (minute.demoted + minute.promoted) as f64 / working_set;
        let worst = minutes.iter().skip(from).map(moved).fold(0.0, f64::max);
        at_most(format!("{of} moves a minute, of its working set"), part(*per_minute), worst)
    }

    fn throughput(&self, least: f64) -> Verdict {
        let ours = throughput(self.ours);
        let unmoved = self.unmoved.as_ref().map_or(ours, throughput);
        let ratio = ours / unmoved.max(f64::MIN_POSITIVE);
        let seen = format!("{ratio:.3} x");
        verdict("throughput of nothing moved", format!(">= {least} x"), seen, ratio >= least, -ratio)
    }

    fn sinks(&self, Sinks { of, most, after }: &Sinks) -> Verdict {
        let host = &self.ours.host;
        let before = after.and_then(|after| {
            self.ours.demoted_by.iter().find(|(at, _)| *at >= after.0).map(|(_, demoted)| demoted.as_slice())
        });
        let sinks = |set: &SetRef| {
            pods(host, set).map(|pod| host.sinks(pod, set.set.as_deref(), before)).fold(0.0, f64::max)
        };
        let (name, worst) = of
            .iter()
            .map(|set| (set.to_string(), sinks(set)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or_default();
        let after = after.map_or(String::new(), |after| format!(" after {after}"));
        let holds = worst <= f64::from(*most) + 0.05;
        let what = format!("times that a set sinks{after}");
        verdict(what, format!("<= {most}"), format!("{worst:.1} ({name})"), holds, worst)
    }

    fn age_back(&self, AgeBack { of, at }: &AgeBack) -> Verdict {
        let minutes = minutes(&self.ours.host, of);
        // The law goes from rung to rung, a fifth apart, and to and fro within hours.
        let hour = |end: usize| {
            let ages = &minutes[end.saturating_sub(60).min(minutes.len())..end.min(minutes.len())];
            ages.iter().map(|minute| minute.age).sum::<f64>() / ages.len().max(1) as f64
        };
        let (then, now) = (hour((at.0.as_secs() / 60) as usize), hour(minutes.len()));
        let most = then * 1.1;
        verdict(
            format!("age of {of} back at that of {at}"),
            format!("<= {most:.0} s"),
            format!("{now:.0} s"),
            now <= most,
            now / then.max(1.0),
        )
    }

    fn would_free(&self, index: usize, WouldFree { of, told, freed, within }: &WouldFree) -> Verdict {
        let (would, did) = self.ours.freed[index];
        let off = (would as f64 / did.max(1) as f64 - 1.0).abs();
        verdict(
            format!("told of {of} at {told}, freed by {freed}"),
            format!("within {}", percent(part(*within))),
            format!("{} and {}", size(would * PAGE), size(did * PAGE)),
            off <= part(*within) && did > 0,
            off,
        )
    }

    fn fewer(&self, of: &SetRef, share: f64) -> Verdict {
        let slow = |run: &Run| {
            let minutes = minutes(&run.host, of);
            let (mut slow, mut all) = (0.0, 0.0);
            for minute in &minutes[minutes.len() / 2..] {
                slow += minute.slow_accesses;
                all += minute.accesses;
            }
            slow / f64::max(all, 1.0)
        };
        let without = self.without_us.as_ref().map_or(0.0, slow);
        let fewer = if without == 0.0 { 0.0 } else { 1.0 - slow(self.ours) / without };
        at_least(format!("slow accesses of {of} fewer than without us"), share, fewer)
    }

    fn shift(&self, index: usize, Shift { new, .. }: &Shift) -> Verdict {
        let seen = self.ours.shifts[index];
        let host = &self.ours.host;
        let after = pods(host, new).next().map_or(Duration::ZERO, |pod| host.pods[pod].policy.demote.after);
        let scan = after / 2;
        let (up, down) = (scan * 3, after + scan * 2);
        let in_time = |seen: Option<Duration>, most: Duration| seen.is_some_and(|seen| seen <= most);
        let same_age = seen.age_after <= seen.age_before * 1.05;
        let say =
            |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{} s", time.as_secs()));
        verdict(
            "hot set moves: new up, old down, age",
            format!("{} s, {} s, {:.0} s", up.as_secs(), down.as_secs(), seen.age_before),
            format!("{}, {}, {:.0} s", say(seen.up), say(seen.down), seen.age_after),
            in_time(seen.up, up) && in_time(seen.down, down) && same_age,
            seen.up
                .zip(seen.down)
                .map_or(f64::INFINITY, |(up, down)| (up + down).as_secs_f64() + seen.age_after),
        )
    }

    /// In every minute of a pod after its third, what the policy has to answer for is within the allowance.
    fn touches(&self) -> Verdict {
        let host = &self.ours.host;
        let (mut worst, mut over, mut all) = ((0.0, String::new()), 0, 0);
        for pod in host.pods.iter().filter(|pod| pod.managed) {
            let minutes = &pod.ledger.minutes;
            let first = minutes.iter().position(|minute| minute.fast + minute.slow > 0).unwrap_or(0);
            for (at, minute) in minutes.iter().enumerate().skip(first + 3) {
                let ratio = minute.answered_for as f64 / allowed_touches(pod, at) as f64;
                all += 1;
                over += u32::from(ratio > 1.0);
                if ratio > worst.0 {
                    worst = (ratio, format!("{} in minute {}", pod.name, at + 1));
                }
            }
        }
        let seen = if worst.0 == 0.0 {
            "none".to_owned()
        } else {
            format!("{:.2} x ({}), {over} of {all} minutes over", worst.0, worst.1)
        };
        verdict("touches on slow nodes", "<= 1 x the policy's", seen, over == 0, worst.0)
    }

    fn at_ceiling(&self, of: &SetRef, share: f64) -> Verdict {
        let host = &self.ours.host;
        let mut worst: f64 = 0.0;
        for pod in pods(host, of) {
            let minutes = &host.pods[pod].ledger.minutes;
            for minute in &minutes[minutes.len() / 2..] {
                let footprint = tiering::Bytes((minute.fast + minute.slow) * PAGE);
                let ceiling = host.pods[pod].policy.ceiling(footprint).0 / PAGE;
                worst = worst.max((minute.fast as f64 / ceiling.max(1) as f64 - 1.0).abs());
            }
        }
        at_most(format!("DRAM of {of} off its ceiling"), share, worst)
    }
}

/// Pages that a pod's policy lets be touched on slow nodes in a minute: the stated share of the greatest working set of a minute within
/// the last day, and no less than a huge page.
#[must_use]
pub fn allowed_touches(pod: &Pod, minute: usize) -> u64 {
    let rate = f64::from(pod.policy.demote.slow_touch_rate.ppm()) / 1e6;
    let day = &pod.ledger.minutes[minute.saturating_sub(1440)..=minute];
    let working_set = day.iter().map(|minute| minute.working_set).max().unwrap_or(0);
    ((working_set as f64 * rate) as u64).max(LEAST_ALLOWANCE)
}

fn verdict(
    what: impl Into<String>,
    asked: impl Into<String>,
    seen: impl Into<String>,
    holds: bool,
    badness: f64,
) -> Verdict {
    Verdict { what: what.into(), asked: asked.into(), seen: seen.into(), holds, badness }
}

fn at_least(what: impl Into<String>, least: f64, seen: f64) -> Verdict {
    // A page more or less is rounding.
    verdict(what, format!(">= {}", percent(least)), percent(seen), seen >= least - 1e-6, -seen)
}

fn at_most(what: impl Into<String>, most: f64, seen: f64) -> Verdict {
    verdict(what, format!("<= {}", percent(most)), percent(seen), seen <= most + 1e-9, seen)
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 1.0 { format!("{percent:.3} %") } else { format!("{percent:.1} %") }
}

fn size(bytes: u64) -> String {
    tiering::Bytes(bytes).to_string()
}

fn list(sets: &[SetRef]) -> String {
    sets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn demoted(host: &Host, of: &SetRef) -> u64 {
    pods(host, of).map(|pod| host.demoted_of(pod, of.set.as_deref())).sum()
}

fn far_pages(host: &Host, of: &SetRef) -> u64 {
    let far = |pod: usize| {
        let by_distance = &host.nodes[host.pods[pod].home].by_distance;
        let slow = by_distance.iter().filter(|node| host.nodes[**node].kind == NodeKind::Slow);
        slow.skip(1).map(|node| host.truly_on(pod, of.set.as_deref(), *node)).sum::<u64>()
    };
    pods(host, of).map(far).sum()
}

/// The minutes of all pods of a name, summed; the greatest age.
fn minutes(host: &Host, of: &SetRef) -> Vec<Minute> {
    let mut sum: Vec<Minute> = Vec::new();
    for pod in pods(host, of) {
        for (at, minute) in host.pods[pod].ledger.minutes.iter().enumerate() {
            if sum.len() <= at {
                sum.push(Minute::default());
            }
            sum[at].add(minute);
        }
    }
    sum
}

/// Accesses a second by the model of latencies, in the second half, of managed pods.
fn throughput(run: &Run) -> f64 {
    let (mut accesses, mut nanoseconds) = (0.0, 0.0);
    for pod in run.host.pods.iter().filter(|pod| pod.managed) {
        let minutes = &pod.ledger.minutes;
        for minute in &minutes[minutes.len() / 2..] {
            accesses += minute.accesses;
            nanoseconds += (minute.accesses - minute.slow_accesses) * FAST_NS
                + minute.slow_accesses * SLOW_NS
                + (minute.demoted + minute.promoted) as f64 * MOVE_NS;
        }
    }
    accesses / f64::max(nanoseconds, 1.0)
}

fn part(of: Percentage) -> f64 {
    f64::from(of.0.ppm()) / 1e6
}
