//! What only newer servers have.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use kube::Client;

/// Says that something was not tried, past the capture of tests' output: a green run must not look as if it had been.
pub fn not_run(what: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}; name a newer server by THERMOCLINE_KUBE_CACHE");
}

/// A minor version as servers say it: some vendors put a `+` behind it.
pub(crate) fn minor(text: &str) -> Result<u32> {
    text.trim_end_matches('+').parse().with_context(|| format!("the minor version `{text}`"))
}

/// Whether the server is Kubernetes 1.`wanted` or later. Says what is not run where it is older.
///
/// # Errors
/// When it does not say its version.
pub async fn is_at_least(client: &Client, wanted: u32, what: &str) -> Result<bool> {
    let version = client.apiserver_version().await?;
    let is = minor(&version.minor)? >= wanted;
    if !is {
        not_run(&format!("{what}: it needs Kubernetes 1.{wanted}, and this is {}", version.git_version));
    }
    Ok(is)
}
