//! The generator's command line.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use host::generator::HugePages;

/// What kind of memory a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory.
    Anon,
    /// Anonymous, then `MADV_FREE`.
    LazyFree,
    /// Anonymous, then `MADV_FREE`, then written anew: wanted again.
    Rewritten,
    /// Anonymous, `mlock`ed.
    Mlock,
    /// A shared mapping of the `--file`.
    File,
    /// Shared anonymous memory.
    Shmem,
    /// Private anonymous memory that a forked child maps, too.
    Fork,
    /// Of the hugetlb pool.
    Hugetlb,
}

/// How a region is touched, until the hot set shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heat {
    /// Every page read and written once a period.
    Write(Duration),
    /// Every page read once a period.
    Read(Duration),
    /// Written once at the start.
    Cold,
}

/// The page size asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSize {
    /// Kept from huge pages by `MADV_NOHUGEPAGE`.
    Base,
    /// `MADV_HUGEPAGE`, 2 MiB aligned.
    Thp,
    /// hugetlb, 2 MiB.
    Hugetlb,
}

impl PageSize {
    /// What the kernel is told.
    pub(super) fn advice(self) -> HugePages {
        match self {
            Self::Base => HugePages::Never,
            Self::Thp => HugePages::Wanted,
            Self::Hugetlb => HugePages::AsIs,
        }
    }

    /// As in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "4k",
            Self::Thp => "thp",
            Self::Hugetlb => "hugetlb",
        }
    }
}

/// One `--region`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Unique.
    pub name: String,
    /// The word of the command line: `hot`, `warm`, ...
    pub word: String,
    /// What memory.
    pub kind: Kind,
    /// How touched.
    pub heat: Heat,
    /// Size in bytes, a multiple of the page size.
    pub bytes: usize,
    /// Page size.
    pub page: PageSize,
    /// Touched from this time after the start on.
    pub from: Option<Duration>,
    /// Touched until this time after the start.
    pub until: Option<Duration>,
}

/// The whole command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// In order.
    pub regions: Vec<Region>,
    /// Cgroup directory to enter before any memory is mapped.
    pub cgroup: Option<String>,
    /// All regions interleaved in one mapping.
    pub one_mapping: bool,
    /// When hot and cold change places, after the start.
    pub shift_at: Option<Duration>,
    /// Prints a ledger to standard error this often.
    pub report: Option<Duration>,
    /// Backs `file` regions.
    pub file: Option<String>,
    /// Nodes whose memory counts as slow.
    pub slow: Vec<usize>,
    /// The first of the slots of [`misses`] that the mappings are in, one each.
    pub slot: Option<u64>,
}

/// One page of the hardware, bytes.
pub(super) const PAGE: usize = 4096;
/// One huge page, bytes.
pub(super) const HUGE: usize = 2 << 20;

/// Printed for `--help` and after a bad argument.
pub(super) const USAGE: &str = "\
thermocline-workload --region KIND[@PERIOD]:SIZE[:thp][:name=NAME][:from=TIME][:until=TIME]... [options]
  KIND      hot, readhot (every page once a second), warm@PERIOD, cold, lazyfree, rewritten (lazyfree
            written anew), mlock, file, shmem, fork, hugetlb;
            @PERIOD gives any kind a revisit period; from and until, after the start, bound when it is touched
  --cgroup DIR        enter this cgroup before any memory is mapped
  --mapping one|each  all (anonymous) regions interleaved in one mapping, or one mapping each (default)
  --shift-at TIME     then the first hot region turns cold and the first cold region hot
  --report TIME       a ledger to standard error this often
  --file PATH         backs file regions
  --slow NODE         its memory counts as slow; 1 if none is named
  --slot N            mappings are in the slots of `misses` from this on, one each
Commands on standard input, one a line, each answered with one JSON line:
  ledger    what is where, and when it was touched last
  verify    reads every page and counts those whose content is wrong
  shift     the shift of --shift-at, now
  free NAME gives the memory of a region back; it is touched no more
  fill NAME writes a region anew, as at the start, and says how long that took
  exit      ends; so does end of file
";

impl Spec {
    /// Reads the arguments.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut spec = Self::default();
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
            match flag.as_str() {
                "--region" => {
                    let region =
                        region(&value, &spec.regions).with_context(|| format!("--region {value}"))?;
                    spec.regions.push(region);
                }
                "--cgroup" => spec.cgroup = Some(value),
                "--mapping" => spec.one_mapping = value == "one",
                "--shift-at" => spec.shift_at = Some(duration(&value)?),
                "--report" => spec.report = Some(duration(&value)?),
                "--file" => spec.file = Some(value),
                "--slow" => spec.slow.push(value.parse().context("--slow takes the number of a node")?),
                "--slot" => spec.slot = Some(value.parse().context("--slot takes a number")?),
                _ => bail!("unknown argument {flag}\n{USAGE}"),
            }
        }
        ensure!(!spec.regions.is_empty(), "no --region given\n{USAGE}");
        if spec.slow.is_empty() {
            spec.slow.push(1);
        }
        if spec.one_mapping {
            let page = spec.regions[0].page;
            ensure!(
                spec.regions.iter().all(|region| region.kind == Kind::Anon && region.page == page),
                "--mapping one takes anonymous regions of one page size"
            );
        }
        Ok(spec)
    }
}

fn region(text: &str, earlier: &[Region]) -> Result<Region> {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let (word, period) = match first.split_once('@') {
        Some((word, period)) => (word, Some(duration(period)?)),
        None => (first, None),
    };
    let second = period.unwrap_or(Duration::from_secs(1));
    let otherwise = period.map_or(Heat::Cold, Heat::Write);
    let (memory, heat) = match word {
        "hot" => (Kind::Anon, Heat::Write(second)),
        "readhot" => (Kind::Anon, Heat::Read(second)),
        "warm" => (Kind::Anon, Heat::Write(period.context("warm needs its period: warm@60s")?)),
        "cold" => (Kind::Anon, otherwise),
        "lazyfree" => (Kind::LazyFree, Heat::Cold),
        "rewritten" => (Kind::Rewritten, Heat::Cold),
        "mlock" => (Kind::Mlock, otherwise),
        "file" => (Kind::File, otherwise),
        "shmem" => (Kind::Shmem, otherwise),
        "fork" => (Kind::Fork, Heat::Cold),
        "hugetlb" => (Kind::Hugetlb, otherwise),
        _ => bail!("unknown kind {word}\n{USAGE}"),
    };
    let mut page = if memory == Kind::Hugetlb { PageSize::Hugetlb } else { PageSize::Base };
    let bytes = bytes(parts.next().context("the size is missing")?)?;
    let (mut name, mut from, mut until) = (None, None, None);
    for option in parts {
        match option.split_once('=') {
            None if option == "thp" && memory != Kind::Hugetlb && memory != Kind::File => {
                page = PageSize::Thp;
            }
            None if option == "4k" => page = PageSize::Base,
            Some(("name", value)) => name = Some(value.to_owned()),
            Some(("from", value)) => from = Some(duration(value)?),
            Some(("until", value)) => until = Some(duration(value)?),
            _ => bail!("unknown option {option}"),
        }
    }
    let unit = if page == PageSize::Base { PAGE } else { HUGE };
    ensure!(
        bytes > 0 && bytes.is_multiple_of(unit),
        "the size is no multiple of its pages, {unit} bytes each"
    );
    let taken = |name: &str| earlier.iter().any(|region| region.name == name);
    let name = match name {
        Some(name) => name,
        None => (1..=earlier.len() + 1)
            .map(|n| if n == 1 { word.to_owned() } else { format!("{word}{n}") })
            .find(|name| !taken(name))
            .context("no free name")?,
    };
    ensure!(!taken(&name), "two regions are named {name}");
    Ok(Region { name, word: word.to_owned(), kind: memory, heat, bytes, page, from, until })
}

fn bytes(text: &str) -> Result<usize> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    Ok(digits.parse::<usize>().with_context(|| format!("{text} is no size (64M, 4096)"))? << shift)
}

fn duration(text: &str) -> Result<Duration> {
    let (digits, unit) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix('s') {
        (digits, 1000)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60_000)
    } else {
        bail!("{text} is no time (500ms, 60s, 2m)")
    };
    let count: u64 = digits.parse().with_context(|| format!("{text} is no time (500ms, 60s, 2m)"))?;
    ensure!(count > 0, "{text} is no time span");
    Ok(Duration::from_millis(count * unit))
}

#[cfg(test)]
mod tests {
    use super::{Duration, Heat, Kind, PageSize, Spec};

    fn parse(line: &str) -> anyhow::Result<Spec> {
        Spec::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn the_slow_node_is_1_unless_it_is_said_which() {
        assert_eq!(parse("--region cold:1M").unwrap().slow, [1]);
        assert_eq!(parse("--region cold:1M --slow 2 --slow 3").unwrap().slow, [2, 3]);
        assert!(parse("--region cold:1M --slow all").is_err());
    }

    #[test]
    fn regions_are_read_with_kind_heat_size_and_page() {
        let spec = parse("--region hot:64M --region warm@60s:32M:thp --region lazyfree:40M").unwrap();
        let read: Vec<_> =
            spec.regions.iter().map(|r| (r.name.as_str(), r.kind, r.heat, r.bytes >> 20, r.page)).collect();
        assert_eq!(
            read,
            [
                ("hot", Kind::Anon, Heat::Write(Duration::from_secs(1)), 64, PageSize::Base),
                ("warm", Kind::Anon, Heat::Write(Duration::from_mins(1)), 32, PageSize::Thp),
                ("lazyfree", Kind::LazyFree, Heat::Cold, 40, PageSize::Base),
            ]
        );
    }

    #[test]
    fn a_region_is_touched_for_a_time() {
        let spec = parse("--region hot@2s:4M:from=3m:until=200s").unwrap();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        assert_eq!((seconds(spec.regions[0].from), seconds(spec.regions[0].until)), (Some(180), Some(200)));
    }

    #[test]
    fn names_are_unique() {
        let spec = parse("--region cold:4K --region cold:4K --region cold:4K:name=big").unwrap();
        assert_eq!(
            spec.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>(),
            ["cold", "cold2", "big"]
        );
        assert!(parse("--region cold:4K:name=a --region cold:4K:name=a").is_err());
    }

    #[test]
    fn bad_regions_are_refused() {
        for bad in [
            "warm:4M",
            "hot",
            "hot:5000",
            "hot:3M:thp",
            "tepid:4M",
            "hot:4M:red",
            "hot:4M:from=x",
            "warm@0s:4M",
        ] {
            assert!(parse(&format!("--region {bad}")).is_err(), "{bad}");
        }
    }
}
