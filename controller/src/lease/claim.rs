//! Whether to take a lease. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// What a lease says; its times are only compared with each other, never with a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    holder: Option<String>,
    duration: Duration,
    /// Changes with every renewal.
    version: Option<String>,
}

impl Record {
    pub(super) fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
            duration: seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(super::DURATION, Duration::from_secs),
            version: lease.metadata.resource_version.clone(),
        }
    }
}

/// What was last seen of a lease, and since when.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<(Record, Instant)>);

impl Watch {
    pub(super) fn look(&mut self, record: Option<&Record>, now: Instant) {
        match (record, &self.0) {
            (Some(record), Some((seen, _))) if seen == record => {}
            (record, _) => self.0 = record.map(|record| (record.clone(), now)),
        }
    }
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it, or who does has not renewed it in time: take it.
    Take,
    /// Another holds it.
    Wait,
}

pub(super) fn claim(record: Option<&Record>, seen: &Watch, identity: &str, now: Instant) -> Claim {
    let Some(record) = record else { return Claim::Create };
    match record.holder.as_deref() {
        None => Claim::Take,
        Some(holder) if holder == identity => Claim::Renew,
        Some(_) => {
            let since = seen.0.as_ref().filter(|(seen, _)| seen == record).map_or(now, |(_, since)| *since);
            if now >= since + record.duration { Claim::Take } else { Claim::Wait }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: u32) -> Record {
        Record {
            holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()),
            duration: Duration::from_secs(15),
            version: Some(version.to_string()),
        }
    }

    #[test]
    fn what_nobody_holds_is_taken() {
        let now = Instant::now();
        assert_eq!(claim(None, &Watch::default(), "me", now), Claim::Create);
        assert_eq!(claim(Some(&record("", 1)), &Watch::default(), "me", now), Claim::Take);
        assert_eq!(claim(Some(&record("me", 1)), &Watch::default(), "me", now), Claim::Renew);
    }

    #[test]
    fn a_rival_has_its_whole_time_from_when_we_saw_it_renew() {
        let start = Instant::now();
        let mut seen = Watch::default();
        let mut at = |seconds: u64, version: u32| {
            let now = start + Duration::from_secs(seconds);
            let record = record("rival", version);
            seen.look(Some(&record), now);
            claim(Some(&record), &seen, "me", now)
        };
        // However old the lease says it is: its clock is not ours.
        assert_eq!(at(100, 1), Claim::Wait);
        assert_eq!(at(114, 1), Claim::Wait);
        assert_eq!(at(114, 2), Claim::Wait);
        assert_eq!(at(128, 2), Claim::Wait);
        assert_eq!(at(129, 2), Claim::Take);
    }

    #[test]
    fn what_was_not_looked_at_is_not_taken() {
        let now = Instant::now();
        assert_eq!(claim(Some(&record("rival", 1)), &Watch::default(), "me", now), Claim::Wait);
    }

    #[test]
    fn a_lease_without_a_duration_has_ours() {
        let lease: Lease = serde_json::from_str(
            r#"{ "metadata": { "resourceVersion": "5" }, "spec": { "holderIdentity": "a" } }"#,
        )
        .unwrap();
        assert_eq!(Record::of(&lease), record("a", 5));
    }
}
