//! A gate before a file: a process that opens it waits until it is let through, so it can be ended at a known point of its
//! work. By fanotify's permission events, which every kernel of ours has for all files but those of /proc.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::CWD;

/// While it lives, whoever opens the file waits for [`Gate::wait`]; this process too, so it must not open the file itself.
/// Dropping it lets everybody through.
pub struct Gate {
    group: Fanotify,
    arrived: Vec<FanotifyEvent>,
}

/// An open that waits.
pub struct Held<'a> {
    group: &'a Fanotify,
    event: FanotifyEvent,
}

impl Gate {
    /// Before a file, or before a directory and all files directly in it.
    pub fn before(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )
        .context("fanotify")?;
        let mut mask = MaskFlags::FAN_OPEN_PERM;
        if path.is_dir() {
            mask |= MaskFlags::FAN_ONDIR | MaskFlags::FAN_EVENT_ON_CHILD;
        }
        group
            .mark(MarkFlags::FAN_MARK_ADD, mask, CWD, Some(path))
            .with_context(|| format!("a gate before {}", path.display()))?;
        Ok(Self { group, arrived: Vec::new() })
    }

    /// Holds the first open by process `pid` of which `this_one` says yes; lets all others through meanwhile. `None` when
    /// there was none in time.
    pub fn wait(
        &mut self,
        pid: u32,
        within: Duration,
        mut this_one: impl FnMut() -> Result<bool>,
    ) -> Result<Option<Held<'_>>> {
        let began = Instant::now();
        while began.elapsed() < within {
            if self.arrived.is_empty() {
                let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                rustix::event::poll(&mut [PollFd::new(&self.group, PollFlags::IN)], Some(&timeout))?;
                self.arrived = match self.group.read_events() {
                    Ok(events) => events,
                    Err(Errno::EAGAIN) => continue,
                    Err(error) => bail!("fanotify: {error}"),
                };
                self.arrived.reverse();
            }
            let Some(event) = self.arrived.pop() else { continue };
            let held = Held { group: &self.group, event };
            if u32::try_from(held.event.pid()) == Ok(pid) && this_one()? {
                return Ok(Some(held));
            }
            held.release()?;
        }
        Ok(None)
    }
}

impl Held<'_> {
    /// Lets it through.
    pub fn release(self) -> Result<()> {
        let fd = self.event.fd().context("fanotify lost an event")?;
        Ok(self.group.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW))?)
    }
}
