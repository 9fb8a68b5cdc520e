//! `cargo xtask codegen`: the pages of `docs/` and the CRDs, made from the code.
//!
//! Such a page has a test beside the code that it is made from, which compares, or writes where `UPDATE_EXPECT` is set. So no
//! build task needs to link the agent, and `cargo test` alone finds a stale page, too.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::guest_image::root;
use crate::{kube, out};

/// What some tests make.
struct Generated {
    /// Where they are, for `cargo test`. It builds the whole workspace: for one package alone it would build the dependencies
    /// again, with fewer features.
    targets: &'static [&'static str],
    /// The tests, by a part of their names.
    tests: &'static str,
    /// How many tests that are: a renamed one must not look green.
    count: usize,
    files: &'static str,
}

const GENERATED: [Generated; 4] = [
    Generated {
        targets: &["--lib"],
        tests: "metrics::tests::the_reference_is_up_to_date",
        count: 2,
        files: "docs/metrics.md, docs/metrics-controller.md",
    },
    Generated { targets: &["--lib"], tests: "config::reference::", count: 2, files: "docs/configuration.md" },
    Generated {
        targets: &["--lib"],
        tests: "generated::",
        count: 3,
        files: "charts/thermocline/crds, docs/annotations.md, docs/policy.md",
    },
    // Last: it renders the files above.
    Generated {
        targets: &["--test", "manifests"],
        tests: "generated::",
        count: 3,
        files: "deploy/base, deploy/components, charts/thermocline-crds, charts/thermocline/README.md",
    },
];

/// Write or compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only see whether the files are what the code says
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.check {
        return check();
    }
    kube::ensure_tools()?;
    let mut written = true;
    for generated in &GENERATED {
        if test(generated, true)? {
            out!("ok     wrote {}", generated.files);
        } else {
            written = false;
        }
    }
    Ok(written)
}

/// Whether the pages are what the code says.
pub(crate) fn check() -> Result<bool> {
    kube::ensure_tools()?;
    let mut same = true;
    for generated in &GENERATED {
        if !test(generated, false)? {
            out!("FAILED codegen: {} is not what the code says: run `cargo xtask codegen`", generated.files);
            same = false;
        }
    }
    if same {
        out!("ok     codegen");
    }
    Ok(same)
}

fn test(generated: &Generated, write: bool) -> Result<bool> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    // `--lib` names all there are; the plugin links with the emulator only.
    let all = ["test", "--quiet", "--workspace", "--exclude", "misses-plugin"];
    cargo.args(all).args(generated.targets).args(["--", generated.tests]);
    if write {
        cargo.env("UPDATE_EXPECT", "1");
    } else {
        cargo.env_remove("UPDATE_EXPECT");
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let held = output.status.success() && passed(&text) == generated.count;
    if !held {
        out!("{}", text.trim());
    }
    Ok(held)
}

/// How many tests passed, by what `cargo test` printed of each of its programs.
fn passed(text: &str) -> usize {
    let results = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|result| result.split(' ').next()?.parse::<usize>().ok()).sum()
}
