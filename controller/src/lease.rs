//! Which of several controllers writes: the holder of a `Lease`.
//!
//! A rival's lease is timed by our own clock, from when we last saw it change, so that clocks may differ; this is client-go's
//! protocol. A holder writes only while its [`Fence`] holds, which ends before any rival may take over: no two write at once.

mod claim;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::owner::Owner;
use claim::{Claim, Record, Watch, claim};

/// The name of the lease.
pub const NAME: &str = "thermocline-controller";
/// A lease that was not renewed for this long may be taken.
pub const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops writing.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries of the holder.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks of those who wait.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);
/// A request that takes longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Until when this process may begin to write. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence {
    since: Instant,
    /// Milliseconds after `since`; 0 is never.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// One that does not hold.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Instant::now(), until: Arc::default() }
    }

    /// Whether a write may begin. It must end within [`DURATION`] less [`RENEW_DEADLINE`].
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        now < self.until()
    }

    /// Until when it holds, as things are.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.since + Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    pub(crate) fn extend(&self, until: Instant) {
        let until = until.saturating_duration_since(self.since).as_millis();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn drop(&self) {
        self.until.store(0, Ordering::Release);
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

/// One who wants the lease.
#[derive(Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    fence: Fence,
    seen: Watch,
    /// Whom a lease of ours belongs to, once that is known.
    owner: watch::Receiver<Option<Owner>>,
}

impl Candidate {
    /// One of this identity, which no other may have, for the lease of this namespace.
    #[must_use]
    pub fn new(leases: Api<Lease>, identity: String, owner: watch::Receiver<Option<Owner>>) -> Self {
        Self { leases, identity, fence: Fence::new(), seen: Watch::default(), owner }
    }

    /// The fence of whoever writes.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Gets and keeps the lease until `stop`, and says each time whether it is held. Returns itself, for [`Self::release`].
    pub async fn run(mut self, stop: CancellationToken, mut announce: impl AsyncFnMut(bool)) -> Self {
        let mut leading = false;
        let mut trouble = Trouble::default();
        loop {
            let outcome = self.step().await;
            match trouble.after(outcome.as_ref().err()) {
                Some(Said::Began(error)) => {
                    tracing::warn!(%error, lease = NAME, "cannot renew or look at the lease; it is tried again each time");
                }
                Some(Said::Ended) => tracing::info!(lease = NAME, "the lease can be read and renewed again"),
                None => {}
            }
            let lapsed = outcome.unwrap_or(false);
            for &news in news(leading, lapsed, self.fence.holds(Instant::now())) {
                leading = news;
                tracing::info!(identity = self.identity, leading, "leadership");
                announce(leading).await;
            }
            let mut pause = if leading { RENEW_INTERVAL } else { WAIT_INTERVAL };
            if leading {
                pause = pause.min(self.fence.until().saturating_duration_since(Instant::now()));
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return self,
            }
        }
    }

    /// Whether the fence did not hold until it was extended.
    async fn step(&mut self) -> Result<bool, String> {
        let begun = Instant::now();
        let lease = request(self.leases.get_opt(NAME)).await?;
        let record = lease.as_ref().map(Record::of);
        self.seen.look(record.as_ref(), Instant::now());
        let taken = match claim(record.as_ref(), &self.seen, &self.identity, Instant::now()) {
            Claim::Wait => {
                // Whoever lost it, lost the right to write.
                self.fence.drop();
                return Ok(false);
            }
            Claim::Create => {
                // Only who makes an object may say whom it belongs to, where a cluster guards that (OpenShift does).
                let Some(owner) = self.owner.borrow().clone() else { return Ok(false) };
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    owner_references: owner.of_release().map(|role| vec![role]),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(self.spec(None)) };
                request(self.leases.create(&PostParams::default(), &lease)).await?
            }
            Claim::Take | Claim::Renew => {
                let Some(mut lease) = lease else { return Ok(false) };
                lease.spec = Some(self.spec(lease.spec.as_ref()));
                // With its resource version: of two who try at once, one fails.
                request(self.leases.replace(NAME, &PostParams::default(), &lease)).await?
            }
        };
        self.seen.look(Some(&Record::of(&taken)), Instant::now());
        let lapsed = !self.fence.holds(Instant::now());
        self.fence.extend(begun + RENEW_DEADLINE);
        Ok(lapsed)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = before.filter(|before| before.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: kept.and_then(|kept| kept.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && kept.is_none())),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease up, so that another need not wait for it to run out. Nothing may be written from here on.
    pub async fn release(self) {
        let held = self.fence.holds(Instant::now());
        self.fence.drop();
        if !held {
            return;
        }
        let released = async {
            let Some(mut lease) = request(self.leases.get_opt(NAME)).await? else { return Ok(()) };
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                request(self.leases.replace(NAME, &PostParams::default(), &lease)).await?;
            }
            Ok::<_, String>(())
        };
        match released.await {
            Ok(()) => tracing::info!(lease = NAME, "released"),
            Err(error) => tracing::warn!(%error, lease = NAME, "not released; it runs out by itself"),
        }
    }
}

/// What kept the last try from its end.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

/// What is said of it.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Began(String),
    Ended,
}

impl Trouble {
    /// What to say after a try. What stays as it is, is said once: one comes by every second.
    fn after(&mut self, error: Option<&String>) -> Option<Said> {
        let said = match error {
            Some(error) if self.0.as_ref() != Some(error) => Some(Said::Began(error.clone())),
            None if self.0.is_some() => Some(Said::Ended),
            _ => None,
        };
        self.0 = error.cloned();
        said
    }
}

/// What to announce to one who heard last whether it leads. Where the fence lapsed and holds again, what was to be written or posted
/// in between was left undone: both are announced.
fn news(leading: bool, lapsed: bool, holds: bool) -> &'static [bool] {
    match (leading, holds) {
        (true, true) if lapsed => &[false, true],
        (false, true) => &[true],
        (true, false) => &[false],
        (true, true) | (false, false) => &[],
    }
}

async fn request<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
    }
}

/// What a server answered, and what to do about it.
fn said(error: &kube::Error) -> String {
    let message = crate::watch::with_causes(error);
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            let message = &status.message;
            format!("{message}: create the namespace of the lease, or name another with --lease-namespace")
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!(
                "{message}: install the chart's Role, which permits leases in the namespace of --lease-namespace"
            )
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_is_named_with_what_to_do() {
        let status = kube::core::Status::failure("namespaces \"thermocline-system\" not found", "NotFound")
            .with_code(404);
        assert_eq!(
            said(&kube::Error::Api(Box::new(status))),
            "namespaces \"thermocline-system\" not found: create the namespace of the lease, or name another with \
             --lease-namespace"
        );
    }

    #[test]
    fn what_stays_as_it_is_is_said_once_and_that_it_ended() {
        let (missing, away) = ("no such namespace".to_owned(), "no answer within 4 s".to_owned());
        let mut trouble = Trouble::default();
        let mut said =
            |error: Option<&String>| (0..100).filter_map(|_| trouble.after(error)).collect::<Vec<_>>();
        assert_eq!(said(None), []);
        assert_eq!(said(Some(&missing)), [Said::Began(missing.clone())]);
        assert_eq!(said(Some(&away)), [Said::Began(away.clone())]);
        assert_eq!(said(None), [Said::Ended]);
        assert_eq!(said(Some(&missing)), [Said::Began(missing.clone())]);
    }

    #[test]
    fn a_fence_that_lapsed_and_holds_again_is_announced_twice() {
        assert_eq!(news(true, true, true), [false, true]);
        assert_eq!(news(true, false, true), [false; 0]);
        assert_eq!(news(true, false, false), [false]);
        // It lapsed again by now.
        assert_eq!(news(true, true, false), [false]);
        // Nobody begins but with a fence that did not hold.
        assert_eq!(news(false, true, true), [true]);
        assert_eq!(news(false, false, false), [false; 0]);
    }
}
