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

/// Waits until one of the descriptors is readable, tasks of a watched cgroup stalled, or the time is over. Whether anything happened, and
/// whose tasks stalled. A signal ends the wait early.
pub fn wait<K: Ord + Copy>(
    fds: &[BorrowedFd<'_>],
    stalls: &mut PressureWatch<K>,
    at_most: Duration,
) -> Result<(bool, Vec<K>)> {
    let readable = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let mut polled: Vec<PollFd<'_>> = readable.chain(stalls.polled()).collect();
    let timeout = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => {
            let told: Vec<PollFlags> = polled[fds.len()..].iter().map(PollFd::revents).collect();
            Ok((ready > 0, stalls.told(&told)))
        }
        Err(Errno::INTR) => Ok((true, Vec::new())),
        Err(error) => Err(Error::io(Path::new("watches"), "poll", error)),
    }
}
