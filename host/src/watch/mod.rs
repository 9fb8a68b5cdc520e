//! Notices of change: the cgroup tree, the files this crate writes and who wrote them, stalls.
//!
//! Each watch is one non-blocking descriptor that a thread polls; its `read` returns what there is and never waits.

mod fanotify;
mod inotify;
mod pressure;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;

use crate::error::{Error, Result};

pub use fanotify::{Write, Writer, WriterWatch};
pub use inotify::{FileEvent, FileWatch, TreeEvent, TreeWatch};
pub use pressure::PressureWatch;

/// Waits until one of the descriptors is readable or the time is over; whether one is. A signal ends the wait early.
pub fn wait(fds: &[BorrowedFd<'_>], at_most: Duration) -> Result<bool> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(Error::io(Path::new("watches"), "poll", error)),
    }
}
