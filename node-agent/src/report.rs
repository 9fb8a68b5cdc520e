//! `report`: what a day's record says of savings, and the policy that follows from it.
//!
//! [`Report::of`] computes, without a clock or a file; [`tables`] puts it into words that text, Markdown and HTML share; [`html`] draws;
//! [`proposal`] writes the policy.

mod html;
mod proposal;
mod tables;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::args::{ReportArgs, ReportForm};
use crate::exit::{Cause, ExitCode, Failure, printed};
use crate::record::{self, AGES, Held, RecordError, Sample};

pub use proposal::Proposal;

/// Without a sample for so long, in seconds, no agent ran.
const GAP: u64 = 11 * 60;

/// What a GiB costs, in any money and for any time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Price {
    /// Of DRAM.
    pub dram: f64,
    /// Of slower memory.
    pub slow: f64,
}

impl Price {
    /// What it saves to have these bytes on slow memory in place of DRAM.
    #[must_use]
    pub fn saved(self, bytes: u64) -> f64 {
        bytes as f64 / f64::from(1 << 30) * (self.dram - self.slow)
    }
}

impl std::str::FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no price: write what a GiB costs, as in dram=4.20,slow=1.50");
        let (mut dram, mut slow) = (None, None);
        for part in text.split(',') {
            let (tier, price) = part.split_once('=').ok_or_else(wrong)?;
            let price: f64 = price.trim().parse().map_err(|_| wrong())?;
            let price = Some(price).filter(|price| price.is_finite() && *price >= 0.0).ok_or_else(wrong)?;
            match tier.trim() {
                "dram" if dram.is_none() => dram = Some(price),
                "slow" if slow.is_none() => slow = Some(price),
                _ => return Err(wrong()),
            }
        }
        let price = Self { dram: dram.ok_or_else(wrong)?, slow: slow.ok_or_else(wrong)? };
        if price.dram < price.slow {
            return Err(format!("`{text}`: slow memory costs more than DRAM, so nothing is saved"));
        }
        Ok(price)
    }
}

/// Bytes over all samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// On average.
    pub mean: u64,
    /// Least.
    pub least: u64,
    /// Most.
    pub most: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let (mut sum, mut count, mut spread) = (0_u128, 0_u128, Self { least: u64::MAX, ..Self::default() });
        for value in values {
            sum += u128::from(value);
            count += 1;
            (spread.least, spread.most) = (spread.least.min(value), spread.most.max(value));
        }
        if count == 0 {
            return Self::default();
        }
        Self { mean: u64::try_from(sum / count).unwrap_or(u64::MAX), ..spread }
    }
}

/// The least DRAM of each cgroup, for which savings are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// The default: what it works with.
    WorkingSet,
    /// A percentage of its anonymous memory on all tiers.
    Percent(u8),
}

impl Floor {
    /// Those that are computed.
    pub const ALL: [Self; 4] = [Self::WorkingSet, Self::Percent(25), Self::Percent(50), Self::Percent(75)];

    fn bytes(self, held: &Held) -> u64 {
        match self {
            Self::WorkingSet => held.working_set,
            Self::Percent(percent) => held.anon() / 100 * u64::from(percent),
        }
    }
}

/// What a policy would have kept out of DRAM: what is on slow memory already, and what was cold, above the floor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Saving {
    /// `demote.after`, in seconds.
    pub after: u64,
    /// `dram.floor`.
    pub floor: Floor,
    /// Out of DRAM.
    pub bytes: Spread,
    /// What the mean of it saves.
    pub money: Option<f64>,
}

/// A tier over the time of the record.
#[derive(Clone, Debug, Serialize)]
pub struct TierRow {
    /// `dram`, `pmem`...
    pub name: String,
    /// Of its nodes.
    pub capacity: u64,
    /// Used of it.
    pub used: Spread,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Unix time of the first sample, in seconds.
    pub from: u64,
    /// Of the last.
    pub to: u64,
    /// How many.
    pub count: usize,
    /// Seconds in between that no agent ran.
    pub not_running: u64,
    /// Whether a cluster said which policies.
    pub cluster: bool,
    /// What policies could free.
    pub would_free: Spread,
    /// Of how much anonymous memory in DRAM.
    pub dram: Spread,
    /// Anonymous memory on slower tiers of what is enforced.
    pub freed: Spread,
    /// What of that is accessed a minute.
    pub freed_touched: Spread,
    /// What would be of what is only observed; `None` where all is enforced.
    pub would_touch: Option<Spread>,
    /// Fast to slow.
    pub tiers: Vec<TierRow>,
    /// Bytes in DRAM not accessed for each of the ages, in seconds.
    pub cold: Vec<(u64, Spread)>,
    /// By age and floor.
    pub savings: Vec<Saving>,
    /// The mean of each where it was there, with its last policy; the greatest savings first.
    pub cgroups: Vec<Held>,
    /// What a GiB costs.
    pub price: Option<Price>,
    /// What is recommended, if anything is to be saved.
    pub proposal: Option<Proposal>,
    /// What it is made of.
    pub samples: Vec<Sample>,
}

impl Report {
    /// What the samples say; `None` without any.
    #[must_use]
    pub fn of(mut samples: Vec<Sample>, price: Option<Price>) -> Option<Self> {
        // A clock may have been set back.
        samples.sort_by_key(|sample| sample.at);
        let (first, last) = (samples.first()?, samples.last()?);
        let sums: Vec<Held> = samples.iter().map(Sample::sum).collect();
        let spread = |enforced: bool, of: fn(&Held) -> u64| {
            let sum_of = move |sample: &Sample| sum(with_mode(sample, enforced).map(of));
            Spread::of(samples.iter().map(sum_of))
        };
        let is_observed = samples.iter().any(|sample| with_mode(sample, false).next().is_some());
        let saving = |after: usize, floor: Floor| {
            let bytes = Spread::of(samples.iter().map(|sample| saved(sample, after, floor)));
            let money = price.map(|price| price.saved(bytes.mean));
            Saving { after: AGES[after], floor, bytes, money }
        };
        let savings: Vec<Saving> = (0..AGES.len())
            .flat_map(|after| Floor::ALL.map(|floor| (after, floor)))
            .map(|(after, floor)| saving(after, floor))
            .collect();
        let cgroups = means(&samples);
        let gaps = samples.windows(2).map(|two| two[1].at.saturating_sub(two[0].at));
        Some(Self {
            from: first.at,
            to: last.at,
            count: samples.len(),
            not_running: gaps.filter(|gap| *gap > GAP).sum(),
            cluster: last.cluster,
            would_free: Spread::of(samples.iter().map(|sample| sample.would_free)),
            dram: Spread::of(sums.iter().map(|sum| sum.dram)),
            freed: spread(true, |held| held.slow),
            freed_touched: spread(true, |held| held.touched),
            would_touch: is_observed.then(|| spread(false, |held| held.touched)),
            tiers: tier_rows(&samples),
            cold: AGES
                .iter()
                .enumerate()
                .map(|(i, age)| (*age, Spread::of(sums.iter().map(|sum| sum.cold[i]))))
                .collect(),
            proposal: Proposal::of(&savings, &cgroups, last.cluster),
            savings,
            cgroups,
            price,
            samples,
        })
    }

    /// Whether there was slow memory when the record ended. Without it nothing says how much would fit.
    #[must_use]
    pub fn has_slow_tier(&self) -> bool {
        self.samples.last().is_some_and(|sample| slow_tiers(sample).next().is_some())
    }
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

fn with_mode(sample: &Sample, enforced: bool) -> impl Iterator<Item = &Held> {
    sample.cgroups.iter().filter(move |held| held.enforced == enforced)
}

fn slow_tiers(sample: &Sample) -> impl Iterator<Item = &record::TierUse> {
    let dram = sample.tiers.iter().position(|tier| tier.name == "dram").unwrap_or(0);
    sample.tiers.iter().skip(dram + 1)
}

/// Out of DRAM with this policy for all, as far as slow nodes have room for it.
fn saved(sample: &Sample, after: usize, floor: Floor) -> u64 {
    let of = |held: &Held| {
        let most = held.anon().saturating_sub(floor.bytes(held));
        held.slow.saturating_add(held.cold[after]).min(most)
    };
    let all = sum(sample.cgroups.iter().map(of));
    if slow_tiers(sample).next().is_none() {
        return all;
    }
    let free = sum(slow_tiers(sample).map(|tier| tier.capacity.saturating_sub(tier.used)));
    all.min(free.saturating_add(sample.sum().slow))
}

fn tier_rows(samples: &[Sample]) -> Vec<TierRow> {
    let Some(last) = samples.last() else { return Vec::new() };
    let row = |tier: &record::TierUse| TierRow {
        name: tier.name.clone(),
        capacity: tier.capacity,
        used: Spread::of(
            samples
                .iter()
                .flat_map(|sample| &sample.tiers)
                .filter(|same| same.name == tier.name)
                .map(|same| same.used),
        ),
    };
    last.tiers.iter().map(row).collect()
}

fn means(samples: &[Sample]) -> Vec<Held> {
    let mut by_name: std::collections::BTreeMap<&str, Vec<&Held>> = std::collections::BTreeMap::new();
    for held in samples.iter().flat_map(|sample| &sample.cgroups) {
        by_name.entry(&held.name).or_default().push(held);
    }
    let mut means: Vec<Held> = by_name.into_values().filter_map(|all| mean(&all)).collect();
    means.sort_by_key(|held| std::cmp::Reverse((held.would_free.saturating_add(held.slow), held.dram)));
    means
}

fn mean(all: &[&Held]) -> Option<Held> {
    let of = |of: &dyn Fn(&Held) -> u64| Spread::of(all.iter().map(|held| of(held))).mean;
    let means = Held {
        dram: of(&|held| held.dram),
        slow: of(&|held| held.slow),
        would_free: of(&|held| held.would_free),
        touched: of(&|held| held.touched),
        working_set: of(&|held| held.working_set),
        cold: std::array::from_fn(|age| of(&|held| held.cold[age])),
        ..(*all.last()?).clone()
    };
    Some(means)
}

/// Reads the record and prints the report.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let path = record::path_beside(&args.agent.state);
    let samples = record::read(&path).map_err(|error| failure(&error))?;
    let report = Report::of(samples, args.price).ok_or_else(|| {
        let message =
            format!("{} has no sample yet: the first comes a minute after the agent's start", path.display());
        Failure::new(Cause::Told(ExitCode::Unexpected), message)
    })?;
    let text = render(&report, args.output, &TimeZone::system()).map_err(anyhow::Error::from)?;
    printed(std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes()))
}

fn failure(error: &RecordError) -> Failure {
    let aside = match error {
        RecordError::Malformed { .. } | RecordError::Version { .. } => {
            "; an agent that starts keeps it aside as `record.unreadable` and begins another"
        }
        _ => "",
    };
    let denied = matches!(error, RecordError::Io { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied);
    let cause = if denied { Cause::NotPermitted } else { Cause::Told(ExitCode::Unexpected) };
    Failure::new(cause, format!("{error}{aside}"))
}

/// The report in a form, with times of the zone.
///
/// # Errors
/// It can't be drawn.
pub fn render(report: &Report, form: ReportForm, zone: &TimeZone) -> Result<String, RenderError> {
    Ok(match form {
        ReportForm::Table => tables::text(report, zone),
        ReportForm::Markdown => tables::markdown(report, zone),
        ReportForm::Json => serde_json::to_string(report)? + "\n",
        ReportForm::Csv => csv(report)?,
        ReportForm::Html => html::page(report, zone)?,
    })
}

/// Why a report can't be put into a form.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A picture.
    #[error("a picture can't be drawn: {0}")]
    Picture(String),
}

/// A line for each cgroup at each time, in bytes.
fn csv(report: &Report) -> Result<String, RenderError> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let cold = AGES.map(|age| format!("cold_{age}s_bytes"));
    let head = [
        "time",
        "cgroup",
        "policy",
        "enforced",
        "dram_bytes",
        "slow_bytes",
        "working_set_bytes",
        "would_free_bytes",
        "touched_bytes_per_minute",
    ];
    out.write_record(head.into_iter().chain(cold.iter().map(String::as_str)))?;
    for sample in &report.samples {
        for held in &sample.cgroups {
            let numbers = [held.dram, held.slow, held.working_set, held.would_free, held.touched]
                .into_iter()
                .chain(held.cold);
            let words = [
                clock(sample.at, &TimeZone::UTC, "%FT%TZ"),
                held.name.clone(),
                held.policy.clone(),
                held.enforced.to_string(),
            ];
            out.write_record(words.into_iter().chain(numbers.map(|number| number.to_string())))?;
        }
    }
    let bytes = out.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn clock(at: u64, zone: &TimeZone, form: &str) -> String {
    let time = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime(form).to_string()
}

#[cfg(test)]
mod tests;
