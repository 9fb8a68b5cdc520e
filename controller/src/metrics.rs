//! `/metrics`: a [`Snapshot`] in Prometheus' text format. Its families are declared in [`families`].

mod families;

use std::sync::Arc;

use telemetry::Process;

use crate::snapshot::Snapshot;

/// What one scrape reads.
struct Scrape {
    snapshot: Arc<Snapshot>,
    process: Process,
}

impl AsRef<Process> for Scrape {
    fn as_ref(&self) -> &Process {
        &self.process
    }
}

/// The text of one scrape.
pub fn text(snapshot: Arc<Snapshot>) -> prometheus::Result<String> {
    telemetry::metrics::text(families::GROUPS, &Scrape { snapshot, process: Process::read() })
}

/// The text of `docs/metrics-controller.md`.
#[must_use]
pub fn reference() -> String {
    let introduction = "# Metrics of the controller\n\n\
        Served at `/metrics` in Prometheus' text format. Made from the code: `cargo xtask codegen` rewrites this \
        page. Those of the agent are in [metrics.md](metrics.md).\n\n\
        Every replica counts what it sees and does itself; only the one that holds the lease writes.\n";
    telemetry::metrics::reference(introduction, families::GROUPS, families::LABELS)
}

#[cfg(test)]
mod tests;
