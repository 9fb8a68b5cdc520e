//! Generations of pages: the multi-generational LRU's `lru_gen` files.
//!
//! Pages are counted in the cgroup that they are charged to and not in its ancestors: act on leaves.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::file;

/// One generation of one cgroup on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Its number; the newest has the largest.
    pub seq: u64,
    /// Milliseconds since it became the newest.
    pub birth_age_ms: u64,
    /// Anonymous pages, and shared memory.
    pub anon_pages: u64,
    /// File pages, and anonymous ones after `MADV_FREE`.
    pub file_pages: u64,
}

/// The generations of all cgroups or some, as of one reading, but for those whose path is not UTF-8. Reuse one value for many
/// readings: it keeps its memory.
#[derive(Debug, Clone, Default)]
pub struct LruGen {
    paths: String,
    memcgs: Vec<MemcgSpan>,
    nodes: Vec<NodeSpan>,
    generations: Vec<Generation>,
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct MemcgSpan {
    id: u64,
    path_end: usize,
    nodes_end: usize,
}

#[derive(Debug, Clone, Copy)]
struct NodeSpan {
    node: u32,
    generations_end: usize,
}

/// Where in the file a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Before the first cgroup, or in one that is left out.
    Skipped,
    /// In a cgroup, before its first node.
    Memcg,
    Node,
}

/// A cgroup in an [`LruGen`].
#[derive(Debug, Clone, Copy)]
pub struct MemcgGenerations<'a> {
    all: &'a LruGen,
    index: usize,
}

impl<'a> MemcgGenerations<'a> {
    /// The id that commands take. After 6.12 the inode of the cgroup's directory; before a private number that is
    /// reused: read it anew before each command.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.all.memcgs[self.index].id
    }

    /// The path below the cgroup mount, with a leading slash; `/` is the root.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let start = self.before().map_or(0, |memcg| memcg.path_end);
        &self.all.paths[start..self.all.memcgs[self.index].path_end]
    }

    /// Each node's generations, oldest first.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, &'a [Generation])> + use<'a> {
        let all = self.all;
        let start = self.before().map_or(0, |memcg| memcg.nodes_end);
        (start..all.memcgs[self.index].nodes_end).map(|index| {
            let start = if index == 0 { 0 } else { all.nodes[index - 1].generations_end };
            let NodeSpan { node, generations_end } = all.nodes[index];
            (node, &all.generations[start..generations_end])
        })
    }

    /// One node's generations, oldest first; empty for a node without memory.
    #[must_use]
    pub fn node(&self, node: u32) -> &'a [Generation] {
        self.nodes().find(|(id, _)| *id == node).map_or(&[], |(_, generations)| generations)
    }

    fn before(&self) -> Option<&'a MemcgSpan> {
        self.index.checked_sub(1).map(|index| &self.all.memcgs[index])
    }
}

impl LruGen {
    /// The cgroups in the kernel's order: parents before children.
    #[must_use]
    pub fn memcgs(&self) -> impl ExactSizeIterator<Item = MemcgGenerations<'_>> {
        (0..self.memcgs.len()).map(|index| MemcgGenerations { all: self, index })
    }

    /// The cgroup of this path below the mount.
    #[must_use]
    pub fn memcg(&self, path: &str) -> Option<MemcgGenerations<'_>> {
        self.memcgs().find(|memcg| memcg.path() == path)
    }

    fn clear(&mut self) {
        self.paths.clear();
        self.memcgs.clear();
        self.nodes.clear();
        self.generations.clear();
    }

    fn read(&mut self, path: &Path, wanted: impl FnMut(u64, &str) -> bool) -> Result<()> {
        let file = File::open(path).map_err(|source| Error::io_of_host(path, "open", source))?;
        self.parse(BufReader::with_capacity(1 << 16, file), path, wanted)
    }

    /// The text of `lru_gen` in place of what `self` held: the cgroups whose id and path `wanted` accepts; `path` is for
    /// errors.
    pub fn parse(
        &mut self,
        mut reader: impl BufRead,
        path: &Path,
        mut wanted: impl FnMut(u64, &str) -> bool,
    ) -> Result<()> {
        self.clear();
        let mut line = std::mem::take(&mut self.line);
        let mut within = Within::Skipped;
        for number in 1.. {
            line.clear();
            let read = reader
                .read_until(b'\n', &mut line)
                .map_err(|source| Error::io_of_host(path, "read", source))?;
            if read == 0 {
                break;
            }
            self.parse_line(&line, &mut within, &mut wanted)
                .ok_or_else(|| Error::malformed(path, number, String::from_utf8_lossy(&line).trim_end()))?;
        }
        self.line = line;
        Ok(())
    }

    fn parse_line(
        &mut self,
        line: &[u8],
        within: &mut Within,
        wanted: &mut impl FnMut(u64, &str) -> bool,
    ) -> Option<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(rest) = line.strip_prefix(b"memcg") {
            // The path is all that follows the id and one space, spaces included.
            let rest = rest.trim_ascii_start();
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let id = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            // Whoever may make a cgroup may give it a name that is no text. Two such names may look alike, so it is left out.
            let path = std::str::from_utf8(&rest[space + 1..]).ok().filter(|path| wanted(id, path));
            *within = if path.is_some() { Within::Memcg } else { Within::Skipped };
            if let Some(path) = path {
                self.paths.push_str(path);
                let (path_end, nodes_end) = (self.paths.len(), self.nodes.len());
                self.memcgs.push(MemcgSpan { id, path_end, nodes_end });
            }
            return Some(());
        }
        if *within == Within::Skipped {
            return Some(());
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let first = words.next()?;
        if first == b"node" {
            let node = u32::try_from(number(words.next()?)?).ok()?;
            self.nodes.push(NodeSpan { node, generations_end: self.generations.len() });
            self.memcgs.last_mut()?.nodes_end = self.nodes.len();
            *within = Within::Node;
            return Some(());
        }
        // Else it would count as the node before it, of another cgroup.
        if *within != Within::Node {
            return None;
        }
        let generation = Generation {
            seq: number(first)?,
            birth_age_ms: number(words.next()?)?,
            anon_pages: number(words.next()?)?,
            file_pages: number(words.next()?)?,
        };
        self.generations.push(generation);
        self.nodes.last_mut()?.generations_end = self.generations.len();
        Some(())
    }
}

/// A number; below zero is zero, for per-processor sums can be off for a moment. The kernel marks some with a letter.
fn number(word: &[u8]) -> Option<u64> {
    let (negative, digits) = match word.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    let digits = match digits {
        [digits @ .., last] if last.is_ascii_alphabetic() => digits,
        _ => digits,
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { 0 } else { number })
}

/// The path of the generations file.
pub(crate) fn lru_gen_path(debugfs: &Path) -> PathBuf {
    debugfs.join("lru_gen")
}

/// Reads `lru_gen` of debugfs: all cgroups.
pub fn read_lru_gen(debugfs: &Path, into: &mut LruGen) -> Result<()> {
    into.read(&lru_gen_path(debugfs), |_, _| true)
}

/// Reads `lru_gen` of debugfs: the cgroups whose id and path `wanted` accepts.
pub fn read_lru_gen_of(
    debugfs: &Path,
    into: &mut LruGen,
    wanted: impl FnMut(u64, &str) -> bool,
) -> Result<()> {
    into.read(&lru_gen_path(debugfs), wanted)
}

/// Which pages a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Swappiness {
    /// Anonymous pages. With [`AnonSyntax::TwoHundred`] only *first*: ask for no more pages than are cold and anonymous,
    /// or file pages follow.
    Anon,
    /// File pages, and anonymous ones after `MADV_FREE`.
    File,
    /// Between 1 (file first) and 200 (anonymous first).
    Mixed(u8),
}

/// How this kernel spells [`Swappiness::Anon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum AnonSyntax {
    /// `max`: strictly anonymous pages.
    Max,
    /// `200`: anonymous pages first.
    TwoHundred,
}

/// A command to the generations file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LruGenCommand {
    /// Walk the page tables of the cgroup's processes, put accessed pages of `node` into the newest generation, and
    /// open a new one.
    Age {
        /// The cgroup's id in this file.
        id: u64,
        /// The node.
        node: u32,
        /// The newest generation at present.
        max_seq: u64,
        /// Which pages; anonymous ones without swap only where this says so.
        swappiness: Swappiness,
        /// Walk even where the kernel thinks it not worth while, and when there are four generations already.
        force_scan: bool,
    },
    /// Reclaim (demote, where the kernel may) generations up to `seq`.
    Evict {
        /// The cgroup's id in this file.
        id: u64,
        /// The node.
        node: u32,
        /// The newest generation to take; at most two below the newest there is.
        seq: u64,
        /// Which pages.
        swappiness: Swappiness,
        /// At most so many pages, overshot by up to one batch of 64 or one large folio. Must not be 0 by mistake: the
        /// kernel takes it literally.
        pages: u64,
    },
}

impl LruGenCommand {
    fn append(&self, syntax: AnonSyntax, text: &mut String) {
        let spell = |swappiness| match (swappiness, syntax) {
            (Swappiness::Anon, AnonSyntax::Max) => "max".to_owned(),
            (Swappiness::Anon, AnonSyntax::TwoHundred) => "200".to_owned(),
            (Swappiness::File, _) => "0".to_owned(),
            (Swappiness::Mixed(value), _) => value.clamp(1, 200).to_string(),
        };
        // Writing to a String does not fail.
        let _ = match *self {
            Self::Age { id, node, max_seq, swappiness, force_scan } => {
                writeln!(text, "+ {id} {node} {max_seq} {} {}", spell(swappiness), u8::from(force_scan))
            }
            Self::Evict { id, node, seq, swappiness, pages } => {
                writeln!(text, "- {id} {node} {seq} {} {pages}", spell(swappiness))
            }
        };
    }
}

/// What came of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LruGenWritten {
    /// All were carried out. An eviction may still have moved less than asked: compare the counts.
    Done,
    /// Another aged the cgroup first; nothing is lost.
    LostRace,
    /// There are four generations and the command did not force a scan.
    NoFreeGeneration,
    /// The cgroup, node or generation is not there any more. Read the file again.
    Stale,
    /// A signal came. Work done so far stands.
    Interrupted,
}

/// Writes commands to `lru_gen` of debugfs, in order and in one system call. The kernel stops at the first that it refuses
/// and does not say which: give one where that matters. Blocks while it works; not for an async thread.
pub fn write_lru_gen(
    debugfs: &Path,
    syntax: AnonSyntax,
    commands: &[LruGenCommand],
) -> Result<LruGenWritten> {
    let mut text = String::with_capacity(commands.len() * 48);
    for command in commands {
        command.append(syntax, &mut text);
    }
    if text.is_empty() {
        return Ok(LruGenWritten::Done);
    }
    let path = lru_gen_path(debugfs);
    let Err(source) = file::write_bytes(&path, text.as_bytes()) else { return Ok(LruGenWritten::Done) };
    match source.raw_os_error() {
        Some(libc::EEXIST) => Ok(LruGenWritten::LostRace),
        Some(libc::ERANGE) => Ok(LruGenWritten::NoFreeGeneration),
        Some(libc::EINVAL) => Ok(LruGenWritten::Stale),
        Some(libc::EINTR) => Ok(LruGenWritten::Interrupted),
        _ => Err(Error::io_of_host(&path, "write", source)),
    }
}

/// Finds how the generations file spells strictly anonymous: asks the root cgroup to age a generation of the past,
/// which the kernel accepts without doing anything. `None` where the file takes neither spelling.
pub fn probe_anon_syntax(debugfs: &Path) -> Result<Option<AnonSyntax>> {
    let mut root = LruGen::default();
    read_lru_gen_of(debugfs, &mut root, |_, path| path == "/")?;
    let Some((id, node)) = root.memcgs().next().and_then(|memcg| Some((memcg.id(), memcg.nodes().next()?.0)))
    else {
        return Ok(None);
    };
    let past = LruGenCommand::Age { id, node, max_seq: 0, swappiness: Swappiness::Anon, force_scan: false };
    for syntax in [AnonSyntax::Max, AnonSyntax::TwoHundred] {
        match write_lru_gen(debugfs, syntax, &[past])? {
            LruGenWritten::Stale => {}
            _ => return Ok(Some(syntax)),
        }
    }
    Ok(None)
}

/// `kernel/mm/lru_gen/enabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LruGenEnabled(u16);

impl LruGenEnabled {
    /// Everything that the processor supports.
    pub const ALL: Self = Self(0x7);

    /// The LRU with generations is the one in use.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0 & 0x1 != 0
    }

    /// Aging clears accessed bits of page tables in batches.
    #[must_use]
    pub fn walks_page_tables(self) -> bool {
        self.0 & 0x2 != 0
    }

    /// Aging also reads and clears accessed bits of page table directories.
    #[must_use]
    pub fn clears_directories(self) -> bool {
        self.0 & 0x4 != 0
    }

    /// The same, but with those of directories left alone.
    #[must_use]
    pub fn without_directories(self) -> Self {
        Self(self.0 & !0x4)
    }
}

impl std::fmt::Display for LruGenEnabled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// Whether a walk for one node hides touches of another node's memory while the kernel clears accessed bits of directories: before 6.12 also a
/// forced walk leaves out what is below a directory without its accessed bit, which the walk before it took away ("mm: multi-gen LRU: ignore
/// non-leaf `pmd_young` for `force_scan`=true").
pub fn walks_hide_touches(proc: &Path) -> Result<bool> {
    let path = proc.join("sys/kernel/osrelease");
    let Some(release) = file::read_if_there(&path)? else { return Ok(false) };
    let mut numbers = release.trim_end().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) < (6, 12)),
        _ => Err(Error::malformed(&path, 1, release.trim_end())),
    }
}

/// Reads `kernel/mm/lru_gen/enabled`; `None` where the kernel has no generations.
pub fn read_lru_gen_enabled(sys: &Path) -> Result<Option<LruGenEnabled>> {
    let path = sys.join("kernel/mm/lru_gen/enabled");
    file::read_if_there(&path)?.map(|text| lru_gen_enabled(&text, &path)).transpose()
}

/// The text of `kernel/mm/lru_gen/enabled`; `path` is for errors.
pub fn lru_gen_enabled(text: &str, path: &Path) -> Result<LruGenEnabled> {
    let text = text.trim_end();
    let bits = text.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
    bits.map(LruGenEnabled).ok_or_else(|| Error::malformed(path, 1, text))
}

/// Writes `kernel/mm/lru_gen/enabled`. Switching it on or off walks all pages of the host.
pub fn write_lru_gen_enabled(sys: &Path, enabled: LruGenEnabled) -> Result<()> {
    file::write(&sys.join("kernel/mm/lru_gen/enabled"), &format!("{:#06x}", enabled.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    const POD: &str = "\
memcg     1 /
 node     0
          0      15032          0           0 
          1      15032          0           0 
          2      15032        725           0 
          3      15032          0           0 
 node     1
          0      15032          0           0 
          3      15032         -0          -5 
memcg    28 /pod with space
 node     0
          1       8276          0        1020 
          2       8276       3090           0 
";

    fn read(text: &str, wanted: impl FnMut(u64, &str) -> bool) -> Result<LruGen> {
        let (_dir, roots) = tree(&[("debug/lru_gen", text)]);
        let mut all = LruGen::default();
        read_lru_gen_of(&roots.debugfs, &mut all, wanted)?;
        Ok(all)
    }

    #[test]
    fn every_cgroup_has_its_nodes_and_generations() {
        let all = read(POD, |_, _| true).unwrap();
        let shape: Vec<_> = all
            .memcgs()
            .map(|memcg| {
                (memcg.id(), memcg.path(), memcg.nodes().map(|(id, g)| (id, g.len())).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(shape, [(1, "/", vec![(0, 4), (1, 2)]), (28, "/pod with space", vec![(0, 2)])]);
        let pod = all.memcg("/pod with space").unwrap();
        assert_eq!(
            pod.node(0)[1],
            Generation { seq: 2, birth_age_ms: 8276, anon_pages: 3090, file_pages: 0 }
        );
        assert!(pod.node(1).is_empty());
        assert_eq!(all.memcg("/").unwrap().node(1)[1].file_pages, 0, "below zero is zero");
    }

    #[test]
    fn only_wanted_cgroups_are_kept() {
        let all = read(POD, |id, _| id == 28).unwrap();
        assert_eq!(all.memcgs().map(|memcg| memcg.path()).collect::<Vec<_>>(), ["/pod with space"]);
        assert_eq!(all.memcg("/pod with space").unwrap().node(0).len(), 2);
    }

    #[test]
    fn a_reading_replaces_the_one_before() {
        let (_dir, roots) = tree(&[("debug/lru_gen", POD)]);
        let mut all = LruGen::default();
        read_lru_gen(&roots.debugfs, &mut all).unwrap();
        read_lru_gen(&roots.debugfs, &mut all).unwrap();
        assert_eq!(all.memcgs().len(), 2);
    }

    #[test]
    fn a_line_of_another_format_is_named() {
        for (text, line) in [
            ("memcg x /\n", 1),
            ("memcg 1 /\n node 0\n 0 1 2\n", 3),
            ("memcg 1 /\n 0 1 2 3\n", 2),
            ("memcg 1 /\n node 0\nmemcg 2 /a\n 0 1 2 3\n", 4),
            ("memcg 1 /\n node\n", 2),
            ("memcg 1 /\n node 0\n 0 1 2 3x4\n", 3),
        ] {
            let error = read(text, |_, _| true).unwrap_err().to_string();
            assert!(error.contains(&format!("lru_gen:{line}: ")), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_cgroup_whose_name_is_no_text_hides_no_other() {
        let (dir, roots) = tree(&[("debug/x", "")]);
        let text = [b"memcg 7 /a\xff\n node 0\n 0 9 1 2\n".as_slice(), POD.as_bytes()].concat();
        std::fs::write(dir.path().join("debug/lru_gen"), text).unwrap();
        let mut all = LruGen::default();
        read_lru_gen(&roots.debugfs, &mut all).unwrap();
        assert_eq!(all.memcgs().map(|memcg| memcg.path()).collect::<Vec<_>>(), ["/", "/pod with space"]);
        assert_eq!(all.memcg("/").unwrap().node(0).len(), 4);
    }

    #[test]
    fn a_debugfs_that_is_unmounted_is_no_cgroup_that_is_gone() {
        let (_dir, roots) = tree(&[("debug/x", "")]);
        let age =
            LruGenCommand::Age { id: 1, node: 0, max_seq: 3, swappiness: Swappiness::Anon, force_scan: true };
        let errors = [
            read_lru_gen(&roots.debugfs, &mut LruGen::default()).unwrap_err(),
            write_lru_gen(&roots.debugfs, AnonSyntax::Max, &[age]).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.is_gone(), error.errno()), (false, Some(libc::ENOENT)), "{error}");
        }
    }

    #[test]
    fn a_thousand_cgroups_are_read_without_an_allocation_each() {
        let mut text = String::new();
        for id in 0..1000 {
            let _ = writeln!(text, "memcg {id} /kubepods.slice/pod{id}");
            for node in 0..2 {
                let _ = writeln!(text, " node {node}\n 0 9 1 2\n 1 8 3 4\n 2 7 5 6\n 3 6 7 8");
            }
        }
        let all = read(&text, |_, _| true).unwrap();
        assert_eq!((all.memcgs().len(), all.nodes.len(), all.generations.len()), (1000, 2000, 8000));
        assert_eq!(all.memcg("/kubepods.slice/pod999").unwrap().node(1)[3].file_pages, 8);
    }

    #[test]
    fn commands_are_spelled_as_the_kernel_takes_them() {
        let age = LruGenCommand::Age {
            id: 28,
            node: 0,
            max_seq: 3,
            swappiness: Swappiness::Anon,
            force_scan: true,
        };
        let evict =
            LruGenCommand::Evict { id: 28, node: 0, seq: 1, swappiness: Swappiness::Anon, pages: 25600 };
        for (syntax, expected) in [
            (AnonSyntax::Max, "+ 28 0 3 max 1\n- 28 0 1 max 25600\n"),
            (AnonSyntax::TwoHundred, "+ 28 0 3 200 1\n- 28 0 1 200 25600\n"),
        ] {
            let (_dir, roots) = tree(&[("debug/lru_gen", "")]);
            let written = write_lru_gen(&roots.debugfs, syntax, &[age, evict]).unwrap();
            assert_eq!(written, LruGenWritten::Done);
            assert_eq!(std::fs::read_to_string(lru_gen_path(&roots.debugfs)).unwrap(), expected);
        }
    }

    #[test]
    fn enabled_is_a_set_of_capabilities() {
        let (_dir, roots) = tree(&[("sys/kernel/mm/lru_gen/enabled", "0x0003\n")]);
        let enabled = read_lru_gen_enabled(&roots.sys).unwrap().unwrap();
        assert!(enabled.is_on() && enabled.walks_page_tables() && !enabled.clears_directories());
        write_lru_gen_enabled(&roots.sys, LruGenEnabled::ALL).unwrap();
        assert_eq!(read_lru_gen_enabled(&roots.proc).unwrap(), None);
        assert_eq!(LruGenEnabled::ALL.without_directories(), enabled);
        assert_eq!(enabled.to_string(), "0x0003");
    }

    #[test]
    fn walks_hide_touches_before_6_12() {
        for (release, hide) in [
            ("6.1.0-50-amd64", true),
            ("6.8.0-31-generic", true),
            ("6.12.9", false),
            ("6.12-rc1", false),
            ("7.2.13", false),
        ] {
            let (_dir, roots) = tree(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(walks_hide_touches(&roots.proc).unwrap(), hide, "{release}");
        }
        let (_dir, roots) = tree(&[("proc/sys/kernel/osrelease", "six\n")]);
        assert!(walks_hide_touches(&roots.proc).is_err());
    }
}
