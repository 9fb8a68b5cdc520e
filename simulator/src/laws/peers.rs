//! The peers' laws.

use std::time::Duration;

use super::Law;
use crate::host::Host;
use crate::world::{NodeKind, PAGE};

/// A law of somebody else's, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Nothing moves.
    Nothing,
    /// The kernel alone: `demotion_enabled`, and promotion where the world has it.
    Kernel,
    /// A shell loop over `lru_gen`: walks twice in the age, evicts what is older.
    FixedAge(Duration),
    /// TMO's senpai by `memory.reclaim`: every 6 s one part in a hundred of the cgroup at most, held back by stalls alone, which demotion
    /// does not show.
    Senpai,
    /// memtierd's policy `age` with its tracker of idle pages: scans every 5 s, demotes after so long without a touch, promotes what the last scan
    /// found touched, moves 100 MB/s.
    Memtierd(Duration),
    /// HMSDK's `gen_migpol`: every 20 s what no sample of 30 s found touched goes down, every 2 s what a sample found touched comes up.
    Hmsdk,
}

/// A peer at work.
#[derive(Clone, Debug)]
pub struct PeerLaw {
    peer: Peer,
    /// Pages to save.
    target: Option<u64>,
    next: Duration,
    turns: u32,
}

impl Peer {
    /// The laws that ours is compared with at the same saving.
    pub const COMPARED: [Self; 4] = [
        Self::FixedAge(Duration::from_secs(30)),
        Self::Senpai,
        Self::Memtierd(Duration::from_secs(30)),
        Self::Hmsdk,
    ];

    /// At work, until `target` pages are saved.
    #[must_use]
    pub fn law(self, target: Option<u64>) -> PeerLaw {
        PeerLaw { peer: self, target, next: Duration::ZERO, turns: 0 }
    }
}

impl Law for PeerLaw {
    fn name(&self) -> String {
        match self.peer {
            Peer::Nothing => "nothing moved".to_owned(),
            Peer::Kernel => "the kernel alone".to_owned(),
            Peer::FixedAge(age) => format!("fixed age {} s", age.as_secs()),
            Peer::Senpai => "TMO senpai".to_owned(),
            Peer::Memtierd(_) => "memtierd".to_owned(),
            Peer::Hmsdk => "HMSDK".to_owned(),
        }
    }

    fn act(&mut self, host: &mut Host) {
        match self.peer {
            Peer::Nothing => host.numa_balancing = false,
            Peer::Kernel => host.demotion_enabled = true,
            Peer::FixedAge(age) => self.fixed_age(host, age),
            Peer::Senpai => self.senpai(host),
            Peer::Memtierd(idle) => self.memtierd(host, idle),
            Peer::Hmsdk => self.hmsdk(host),
        }
    }
}

impl PeerLaw {
    /// Pages that may still go down.
    fn wanted(&self, host: &Host) -> u64 {
        self.target.map_or(u64::MAX, |target| target.saturating_sub(host.saved()))
    }

    /// Whether it is time again; if so, the next time is `pause` later.
    fn is_due(&mut self, host: &Host, pause: Duration) -> bool {
        let due = host.now >= self.next;
        if due {
            self.next = host.now + pause;
        }
        due
    }

    fn fixed_age(&mut self, host: &mut Host, age: Duration) {
        let walks = self.is_due(host, age / 2);
        for pod in managed(host) {
            if walks {
                host.walk(pod);
            }
            for node in host.on_tier(NodeKind::Fast) {
                let generations = host.generations(pod, node);
                let old = generations.windows(2).take_while(|pair| pair[1].birth_age >= age).last();
                // Told what to save, it takes the oldest, whatever its age.
                let seq = match (old, self.target) {
                    (_, Some(_)) if walks => generations.last().map(|newest| newest.seq.saturating_sub(2)),
                    (Some(pair), None) => Some(pair[0].seq),
                    _ => None,
                };
                if let Some(seq) = seq {
                    host.evict(pod, node, seq, self.wanted(host), u64::MAX);
                }
            }
        }
    }

    fn senpai(&mut self, host: &mut Host) {
        if !self.is_due(host, Duration::from_secs(6)) {
            return;
        }
        for pod in managed(host) {
            let fast = host.on_tier(NodeKind::Fast);
            let stat = host.numa_stat(pod);
            let current: u64 = stat.anon.iter().chain(&stat.file).sum();
            let mut left = (current / 100).min(self.wanted(host));
            for node in fast {
                // The kernel ages as often as it finds nothing old.
                for _ in 0..3 {
                    let newest = host.generations(pod, node).last().map_or(0, |newest| newest.seq);
                    left -= host.evict(pod, node, newest.saturating_sub(2), left, u64::MAX).moved.min(left);
                    if left == 0 {
                        break;
                    }
                    host.age_for_reclaim(pod, node);
                }
            }
        }
    }

    fn memtierd(&mut self, host: &mut Host, idle: Duration) {
        host.numa_balancing = false;
        if !self.is_due(host, Duration::from_secs(5)) {
            return;
        }
        let mut budget = 5 * 100_000_000 / PAGE;
        for pod in managed(host) {
            budget -= host.promote_touched(pod, Duration::from_secs(5), budget).min(budget);
            let wanted = self.wanted(host).min(budget);
            budget -= host.demote_idle(pod, idle, wanted).min(budget);
        }
    }

    fn hmsdk(&mut self, host: &mut Host) {
        const QUOTA: u64 = (50 << 30) / PAGE;
        host.numa_balancing = false;
        if !self.is_due(host, Duration::from_secs(2)) {
            return;
        }
        self.turns += 1;
        for pod in managed(host) {
            host.promote_touched(pod, Duration::from_secs(2), QUOTA);
            if self.turns.is_multiple_of(10) {
                host.demote_idle(pod, Duration::from_secs(30), self.wanted(host).min(QUOTA));
            }
        }
    }
}

fn managed(host: &Host) -> Vec<usize> {
    (0..host.pods.len()).filter(|pod| host.pods[*pod].managed && host.pods[*pod].runs).collect()
}
