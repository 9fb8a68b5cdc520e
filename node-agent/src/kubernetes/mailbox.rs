//! From the thread that talks to the API server to the loop: the newest assignment, and a descriptor to wait on.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::assignment::Assignment;

type Slot = Arc<Mutex<Option<Arc<Assignment>>>>;

/// Where assignments are put.
#[derive(Debug)]
pub struct Sender {
    slot: Slot,
    wake: UnixStream,
}

/// Where the loop takes them.
#[derive(Debug)]
pub struct Receiver {
    slot: Slot,
    woken: UnixStream,
}

/// Both ends.
pub fn mailbox() -> io::Result<(Sender, Receiver)> {
    let (woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let slot = Slot::default();
    Ok((Sender { slot: Arc::clone(&slot), wake }, Receiver { slot, woken }))
}

impl Sender {
    /// Puts an assignment in the place of one that was not taken yet, and wakes the loop.
    pub fn send(&self, assignment: Arc<Assignment>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(assignment);
        // Where no more bytes fit, the loop has enough of them to wake up.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Receiver {
    /// The newest assignment, where one came since the last call.
    pub fn take(&mut self) -> Option<Arc<Assignment>> {
        let mut bytes = [0; 64];
        while self.woken.read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether one waits to be taken.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl AsFd for Receiver {
    /// Readable while an assignment waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_is_taken_once_and_wakes_who_waits() {
        let (sender, mut receiver) = mailbox().unwrap();
        let readable = |receiver: &Receiver| {
            let nobody = &mut host::watch::PressureWatch::<u8>::default();
            host::watch::wait(&[receiver.as_fd()], nobody, Duration::ZERO).unwrap().0
        };
        assert!(!readable(&receiver) && !receiver.is_waiting());
        for generation in 1..=1000 {
            sender.send(Arc::new(Assignment { generation: Some(generation), ..Assignment::default() }));
        }
        assert!(readable(&receiver) && receiver.is_waiting());
        assert_eq!(receiver.take().unwrap().generation, Some(1000));
        assert!(!readable(&receiver) && receiver.take().is_none());
    }
}
