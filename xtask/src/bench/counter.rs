//! The counter of misses in the emulator: built, asked for, read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use misses::cache::Cache;
use misses::line::Line;
use thermocline_tests::bench::told::Told;
use thermocline_tests::scenario::Scenario;

use crate::guest_image::root;
use crate::qemu::Guest;
use crate::say;
use crate::vm::{Guests, Outcome};

/// The model of the last-level cache.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct CacheArgs {
    /// KiB of the modelled last-level cache: small beside the guest's memory, as on a server
    #[arg(long, value_name = "KIB", default_value_t = 2048)]
    llc_kib: u64,
    /// Its ways
    #[arg(long, value_name = "N", default_value_t = 16)]
    llc_ways: usize,
}

impl CacheArgs {
    pub(super) const DEFAULT: Self = Self { llc_kib: 2048, llc_ways: 16 };

    pub(super) fn describe(self) -> String {
        format!("{} KiB, {} ways, lines of 64 bytes", self.llc_kib, self.llc_ways)
    }
}

/// The plugin, built.
pub(super) struct Counter {
    plugin: PathBuf,
    cache: CacheArgs,
}

/// What a guest told and what was counted meanwhile.
pub(super) struct Counted {
    pub(super) outcome: Outcome,
    pub(super) told: Vec<Told>,
    pub(super) lines: Vec<Line>,
}

impl Counter {
    pub(super) fn build(cache: CacheArgs) -> Result<Self> {
        // Refused here rather than by the emulator.
        Cache::new(cache.llc_kib << 10, cache.llc_ways).map_err(anyhow::Error::msg)?;
        let target = root().join("target/plugin");
        let mut build = Command::new("cargo");
        // The emulator loads it: it is linked as usual, unlike the guest's binaries.
        build.args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "misses-plugin",
            "--profile",
            "guest",
            "--target-dir",
        ]);
        let status = build.arg(&target).current_dir(root()).status().context("cargo")?;
        ensure!(status.success(), "the emulator's plugin does not build");
        Ok(Self { plugin: target.join("guest/libmisses_plugin.so"), cache })
    }

    /// Boots a guest with the counter in the emulator, until it ends.
    pub(super) fn run(
        &self,
        guests: &Guests,
        bench: &'static Scenario,
        mut guest: Guest,
        mut show: impl FnMut(&str),
    ) -> Result<Counted> {
        let out = guests.cache().join(format!("{}-{}.jsonl", guest.name, std::process::id()));
        // As the emulator numbers memory, that of the fast nodes comes first.
        let kind = guest.machine.kind;
        let fast = kind.fast_nodes().into_iter().map(|node| kind.nodes[node].bytes).sum();
        guest.plugin = Some(self.options(&out, fast));
        let mut told = Vec::new();
        let outcome = guests.run(bench, &guest, |line| match Told::parse(line) {
            Some(line) => told.push(line),
            None => show(line),
        })?;
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let _ = std::fs::remove_file(&out);
        let lines = Line::parse_all(&text).map_err(anyhow::Error::msg).context("the counter's lines")?;
        if lines.is_empty() && outcome.pass() {
            say!("the emulator's plugin wrote nothing: was this QEMU built without plugins?");
        }
        Ok(Counted { outcome, told, lines })
    }

    fn options(&self, out: &Path, fast: u64) -> String {
        // In an option's value a comma is written twice.
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        format!(
            "file={},out={},fast={},size={},ways={}",
            path(&self.plugin),
            path(out),
            fast,
            self.cache.llc_kib << 10,
            self.cache.llc_ways
        )
    }
}

/// A benchmark's part in guests.
pub(super) fn bench(name: &str) -> Result<&'static Scenario> {
    Scenario::find(name).with_context(|| format!("the guest has no {name}"))
}
