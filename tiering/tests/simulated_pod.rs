//! A pod whose pages have schedules, on a fast and a slow node, with generations as the kernel keeps them.
//!
//! Ticks are seconds. A walk moves what was touched since the walk before it to the newest generation and begins a new
//! one; of more than four, the oldest two become one.

use core::time::Duration;

use tiering::law::{
    AgeReading, CgroupKey, CgroupSample, CgroupState, Host, HostSample, Moved, NodeSample, NodeUse, Promoter,
    Reach, Settings, Speed, Stayed,
};
use tiering::{AgeHistogram, ByteRate, Bytes, Generation, Instant, NodeId, NodeSet, Policy, StallTotals};

const PAGE: u64 = 2 << 20;
const FAST: u32 = 0;
const SLOW: u32 = 1;
const POD: CgroupKey = CgroupKey(1);

/// Pages with one schedule.
#[derive(Clone, Copy)]
struct Set {
    name: &'static str,
    pages: usize,
    /// Seconds between touches; `None` is never.
    period: Option<u64>,
    /// Touched from this second on, and before that one.
    during: (u64, u64),
}

impl Set {
    const fn touched_every(name: &'static str, pages: usize, period: u64) -> Self {
        Self { name, pages, period: Some(period), during: (0, u64::MAX) }
    }

    const fn never_touched(name: &'static str, pages: usize) -> Self {
        Self { name, pages, period: None, during: (0, 0) }
    }

    const fn hot(name: &'static str, pages: usize, during: (u64, u64)) -> Self {
        Self { name, pages, period: Some(1), during }
    }

    fn is_touched_at(&self, second: u64) -> bool {
        let (from, to) = self.during;
        from <= second
            && second < to
            && self.period.is_some_and(|period| (second - from).is_multiple_of(period))
    }
}

struct Page {
    set: usize,
    node: u32,
    generation: u64,
    touched: bool,
    /// Found touched on the slow node by the last walk.
    found: bool,
    demotions: u32,
    /// When a walk last found it touched.
    seen: u64,
}

struct Pod {
    sets: Vec<Set>,
    pages: Vec<Page>,
    /// Birth of each generation, oldest first; the last is the newest.
    births: Vec<(u64, u64)>,
    second: u64,
    next_walk: u64,
    promoter: Promoter,
    promoted: u64,
    slow_free: Bytes,
    host: Host,
}

impl Pod {
    fn new(sets: &[Set], policy: Policy, promoter: Promoter) -> Self {
        let policy = policy.validated().expect("a valid policy");
        let pages = sets.iter().enumerate().flat_map(|(set, Set { pages, .. })| {
            (0..*pages).map(move |_| Page {
                set,
                node: FAST,
                generation: 1,
                touched: true,
                found: false,
                demotions: 0,
                seen: 0,
            })
        });
        let mut host = Host::new(Settings { promoter, ..Settings::default() });
        host.add(POD, policy, None, Instant::default());
        let allowed: NodeSet = [FAST, SLOW].into_iter().collect();
        host.set_reach(POD, Reach { allowed, barrier: None });
        Self {
            sets: sets.to_vec(),
            pages: pages.collect(),
            births: vec![(0, 0), (1, 0)],
            second: 0,
            next_walk: 0,
            promoter,
            promoted: 0,
            slow_free: Bytes::mib(64 << 10),
            host,
        }
    }

    fn run_until(&mut self, second: u64) {
        while self.second < second {
            self.second += 1;
            self.touch();
            let slow_touched = (self.second >= self.next_walk).then(|| self.walk());
            self.round(slow_touched);
        }
    }

    fn touch(&mut self) {
        for page in &mut self.pages {
            if self.sets[page.set].is_touched_at(self.second) {
                page.touched = true;
                if self.promoter == Promoter::Kernel && page.node == SLOW {
                    page.node = FAST;
                    page.generation = self.births[self.births.len() - 1].0;
                    self.promoted += PAGE;
                }
            }
        }
    }

    fn state(&self) -> &CgroupState {
        self.host.cgroup(POD).expect("it was added")
    }

    fn age(&self) -> Duration {
        self.state().touches().age()
    }

    /// Bytes found touched on the slow node.
    fn walk(&mut self) -> Bytes {
        let newest = self.births[self.births.len() - 1].0;
        for page in &mut self.pages {
            page.found = page.touched && page.node == SLOW;
            if core::mem::take(&mut page.touched) {
                page.generation = newest;
                page.seen = self.second;
            }
        }
        self.births.push((newest + 1, self.second));
        if self.births.len() > 4 {
            let oldest = self.births.remove(0).0;
            self.pages
                .iter_mut()
                .filter(|page| page.generation == oldest)
                .for_each(|page| page.generation += 1);
        }
        Bytes(self.pages.iter().filter(|page| page.found).count() as u64 * PAGE)
    }

    fn generations(&self, node: u32) -> Vec<Generation> {
        let anon =
            |seq| self.pages.iter().filter(|page| page.node == node && page.generation == seq).count() as u64;
        self.births
            .iter()
            .map(|(seq, birth)| Generation {
                seq: *seq,
                birth_age: Duration::from_secs(self.second - birth),
                anon: Bytes(anon(*seq) * PAGE),
                file: Bytes::ZERO,
            })
            .collect()
    }

    fn round(&mut self, slow_touched: Option<Bytes>) {
        let now = Instant(Duration::from_secs(self.second));
        let node = |id, speed, free| NodeSample {
            node: NodeId(id),
            speed,
            total: Bytes::mib(64 << 10),
            free,
            pcp: Bytes::ZERO,
            min: Bytes::ZERO,
            low: Bytes::ZERO,
            high: Bytes::ZERO,
            reclaimable_file: Bytes::ZERO,
            targets: vec![NodeId(FAST + SLOW - id)],
            kernel_promoted: None,
            kernel_demoted: None,
        };
        let fast = node(FAST, Speed::Fast, Bytes::mib(32 << 10));
        let slow = node(SLOW, Speed::Slow, self.slow_free);
        self.host.observe_nodes(HostSample { at: now, nodes: vec![fast, slow] });
        let walked = slow_touched.is_some();
        let usage = |node, touched| {
            let ages = AgeHistogram::of_generations(&self.generations(node)).collect();
            let kernel_promoted =
                (node == FAST && self.promoter == Promoter::Kernel).then_some(Bytes(self.promoted));
            let ages = Some(AgeReading { ages, walked });
            let anon = self.on(node);
            (NodeId(node), NodeUse { anon, ages, touched, kernel_promoted, ..NodeUse::default() })
        };
        let sample = CgroupSample {
            at: now,
            nodes: [usage(FAST, None), usage(SLOW, slow_touched)].into(),
            current: self.on(FAST) + self.on(SLOW),
            stalls: StallTotals::default(),
            ..CgroupSample::default()
        };
        self.host.observe(POD, sample);
        let plan = self.host.plan(now);
        let plan = plan.of(POD).expect("a sample was taken").clone();
        if walked {
            self.next_walk = self.second + plan.walk_every.as_secs();
        }
        for order in &plan.demote {
            let listed = self.state().listed_age(NodeId(FAST), order.bytes, now);
            let least_age = order.least_age.min(listed);
            let generations = self.generations(FAST);
            let ages: Vec<_> = AgeHistogram::of_generations(&generations).collect();
            let mut budget = order.bytes.0 / PAGE;
            let asked = budget;
            let old_enough =
                generations.iter().zip(&ages).filter(|(_, (age, _))| *age >= least_age).map(|(g, _)| g.seq);
            for seq in old_enough {
                // Where the kernel merges two generations, the older one's pages stay those to be evicted first.
                let mut listed: Vec<&mut Page> = self
                    .pages
                    .iter_mut()
                    .filter(|page| page.node == FAST && page.generation == seq)
                    .collect();
                listed.sort_by_key(|page| page.seen);
                for page in listed {
                    if budget > 0 {
                        (page.node, budget) = (SLOW, budget - 1);
                        page.demotions += 1;
                    }
                }
            }
            let moved = Moved {
                from: NodeId(FAST),
                to: Some(NodeId(SLOW)),
                asked: Bytes((asked - budget) * PAGE),
                moved: Bytes((asked - budget) * PAGE),
                stayed: Stayed::Unknown,
                least_age: order.least_age,
            };
            self.host.demoted(POD, &moved, Some(order.reason), now);
        }
        for order in &plan.promote {
            let newest = self.births[self.births.len() - 1].0;
            let mut back = 0;
            for page in self.pages.iter_mut().filter(|page| page.node == SLOW && page.found) {
                if back < order.bytes.0 / PAGE {
                    (page.node, page.generation, page.found, back) = (FAST, newest, false, back + 1);
                }
            }
            let bytes = Bytes(back * PAGE);
            let moved = Moved {
                from: NodeId(SLOW),
                to: Some(NodeId(FAST)),
                asked: bytes,
                moved: bytes,
                stayed: Stayed::Unknown,
                least_age: Duration::ZERO,
            };
            self.host.promoted(POD, &moved, now);
        }
    }

    fn on(&self, node: u32) -> Bytes {
        Bytes(self.pages.iter().filter(|page| page.node == node).count() as u64 * PAGE)
    }

    fn pages_of(&self, set: &str) -> impl Iterator<Item = &Page> {
        self.pages.iter().filter(move |page| self.sets[page.set].name == set)
    }

    fn percent_on(&self, node: u32, set: &str) -> usize {
        self.pages_of(set).filter(|page| page.node == node).count() * 100 / self.pages_of(set).count()
    }

    /// How often the most demoted page of the set went down.
    fn demotions(&self, set: &str) -> u32 {
        self.pages_of(set).map(|page| page.demotions).max().expect("a page")
    }
}

fn policy(after_s: u64, rate_mib: u64) -> Policy {
    let mut policy = Policy::default();
    policy.demote.after = Duration::from_secs(after_s);
    policy.demote.after_max = policy.demote.after * 16;
    (policy.demote.max_rate, policy.promote.max_rate) =
        (ByteRate::mib_per_s(rate_mib), ByteRate::mib_per_s(rate_mib));
    policy
}

/// Seconds that `bytes` may take at 0.8 of the cap.
fn moving(bytes_mib: u64, rate_mib: u64) -> u64 {
    (bytes_mib * 10).div_ceil(rate_mib * 8)
}

#[test]
fn cold_memory_is_placed_in_time_and_no_other() {
    let check = |after_s: u64, cold_pages: usize, rate_mib: u64| {
        let sets = [
            Set::touched_every("hot", 100, 1),
            Set::touched_every("warm", 50, after_s / 4),
            Set::never_touched("cold", cold_pages),
        ];
        let mut pod = Pod::new(&sets, policy(after_s, rate_mib), Promoter::Kernel);
        let limit = after_s + 2 * (after_s / 2) + moving(cold_pages as u64 * 2, rate_mib) + 1;
        pod.run_until(limit);
        assert_eq!(
            pod.percent_on(SLOW, "cold"),
            100,
            "recall after {limit} s: after {after_s} s at {rate_mib} MiB/s"
        );
        pod.run_until(limit * 10);
        assert_eq!((pod.demotions("hot"), pod.demotions("warm")), (0, 0), "precision");
        assert_eq!(pod.demotions("cold"), 1);
    };
    check(120, 400, 200);
    check(30, 400, 200);
    check(30, 2000, 20);
    check(10, 300, 1000);
    check(4, 50, 2);
}

#[test]
fn a_revisited_set_is_demoted_at_most_twice() {
    for promoter in [Promoter::Kernel, Promoter::Agent] {
        let sets = [
            Set::touched_every("20 s", 20, 20),
            Set::touched_every("60 s", 20, 60),
            Set::touched_every("150 s", 20, 150),
            Set::never_touched("cold", 100),
        ];
        let mut pod = Pod::new(&sets, Policy::default(), promoter);
        pod.run_until(900);
        assert_eq!((pod.demotions("20 s"), pod.demotions("60 s")), (0, 0));
        assert!(pod.demotions("150 s") <= 2, "{} times", pod.demotions("150 s"));
        assert_eq!(pod.percent_on(SLOW, "cold"), 100);
    }
}

#[test]
fn wrong_demotions_grow_with_the_logarithm_of_time() {
    for promoter in [Promoter::Kernel, Promoter::Agent] {
        let sets = [
            Set::touched_every("20 s", 4, 20),
            Set::touched_every("60 s", 4, 60),
            Set::touched_every("150 s", 4, 150),
            Set::touched_every("200 s", 4, 200),
            Set::never_touched("cold", 4),
        ];
        let mut pod = Pod::new(&sets, Policy::default(), promoter);
        let mut last = 0;
        for hours in [1, 2, 4, 8, 16, 24] {
            pod.run_until(hours * 3600);
            let count = pod.demotions("150 s").max(pod.demotions("200 s"));
            println!(
                "{hours} h: the set of 150 s went down {} times, that of 200 s {} times, the age is {:?}",
                pod.demotions("150 s"),
                pod.demotions("200 s"),
                pod.age()
            );
            // Each doubling of time brings at most two more.
            assert!(count <= last + 2, "{last}, then {count} at {hours} h");
            last = count;
        }
        assert_eq!((pod.demotions("20 s"), pod.demotions("60 s")), (0, 0));
    }
}

#[test]
fn a_hot_set_that_shifts_is_followed() {
    let check = |promoter, after_s: u64, pages: usize, rate_mib: u64| {
        let shift = after_s * 10;
        let sets = [
            Set::hot("before", pages, (0, shift)),
            Set::hot("then", pages, (shift, u64::MAX)),
            Set::never_touched("cold", pages),
        ];
        let mut pod = Pod::new(&sets, policy(after_s, rate_mib), promoter);
        pod.run_until(shift - 1);
        assert_eq!((pod.percent_on(FAST, "before"), pod.percent_on(SLOW, "then")), (100, 100));
        pod.run_until(shift + 3 * (after_s / 2) + moving(pages as u64 * 2, rate_mib) + 1);
        assert!(pod.percent_on(FAST, "then") >= 95, "{} % came up", pod.percent_on(FAST, "then"));
        // What came back once and stays is no period.
        pod.run_until(shift + after_s * 4);
        assert_eq!(pod.age(), Duration::from_secs(after_s));
        assert_eq!(pod.percent_on(SLOW, "before"), 100, "what is hot no more stays up");
        assert_eq!(pod.percent_on(FAST, "then"), 100);
    };
    for promoter in [Promoter::Kernel, Promoter::Agent] {
        check(promoter, 30, 200, 100);
        check(promoter, 120, 200, 200);
    }
}

#[test]
fn a_short_age_is_not_lengthened_by_one_stray_page() {
    let sets = [
        Set::touched_every("hot", 1000, 1),
        Set::touched_every("stray", 1, 97),
        Set::never_touched("cold", 1000),
    ];
    let mut pod = Pod::new(&sets, policy(4, 1000), Promoter::Agent);
    pod.run_until(3600);
    assert_eq!(pod.age(), Duration::from_secs(4));
}

#[test]
fn forced_demotions_teach_nothing_about_the_age() {
    let mut policy = policy(30, 100);
    policy.dram.ceiling = Some(tiering::Share::Bytes(Bytes(PAGE * 60)));
    let sets = [Set::touched_every("warm", 100, 5)];
    let mut pod = Pod::new(&sets, policy, Promoter::Kernel);
    pod.run_until(600);
    assert!(pod.demotions("warm") > 1, "the ceiling was never reached");
    assert_eq!(pod.age(), Duration::from_secs(30));
}

#[test]
fn a_full_slow_node_holds_demotion_and_loses_nothing() {
    let sets = [Set::touched_every("hot", 10, 1), Set::never_touched("cold", 10)];
    let mut pod = Pod::new(&sets, policy(10, 100), Promoter::Kernel);
    pod.slow_free = Bytes::ZERO;
    pod.run_until(200);
    assert_eq!((pod.on(FAST), pod.on(SLOW)), (Bytes(20 * PAGE), Bytes::ZERO));
    pod.slow_free = Bytes::mib(64 << 10);
    pod.run_until(202);
    assert_eq!(pod.percent_on(SLOW, "cold"), 100);
}
