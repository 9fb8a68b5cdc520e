//! What the service manager is told, where one started the agent (`Type=notify-reload` or `Type=notify`).
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is logged and no more: the service manager
//! has its own time limits for messages that do not come.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells the service manager how the agent is.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    every: Duration,
    last: Option<Instant>,
}

impl ServiceManager {
    /// The service manager that started this process, if one did.
    #[must_use]
    pub fn from_env() -> Self {
        // Half the limit, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().map(|limit| Watchdog { every: limit / 2, last: None });
        Self { watchdog }
    }

    /// How long the loop may sleep before [`Self::alive`] is due; `None` without a watchdog.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.every)
    }

    /// The agent is up, or a reload is done; `status` is one line for `systemctl status`.
    pub fn ready(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The agent is reloading its configuration; [`Self::ready`] must follow, whether it was accepted or not.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            // Since version 253 systemd fails a reload that does not tell the time.
            Ok(time) => send(&[NotifyState::Reloading, time]),
            Err(error) => {
                tracing::warn!(%error, "cannot read the clock to tell the service manager of a reload");
            }
        }
    }

    /// The agent is putting values back before it ends, which may take up to `at_most`.
    pub fn stopping(&self, at_most: Duration) {
        let limit = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(limit),
            NotifyState::Status("putting back what was changed"),
        ]);
    }

    /// The loop made a round. To be called from the loop and nowhere else, else the watchdog watches nothing.
    pub fn alive(&mut self, now: Instant) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.due(now)) {
            send(&[NotifyState::Watchdog]);
        }
    }
}

impl Watchdog {
    /// Whether to send now; rounds more frequent than half of `every` are not all worth a message.
    fn due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) * 2 >= self.every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot reach the service manager; does the unit have NotifyAccess=main?");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_rounds_make_few_messages_and_none_comes_late() {
        let start = Instant::now();
        let mut watchdog = Watchdog { every: Duration::from_secs(10), last: None };
        let sent: Vec<u64> =
            (0..20).filter(|second| watchdog.due(start + Duration::from_secs(*second))).collect();
        assert_eq!(sent, [0, 5, 10, 15]);
    }

    #[test]
    fn long_rounds_send_each_time() {
        let start = Instant::now();
        let mut watchdog = Watchdog { every: Duration::from_secs(10), last: None };
        assert!((0..5).all(|round| watchdog.due(start + Duration::from_secs(round * 9))));
    }
}
