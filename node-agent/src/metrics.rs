//! `/metrics`: the last [`Snapshot`] in Prometheus' text format. Its families are declared in [`families`].

mod families;

use std::sync::Arc;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use telemetry::Process;
use telemetry::metrics::Family;

use crate::snapshot::{Published, Snapshot};

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

fn all_families() -> impl Iterator<Item = &'static Family<Scrape>> {
    families::GROUPS.iter().flat_map(|group| group.families)
}

/// Makes a scrape of what the loop published last.
pub struct Metrics {
    published: Published,
    descs: Vec<Desc>,
}

impl Metrics {
    /// Metrics of what `published` holds at each scrape. Fails if two families contradict each other, which the tests
    /// exclude.
    pub fn new(published: Published) -> prometheus::Result<Self> {
        let descs = all_families().map(Family::desc).collect::<prometheus::Result<_>>()?;
        Ok(Self { published, descs })
    }

    /// A registry of its own with these metrics in it, for a process that has more to tell.
    pub fn registry(published: Published) -> prometheus::Result<Registry> {
        let registry = Registry::new();
        registry.register(Box::new(Self::new(published)?))?;
        Ok(registry)
    }

    /// The text of one scrape.
    pub fn text(&self) -> prometheus::Result<String> {
        telemetry::metrics::text(families::GROUPS, &self.scrape())
    }

    fn scrape(&self) -> Scrape {
        Scrape { snapshot: self.published.latest(), process: Process::read() }
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let scrape = self.scrape();
        all_families().map(|family| family.read(&scrape)).collect()
    }
}

/// The text of `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let introduction = "# Metrics of the agent\n\n\
        Served at `/metrics` in Prometheus' text format. Made from the code: `cargo xtask codegen` rewrites this \
        page. Those of the controller are in [metrics-controller.md](metrics-controller.md).\n\n\
        Series with a `cgroup` label go with their cgroup; the node's totals keep what it did. Under Kubernetes they \
        have the labels `namespace` and `pod` as well, so set `honor_labels: true` in scrape configurations. A label \
        that does not apply is absent.\n";
    telemetry::metrics::reference(introduction, families::GROUPS, families::LABELS)
}

#[cfg(test)]
mod tests;
