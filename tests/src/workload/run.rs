//! The generator's one loop: touch what is due, answer what is asked.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use host::generator::{Backing, HugePages, Mapping, Place, fork_holder};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::time::ClockId;
use serde::Serialize;

use super::frames::Frames;
use super::ledger::{Ledger, RegionLedger};
use super::spec::{HUGE, Heat, Kind, PAGE, PageSize, Region, Spec, USAGE};

/// Length of a region's piece where several share a mapping: small enough to mix, one huge page for `thp`.
const STRIPE_BASE: usize = 256 << 10;
/// Offset in a page of the count of passes; the pattern is in the first and the last word.
const COUNTER: usize = 8;
const LAST_WORD: usize = PAGE - 8;
/// Enough pages that changing their protection flushes everything.
const SCRATCH: usize = 64 * PAGE;

/// The monotonic clock, milliseconds: the same for every process of the machine.
#[must_use]
pub fn now_ms() -> u64 {
    now_us() / 1000
}

fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

/// Runs the generator until it is told to end.
pub fn main(args: impl IntoIterator<Item = String>) -> Result<()> {
    let args: Vec<String> = args.into_iter().collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        std::io::stderr().write_all(USAGE.as_bytes())?;
        return Ok(());
    }
    let spec = Spec::parse(args)?;
    if let Some(cgroup) = &spec.cgroup {
        let procs = Path::new(cgroup).join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| procs.display().to_string())?;
    }
    let mut generator = Generator::start(&spec)?;
    answer(&Ready { ready: true, pid: std::process::id() })?;
    generator.run(&spec)
}

/// First line on standard output: every region is populated.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    pid: u32,
}

/// Answer to `verify`.
#[derive(Serialize)]
struct Verified {
    pages: u64,
    wrong: u64,
    first_wrong: Option<String>,
}

/// Answer to `free` and `fill`.
#[derive(Serialize)]
struct Filled {
    us: u64,
}

struct Extent {
    mapping: usize,
    offset: usize,
    len: usize,
}

struct Live {
    spec: Region,
    index: u64,
    heat: Heat,
    extents: Vec<Extent>,
    due_ms: u64,
    /// When it is touched at all.
    span_ms: Range<u64>,
    last_touch_ms: u64,
    touches: u64,
    pass_us: u64,
    pass_us_max: u64,
    pass_us_total: u64,
    /// Its pages were given back by `free`.
    freed: bool,
}

struct Generator {
    /// Of no region: see [`Generator::forget_translations`].
    scratch: Mapping,
    mappings: Vec<Mapping>,
    regions: Vec<Live>,
    slow_nodes: Vec<usize>,
}

impl Generator {
    fn start(spec: &Spec) -> Result<Self> {
        let (mappings, extents) = if spec.one_mapping { interleaved(spec)? } else { separate(spec)? };
        let live = |(index, (region, extents)): (usize, (&Region, Vec<Extent>))| Live {
            spec: region.clone(),
            index: index as u64,
            heat: region.heat,
            extents,
            due_ms: 0,
            span_ms: 0..u64::MAX,
            last_touch_ms: 0,
            touches: 0,
            pass_us: 0,
            pass_us_max: 0,
            pass_us_total: 0,
            freed: false,
        };
        let regions = spec.regions.iter().zip(extents).enumerate().map(live).collect();
        let scratch = Mapping::new(SCRATCH, Backing::Private, HugePages::Never).context("scratch")?;
        let mut generator = Self { scratch, mappings, regions, slow_nodes: spec.slow.clone() };
        // Forked while only they are populated, so that the child shares the fork regions and nothing else: a later
        // write to a shared page would leave a copy of it behind, in no ledger.
        generator.populate(|kind| kind == Kind::Fork)?;
        if spec.regions.iter().any(|region| region.kind == Kind::Fork) {
            fork_holder().context("fork")?;
        }
        generator.populate(|kind| kind != Kind::Fork)?;
        Ok(generator)
    }

    fn populate(&mut self, which: impl Fn(Kind) -> bool) -> Result<()> {
        for region in self.regions.iter_mut().filter(|region| which(region.spec.kind)) {
            region.populate(&self.mappings).with_context(|| region.spec.name.clone())?;
        }
        Ok(())
    }

    fn run(&mut self, spec: &Spec) -> Result<()> {
        let start_ms = now_ms();
        for region in &mut self.regions {
            region.begin(start_ms);
        }
        let mut shift_at = spec.shift_at.map(|at| start_ms + millis(at));
        let mut report_at = spec.report.map(|every| start_ms + millis(every));
        let stdin = std::io::stdin();
        let control = is_control(&stdin);
        let mut pending = Vec::new();
        loop {
            let now = now_ms();
            if shift_at.is_some_and(|at| at <= now) {
                shift_at = None;
                self.shift();
            }
            if self.regions.iter().any(|region| region.is_due(now)) {
                self.forget_translations()?;
            }
            for region in self.regions.iter_mut().filter(|region| region.is_due(now)) {
                region.touch(&self.mappings);
            }
            if let (Some(at), Some(every)) = (report_at, spec.report)
                && at <= now
            {
                report_at = Some(at + millis(every));
                writeln!(std::io::stderr(), "{}", serde_json::to_string(&self.ledger()?)?)?;
            }

            let due = self
                .regions
                .iter()
                .filter(|region| !matches!(region.heat, Heat::Cold) && !region.freed)
                .map(|region| region.due_ms);
            let next = due.chain(shift_at).chain(report_at).min();
            let wait = next.map(|next| timespec(next.saturating_sub(now_ms())));
            let mut poll = [PollFd::new(&stdin, PollFlags::IN)];
            let watched = if control { &mut poll[..] } else { &mut [] };
            match rustix::event::poll(watched, wait.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error).context("poll"),
            }
            let mut buffer = [0; 256];
            let read = rustix::io::read(stdin.as_fd(), &mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            pending.extend_from_slice(&buffer[..read]);
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if !self.obey(String::from_utf8_lossy(&line).trim())? {
                    return Ok(());
                }
            }
        }
    }

    /// Drops all cached translations before a pass.
    ///
    /// The kernel clears accessed bits without a flush, as a processor's few thousand cached translations soon make
    /// room. An emulator caches many times more, and while nothing else runs it would keep them for minutes: touches
    /// would set no accessed bit, and hot memory would look cold to the kernel.
    fn forget_translations(&self) -> Result<()> {
        for offset in (0..SCRATCH).step_by(PAGE) {
            self.scratch.write(offset, 1);
        }
        self.scratch.flush_tlb().context("mprotect")
    }

    /// Whether to go on.
    fn obey(&mut self, command: &str) -> Result<bool> {
        match command {
            "ledger" => answer(&self.ledger()?)?,
            "verify" => answer(&self.verify())?,
            "shift" => {
                self.shift();
                answer(&self.ledger()?)?;
            }
            "exit" => return Ok(false),
            _ if command.starts_with("free ") => answer(&self.free(&command["free ".len()..])?)?,
            _ if command.starts_with("fill ") => answer(&self.fill(&command["fill ".len()..])?)?,
            _ => bail!("unknown command {command}\n{USAGE}"),
        }
        Ok(true)
    }

    /// The first hot region and the first cold one change places.
    fn shift(&mut self) {
        let find = |word: &str| self.regions.iter().position(|region| region.spec.word == word);
        if let (Some(hot), Some(cold)) = (find("hot").or(find("readhot")), find("cold")) {
            let heat = self.regions[hot].heat;
            self.regions[hot].heat = self.regions[cold].heat;
            self.regions[cold].heat = heat;
            self.regions[cold].due_ms = 0;
        }
    }

    fn region(&self, name: &str) -> Result<usize> {
        let found = self.regions.iter().position(|region| region.spec.name == name);
        found.with_context(|| format!("no region is named {name}"))
    }

    /// Gives a region's memory back. It is touched no more until it is filled.
    fn free(&mut self, name: &str) -> Result<Filled> {
        let start = now_us();
        let region = self.region(name)?;
        let region = &mut self.regions[region];
        if region.spec.kind != Kind::Anon {
            bail!("only private anonymous regions can be freed");
        }
        for extent in &region.extents {
            self.mappings[extent.mapping].drop_pages(extent.offset, extent.len).context("MADV_DONTNEED")?;
        }
        region.freed = true;
        region.due_ms = u64::MAX;
        Ok(Filled { us: now_us() - start })
    }

    /// Writes a region anew, as at the start.
    fn fill(&mut self, name: &str) -> Result<Filled> {
        let start = now_us();
        let region = self.region(name)?;
        self.regions[region].freed = false;
        self.regions[region].populate(&self.mappings)?;
        Ok(Filled { us: now_us() - start })
    }

    fn ledger(&self) -> Result<Ledger> {
        let pagemap = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
        let regions = self
            .regions
            .iter()
            .map(|region| region.ledger(&self.mappings, &pagemap, &self.slow_nodes))
            .collect::<Result<_>>()?;
        Ok(Ledger { t_ms: now_ms(), regions })
    }

    /// Reads every page, which makes it young: for the end of a run.
    fn verify(&self) -> Verified {
        let mut verified = Verified { pages: 0, wrong: 0, first_wrong: None };
        for region in self.regions.iter().filter(|region| !region.freed) {
            for (page, mapping, offset) in region.pages(&self.mappings) {
                verified.pages += 1;
                let words = [mapping.read(offset), mapping.read(offset + LAST_WORD)];
                let expected = [region.pattern(page); 2];
                let freed = region.spec.kind == Kind::LazyFree && words == [0; 2];
                if words != expected && !freed {
                    verified.wrong += 1;
                    verified.first_wrong.get_or_insert_with(|| {
                        format!("{} page {page}: {words:x?}, expected {expected:x?}", region.spec.name)
                    });
                }
            }
        }
        verified
    }
}

impl Live {
    fn pages<'m>(&self, mappings: &'m [Mapping]) -> impl Iterator<Item = (u64, &'m Mapping, usize)> {
        let offsets = self.extents.iter().flat_map(|extent| {
            (extent.offset..extent.offset + extent.len).step_by(PAGE).map(|offset| (extent.mapping, offset))
        });
        offsets.enumerate().map(|(page, (mapping, offset))| (page as u64, &mappings[mapping], offset))
    }

    /// What the first and the last word of a page hold: no two pages alike, none zero.
    fn pattern(&self, page: u64) -> u64 {
        ((self.index + 1) << 40 | (page + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn is_due(&self, now_ms: u64) -> bool {
        !matches!(self.heat, Heat::Cold) && !self.freed && self.due_ms <= now_ms
    }

    fn populate(&mut self, mappings: &[Mapping]) -> Result<()> {
        self.write_pattern(mappings);
        for extent in &self.extents {
            let mapping = &mappings[extent.mapping];
            match self.spec.kind {
                Kind::LazyFree | Kind::Rewritten => mapping.free_lazily().context("MADV_FREE")?,
                Kind::Mlock => mapping.lock().context("mlock (needs root or a higher RLIMIT_MEMLOCK)")?,
                _ => {}
            }
        }
        if self.spec.kind == Kind::Rewritten {
            self.write_pattern(mappings);
        }
        self.touches = 1;
        self.last_touch_ms = now_ms();
        self.schedule();
        Ok(())
    }

    fn write_pattern(&self, mappings: &[Mapping]) {
        for (page, mapping, offset) in self.pages(mappings) {
            mapping.write(offset, self.pattern(page));
            mapping.write(offset + LAST_WORD, self.pattern(page));
        }
    }

    fn touch(&mut self, mappings: &[Mapping]) {
        let start = now_us();
        let count = self.touches;
        if matches!(self.heat, Heat::Write(_)) {
            for (_, mapping, offset) in self.pages(mappings) {
                let _ = mapping.read(offset);
                mapping.write(offset + COUNTER, count);
            }
        } else {
            for (_, mapping, offset) in self.pages(mappings) {
                let _ = mapping.read(offset);
            }
        }
        self.pass_us = now_us() - start;
        self.pass_us_max = self.pass_us_max.max(self.pass_us);
        self.pass_us_total += self.pass_us;
        self.touches += 1;
        self.last_touch_ms = now_ms();
        self.schedule();
    }

    fn period_ms(&self) -> Option<u64> {
        match self.heat {
            Heat::Write(period) | Heat::Read(period) => Some(millis(period)),
            Heat::Cold => None,
        }
    }

    /// The run begins.
    fn begin(&mut self, start_ms: u64) {
        let after = |time: Duration| start_ms + millis(time);
        self.span_ms = self.spec.from.map_or(0, after)..self.spec.until.map_or(u64::MAX, after);
        self.schedule();
    }

    fn schedule(&mut self) {
        let next = self.period_ms().map_or(u64::MAX, |period| self.last_touch_ms + period);
        let due = next.max(self.span_ms.start);
        self.due_ms = if due < self.span_ms.end { due } else { u64::MAX };
    }

    fn ledger(&self, mappings: &[Mapping], pagemap: &File, slow_nodes: &[usize]) -> Result<RegionLedger> {
        let frames = Frames::read(slow_nodes)?;
        let (mut fast, mut slow, mut swapped, mut gone) = (0, 0, 0, 0);
        for extent in &self.extents {
            let mapping = &mappings[extent.mapping];
            let places = mapping.places(extent.offset, extent.len).context("move_pages")?;
            let mut entries = vec![0; places.len() * 8];
            if places.contains(&Place::Absent) {
                let at = mapping.address(extent.offset) / PAGE * 8;
                pagemap.read_exact_at(&mut entries, at as u64).context("/proc/self/pagemap")?;
            }
            for (place, entry) in places.iter().zip(entries.chunks_exact(8)) {
                let entry = entry.try_into().map_or(0, u64::from_le_bytes);
                let is_slow = match place {
                    Place::Node(node) => Some(slow_nodes.contains(&usize::from(*node))),
                    Place::Absent => frames.is_slow(entry),
                };
                let column = match is_slow {
                    Some(true) => &mut slow,
                    Some(false) => &mut fast,
                    // Bit 62: swapped out.
                    None if entry >> 62 & 1 == 1 => &mut swapped,
                    None => &mut gone,
                };
                *column += PAGE as u64;
            }
        }
        Ok(RegionLedger {
            name: self.spec.name.clone(),
            kind: self.spec.word.clone(),
            bytes: self.spec.bytes as u64,
            page: self.spec.page.as_str().to_owned(),
            period_ms: self.period_ms(),
            last_touch_ms: self.last_touch_ms,
            fast_bytes: fast,
            slow_bytes: slow,
            swapped_bytes: swapped,
            gone_bytes: gone,
            touches: self.touches,
            pass_us: self.pass_us,
            pass_us_max: self.pass_us_max,
            pass_us_total: self.pass_us_total,
        })
    }
}

/// Each region in a mapping of its own.
fn separate(spec: &Spec) -> Result<(Vec<Mapping>, Vec<Vec<Extent>>)> {
    let (mut mappings, mut extents) = (Vec::new(), Vec::new());
    let mut file_offset = 0;
    for region in &spec.regions {
        let file;
        let backing = match region.kind {
            Kind::Shmem => Backing::Shared,
            Kind::Hugetlb => Backing::Hugetlb,
            Kind::File => {
                let path = spec.file.as_ref().context("file regions need --file")?;
                file = File::options().read(true).write(true).open(path).with_context(|| path.clone())?;
                let offset = file_offset;
                file_offset += region.bytes as u64;
                Backing::File(file.as_fd(), offset)
            }
            Kind::Anon | Kind::LazyFree | Kind::Rewritten | Kind::Mlock | Kind::Fork => Backing::Private,
        };
        let mapping = map(spec, mappings.len(), region.bytes, backing, region.page.advice())
            .with_context(|| format!("cannot map {} (hugetlb needs vm.nr_hugepages)", region.name))?;
        extents.push(vec![Extent { mapping: mappings.len(), offset: 0, len: region.bytes }]);
        mappings.push(mapping);
    }
    Ok((mappings, extents))
}

/// The mapping of that number: where the kernel likes, or in its slot.
fn map(
    spec: &Spec,
    number: usize,
    bytes: usize,
    backing: Backing<'_>,
    huge: HugePages,
) -> std::io::Result<Mapping> {
    let Some(first) = spec.slot else { return Mapping::new(bytes, backing, huge) };
    let address = misses::slot_address(first + number as u64);
    Mapping::at(usize::try_from(address).map_err(std::io::Error::other)?, bytes, backing, huge)
}

/// All regions in one mapping, in stripes taken in turn.
fn interleaved(spec: &Spec) -> Result<(Vec<Mapping>, Vec<Vec<Extent>>)> {
    let regions = &spec.regions;
    let page = regions[0].page;
    let stripe = if page == PageSize::Thp { HUGE } else { STRIPE_BASE };
    let bytes = regions.iter().map(|region| region.bytes).sum();
    let mapping = map(spec, 0, bytes, Backing::Private, page.advice())?;
    let mut left: Vec<usize> = regions.iter().map(|region| region.bytes).collect();
    let mut extents: Vec<Vec<Extent>> = regions.iter().map(|_| Vec::new()).collect();
    let mut offset = 0;
    while left.iter().any(|&left| left > 0) {
        for (left, extents) in left.iter_mut().zip(&mut extents) {
            let len = stripe.min(*left);
            if len > 0 {
                extents.push(Extent { mapping: 0, offset, len });
                offset += len;
                *left -= len;
            }
        }
    }
    Ok((vec![mapping], extents))
}

/// Commands come through a pipe or from a terminal; `/dev/null` says nothing.
fn is_control(stdin: &std::io::Stdin) -> bool {
    rustix::termios::isatty(stdin)
        || rustix::fs::fstat(stdin).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn answer(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn timespec(millis: u64) -> Timespec {
    // Rounded up by one, so that what is due then is due.
    let millis = i64::try_from(millis + 1).unwrap_or(i64::MAX);
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}
