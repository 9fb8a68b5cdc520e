//! Pressure triggers: the kernel says when a cgroup's tasks stood still for too long, so that nobody has to poll.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

/// What tasks wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `memory.pressure`.
    Memory,
    /// `io.pressure`.
    Io,
}

impl Resource {
    /// The pressure file's name.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
        }
    }
}

/// How many tasks stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// At least one.
    Some,
    /// All.
    Full,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Some => "some",
            Self::Full => "full",
        })
    }
}

/// An armed trigger. Fires at most once per window; disarmed when dropped.
#[derive(Debug)]
pub struct PsiTrigger {
    file: OwnedFd,
    path: PathBuf,
}

/// What became of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerState {
    /// Nothing happened.
    Quiet,
    /// Tasks stood still for longer than the threshold.
    Fired,
    /// The cgroup was removed; drop the trigger.
    Gone,
}

impl PsiTrigger {
    /// Fires when tasks stood still for `stall` within any `window`.
    ///
    /// `window` is 500 ms to 10 s (shorter from 6.5 on), `stall` at most `window`. Without `CAP_SYS_RESOURCE`, a multiple
    /// of 2 s.
    ///
    /// # Errors
    /// EINVAL outside these ranges; [`Error::Unsupported`] where pressure accounting is off.
    pub fn arm(
        cgroup: &Cgroup,
        resource: Resource,
        share: Share,
        stall: Duration,
        window: Duration,
    ) -> Result<Self> {
        let path = cgroup.file_path(resource.file());
        let unsupported = || Error::Unsupported {
            what: "pressure accounting",
            reason: format!("{} is not there; boot with psi=1", path.display()),
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::openat(cgroup, resource.file(), flags, Mode::empty()).map_err(
                |error| match error {
                    Errno::NOENT if !cgroup.is_removed() => unsupported(),
                    Errno::OPNOTSUPP => unsupported(),
                    error => Error::io(&path, "open", error),
                },
            )?;
        let trigger = format!("{share} {} {}\n", stall.as_micros(), window.as_micros());
        rustix::io::write(&file, trigger.as_bytes()).map_err(|error| match error {
            Errno::OPNOTSUPP => unsupported(),
            error => Error::io(&path, "arm", error),
        })?;
        Ok(Self { file, path })
    }

    /// For a poll of the caller's own: ready when the trigger fired, in error when the cgroup was removed.
    #[must_use]
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.file, PollFlags::PRI)
    }

    /// The pressure file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl AsFd for PsiTrigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits until any trigger fires or `timeout` passes, and says what became of each, in order.
pub fn wait<'a>(
    triggers: impl IntoIterator<Item = &'a PsiTrigger>,
    timeout: Duration,
) -> Result<Vec<TriggerState>> {
    let mut fds: Vec<PollFd<'_>> = triggers.into_iter().map(PsiTrigger::poll_fd).collect();
    let timeout = Timespec::try_from(timeout).ok();
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        // A signal is no event.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(Error::io(std::path::Path::new("pressure triggers"), "poll", error)),
    }
    Ok(fds.iter().map(|fd| state(fd.revents())).collect())
}

fn state(events: PollFlags) -> TriggerState {
    if events.intersects(PollFlags::ERR | PollFlags::NVAL) {
        TriggerState::Gone
    } else if events.contains(PollFlags::PRI) {
        TriggerState::Fired
    } else {
        TriggerState::Quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{CgroupPath, CgroupRoot};

    #[test]
    fn a_removed_cgroup_wins_over_its_last_pressure() {
        assert_eq!(state(PollFlags::ERR | PollFlags::PRI), TriggerState::Gone);
        assert_eq!(state(PollFlags::PRI), TriggerState::Fired);
        assert_eq!(state(PollFlags::empty()), TriggerState::Quiet);
    }

    #[test]
    fn a_trigger_is_one_line_of_microseconds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("io.pressure"), "").unwrap();
        let cgroup = CgroupRoot::open_unchecked(dir.path()).unwrap().cgroup(&CgroupPath::root()).unwrap();
        let (stall, window) = (Duration::from_millis(150), Duration::from_secs(1));
        PsiTrigger::arm(&cgroup, Resource::Io, Share::Full, stall, window).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("io.pressure")).unwrap(), "full 150000 1000000\n");

        let absent = PsiTrigger::arm(&cgroup, Resource::Memory, Share::Some, stall, window).unwrap_err();
        assert!(matches!(absent, Error::Unsupported { .. }));
    }
}
