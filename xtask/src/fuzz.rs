//! `cargo xtask fuzz`: the fuzz targets, on the one stable toolchain.
//!
//! libFuzzer needs no nightly compiler: coverage comes from LLVM's own pass, switched on by the same flags that cargo-fuzz
//! passes. Only address sanitizing needs nightly, and there is next to no unsafe code to find with it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use xtask_front::quiet;

use crate::guest_image::root;
use crate::{out, say, tools};

/// Targets at a time. Each keeps one CPU busy.
const TARGETS_AT_A_TIME: usize = 2;

/// How a crate is compiled so that libFuzzer sees where its inputs lead.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One target; without it all of them
    target: Option<String>,
    /// Run the target once on each of these files instead, for example on one of fuzz/artifacts
    inputs: Vec<PathBuf>,
    /// How long each target runs
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let all = targets()?;
    let targets = match &args.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target is named {name}; there are {}", all.join(", ")),
    };
    let binaries = build()?;
    if let (Some(target), false) = (&args.target, args.inputs.is_empty()) {
        return Ok(Command::new(binaries.join(target)).args(&args.inputs).status()?.success());
    }
    let failed = run_targets(&targets, &binaries, args.seconds)?;
    Ok(failed == 0)
}

/// Builds and runs all targets; how many passed and how many failed.
pub(crate) fn run_all(seconds: u32) -> Result<(usize, usize)> {
    let targets = targets()?;
    let failed = run_targets(&targets, &build()?, seconds)?;
    Ok((targets.len() - failed, failed))
}

/// The targets by name: the files of `fuzz/targets`.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz/targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.push(path.file_stem().context("a target without a name")?.to_string_lossy().into_owned());
        }
    }
    ensure!(!names.is_empty(), "{} has no targets", dir.display());
    names.sort();
    Ok(names)
}

/// Builds the targets and returns where they are.
fn build() -> Result<PathBuf> {
    tools::ensure(&[&tools::CXX, &tools::SETPRIV])?;
    let triple = host_triple()?;
    let fuzz = root().join("fuzz");
    say!("building the fuzz targets");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--bins", "--target", &triple]);
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    // With a target of its own build scripts and macros are compiled without the flags.
    cargo.arg("--manifest-path").arg(fuzz.join("Cargo.toml")).arg("--target-dir").arg(fuzz.join("target"));
    cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let _progress = quiet::talks();
    ensure!(cargo.status().context("cargo")?.success(), "the fuzz targets do not build");
    Ok(fuzz.join("target").join(triple).join("release"))
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let triple = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(triple.context("rustc -vV does not name its host")?.to_owned())
}

/// Runs targets and prints how each ended; how many failed.
fn run_targets(targets: &[String], binaries: &Path, seconds: u32) -> Result<usize> {
    say!("{} fuzz targets, {TARGETS_AT_A_TIME} at a time, {seconds} s each", targets.len());
    let (next, failed, printing) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(()));
    let work = || -> Result<()> {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = fuzz(target, binaries, seconds)?;
            let _one_at_a_time = printing.lock();
            match ended {
                Ended::Held { runs, edges } => out!("ok     fuzz {target}: {runs} runs, {edges} edges seen"),
                Ended::Failed(report) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    out!("FAILED fuzz {target}\n{report}");
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..TARGETS_AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a fuzzer's thread panicked")))
    })?;
    Ok(failed.into_inner())
}

enum Ended {
    Held { runs: u64, edges: u64 },
    Failed(String),
}

/// Runs one target on its seeds and on what earlier runs found worth keeping.
fn fuzz(target: &str, binaries: &Path, seconds: u32) -> Result<Ended> {
    let fuzz = root().join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    // Ended together with this task, whatever ends it.
    let mut fuzzer = Command::new("setpriv");
    fuzzer.args(["--pdeathsig", "KILL", "--"]).arg(binaries.join(target));
    fuzzer.arg(format!("-max_total_time={seconds}")).args(["-timeout=10", "-rss_limit_mb=1024"]);
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let dictionary = fuzz.join("dictionaries").join(target).with_extension("dict");
    if dictionary.exists() {
        fuzzer.arg(format!("-dict={}", dictionary.display()));
    }
    // New inputs go to the first directory.
    fuzzer.args([corpus, fuzz.join("seeds").join(target)]);
    let mut child = fuzzer
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the fuzz target {target}"))?;

    let mut log = Log::default();
    for line in BufReader::new(child.stderr.take().context("stderr")?).split(b'\n') {
        log.line(&String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;
    Ok(match (status.success(), log.runs, log.edges) {
        (true, Some(runs), Some(edges)) if log.instrumented && runs > 0 => Ended::Held { runs, edges },
        (true, ..) => Ended::Failed(format!(
            "the target ran without seeing coverage: the compiler's flags in xtask/src/fuzz.rs do nothing any more\n{}",
            log.end()
        )),
        (false, ..) => {
            let again = match &log.artifact {
                Some(input) => {
                    format!("\n  to see it again: cargo xtask fuzz {target} {}", input.display())
                }
                None => String::new(),
            };
            Ended::Failed(format!("{}\n  it ended with {status}{again}", log.end()))
        }
    })
}

/// What libFuzzer says that matters here.
#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    instrumented: bool,
    runs: Option<u64>,
    edges: Option<u64>,
    artifact: Option<PathBuf>,
}

impl Log {
    fn line(&mut self, line: &str) {
        if line.contains("inline 8-bit counters") {
            self.instrumented = true;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.trim().into());
        } else if line.starts_with('#') {
            let words: Vec<_> = line.split_whitespace().collect();
            let edges = words.windows(2).find(|pair| pair[0] == "cov:").and_then(|pair| pair[1].parse().ok());
            self.edges = edges.or(self.edges);
            // Progress; a report needs none of it.
            return;
        } else if let Some(rest) = line.strip_prefix("Done ") {
            self.runs = rest.split(' ').next().and_then(|runs| runs.parse().ok());
        }
        if self.last.len() == 40 {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    fn end(&self) -> String {
        let lines: Vec<_> = self.last.iter().map(|line| format!("  {line}")).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, targets};

    #[test]
    fn a_log_tells_of_runs_edges_and_what_was_found() {
        let mut log = Log::default();
        for line in [
            "INFO: Loaded 1 modules   (161 inline 8-bit counters): 161 [0x1, 0x2),",
            "#2\tINITED cov: 8 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb",
            "#210\tNEW    cov: 9 ft: 9 corp: 2/7b lim: 6 exec/s: 0 rss: 27Mb L: 6/6 MS: 3 ChangeBit-",
            "Done 17910235 runs in 16 second(s)",
            "artifact_prefix='/a/'; Test unit written to /a/crash-1",
        ] {
            log.line(line);
        }
        assert!(log.instrumented && log.end().contains("Done"));
        assert_eq!((log.runs, log.edges), (Some(17_910_235), Some(9)));
        assert_eq!(log.artifact.as_deref(), Some("/a/crash-1".as_ref()));
    }

    #[test]
    fn every_target_has_seeds_and_is_built() {
        let manifest = std::fs::read_to_string(crate::guest_image::root().join("fuzz/Cargo.toml")).unwrap();
        for target in targets().unwrap() {
            let seeds = crate::guest_image::root().join("fuzz/seeds").join(&target);
            assert!(seeds.read_dir().is_ok_and(|mut seeds| seeds.next().is_some()), "{target}");
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
        }
    }
}
