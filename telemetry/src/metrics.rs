//! `/metrics`: families that are declared once, with name, help, type, labels and where their series come from.
//!
//! The scrape and the reference page are both made from the declarations. Series are built anew by each scrape, so what is gone
//! leaves none behind. `S` is what one scrape reads.

use std::collections::HashMap;
use std::fmt::Write as _;

use prometheus::TextEncoder;
use prometheus::core::Desc;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::durations::{BOUNDS, Durations};

/// How a family is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// [`Durations`].
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    const fn wire(self) -> MetricType {
        match self {
            Self::Counter => MetricType::COUNTER,
            Self::Gauge => MetricType::GAUGE,
            Self::Histogram => MetricType::HISTOGRAM,
        }
    }
}

/// Adds the series of one family.
pub type Collect<S> = fn(&S, &mut Series);

/// One family: everything about it.
pub struct Family<S> {
    /// Its name, by Prometheus' conventions.
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    collect: Collect<S>,
}

/// Families that belong together in the reference.
pub struct Group<S: 'static> {
    /// Its heading.
    pub title: &'static str,
    /// In the order of the reference.
    pub families: &'static [Family<S>],
}

/// A gauge.
pub const fn gauge<S>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    collect: Collect<S>,
) -> Family<S> {
    Family { name, help, kind: Kind::Gauge, labels, collect }
}

/// A counter.
pub const fn counter<S>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    collect: Collect<S>,
) -> Family<S> {
    Family { name, help, kind: Kind::Counter, labels, collect }
}

/// A histogram of [`Durations`].
pub const fn histogram<S>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    collect: Collect<S>,
) -> Family<S> {
    Family { name, help, kind: Kind::Histogram, labels, collect }
}

/// The series of one family.
pub struct Series {
    kind: Kind,
    labels: &'static [&'static str],
    metrics: Vec<Metric>,
}

impl Series {
    /// Adds a series to a counter or a gauge; `values` are those of the family's labels, in their order.
    pub fn push(&mut self, values: &[&str], value: f64) {
        let mut metric = self.labelled(values);
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a series to a histogram.
    pub fn push_durations(&mut self, values: &[&str], durations: &Durations) {
        let mut longest = 0;
        let buckets = BOUNDS.iter().zip(durations.counts).map(|(bound, count)| {
            longest += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(longest);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(durations.sum);
        histogram.set_sample_count(durations.counts.iter().sum());
        let mut metric = self.labelled(values);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(values.len(), self.labels.len(), "one value for each of {:?}", self.labels);
        // To Prometheus, an empty label is one that is absent.
        let given = self.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
        let labels = given.map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        Metric::from_label(labels.collect())
    }
}

impl<S> Family<S> {
    /// The family with the series that it has in a scrape.
    pub fn read(&self, scrape: &S) -> MetricFamily {
        let mut series = Series { kind: self.kind, labels: self.labels, metrics: Vec::new() };
        (self.collect)(scrape, &mut series);
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind.wire());
        family.set_metric(series.metrics);
        family
    }

    /// How a registry knows it.
    ///
    /// # Errors
    /// When a name is none to Prometheus.
    pub fn desc(&self) -> prometheus::Result<Desc> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }
}

/// The text of one scrape. Family by family: all families of a thousand cgroups at once are 5 MiB.
///
/// # Errors
/// When a family is none to Prometheus, which the tests exclude.
pub fn text<S>(groups: &[Group<S>], scrape: &S) -> prometheus::Result<String> {
    let mut text = String::new();
    for family in groups.iter().flat_map(|group| group.families) {
        let family = family.read(scrape);
        if !family.get_metric().is_empty() {
            TextEncoder::new().encode_utf8(std::slice::from_ref(&family), &mut text)?;
        }
    }
    Ok(text)
}

/// The reference page of the families: an introduction, a table for each group, and what the labels mean.
#[must_use]
pub fn reference<S>(introduction: &str, groups: &[Group<S>], labels: &[(&str, &str)]) -> String {
    let mut page = introduction.to_owned();
    for group in groups {
        let _ =
            write!(page, "\n## {}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", group.title);
        for Family { name, help, kind, labels, .. } in group.families {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(page, "| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", "));
        }
    }
    page.push_str("\n## Labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in labels {
        let _ = writeln!(page, "| `{label}` | {values} |");
    }
    page
}

/// What of the declarations breaks the conventions of Prometheus or of the references; empty where all is well.
///
/// Names say base units, counters alone end in `_total`, help is a sentence that a table can hold, labels are explained and used.
#[must_use]
pub fn unconventional<S>(groups: &[Group<S>], labels: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |name: &str, holds: bool, what: &str| {
        if !holds {
            found.push(format!("{name}: {what}"));
        }
    };
    let families = || groups.iter().flat_map(|group| group.families);
    for Family { name, help, kind, .. } in families() {
        complain(name, name.starts_with("thermocline_") || name.starts_with("process_"), "prefix");
        complain(name, name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "characters");
        complain(name, (*kind == Kind::Counter) == name.ends_with("_total"), "_total is for counters");
        complain(name, *kind != Kind::Histogram || name.ends_with("_seconds"), "durations are in seconds");
        for unit in ["_ms", "milli", "_kib", "_mib", "minute", "percent", "_count", "_sum", "_bucket"] {
            complain(name, !name.contains(unit), "no base unit, or a reserved ending");
        }
        complain(name, help.ends_with('.') && !help.contains('|'), "help is a sentence in a table");
    }
    let used: Vec<&str> = families().flat_map(|family| family.labels).copied().collect();
    let explained: Vec<&str> = labels.iter().map(|(label, _)| *label).collect();
    for label in &used {
        complain(label, explained.contains(label), "the label is not explained");
    }
    for label in &explained {
        complain(label, used.contains(label), "the label is not used");
    }
    found
}
