//! A load: bursts of requests, one connection that waits for its answers, and rest between two bursts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between the starts of two bursts.
const PERIOD: Duration = Duration::from_secs(5);

/// Who asks.
pub(super) trait Client: Send + 'static {
    /// Asks, waits for all answers of one portion and compares them; returns how many there were and how many were wrong.
    fn portion(&mut self) -> Result<Answered>;
    /// Asks for something else from now on.
    fn shift(&mut self) {}
    /// Looks at everything that was ever stored; returns how much of it is wrong.
    fn verify(&mut self) -> Result<u64>;
}

/// Answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answered {
    pub(super) requests: u64,
    pub(super) wrong: u64,
}

/// What a load has met so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Met {
    pub(super) answered: Answered,
    pub(super) busy: Duration,
    /// How long each portion took, microseconds.
    portions: Vec<u32>,
}

impl Met {
    /// Of the portions 99 % took less.
    pub(super) fn p99_us(&self) -> u64 {
        let mut portions = self.portions.clone();
        if portions.is_empty() {
            return 0;
        }
        let at = (portions.len() - 1) * 99 / 100;
        u64::from(*portions.select_nth_unstable(at).1)
    }
}

/// One at work.
pub(super) struct Load<C> {
    thread: JoinHandle<Result<C>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    met: Mutex<Met>,
    shifts: AtomicBool,
    ends: AtomicBool,
}

impl Load<Box<dyn Client>> {
    /// Has the client ask so many portions a burst.
    pub(super) fn start(mut client: Box<dyn Client>, portions: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut next = Instant::now();
            while !of_thread.ends.load(Ordering::Relaxed) {
                if of_thread.shifts.swap(false, Ordering::Relaxed) {
                    client.shift();
                }
                for _ in 0..portions {
                    let began = Instant::now();
                    let answered = client.portion()?;
                    of_thread.note(answered, began.elapsed());
                }
                next += PERIOD;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(client)
        });
        Self { thread, shared }
    }

    /// What it has met.
    pub(super) fn met(&self) -> Met {
        self.shared.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From its next burst on it asks for something else.
    pub(super) fn shift(&self) {
        self.shared.shifts.store(true, Ordering::Relaxed);
    }

    /// Whether it still asks: not after an error.
    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it after its burst and gives back who asked.
    ///
    /// # Errors
    /// Also what ended it before.
    pub(super) fn end(self) -> Result<Box<dyn Client>> {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread of a load panicked"))?
    }
}

impl Shared {
    fn note(&self, answered: Answered, took: Duration) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.answered.requests += answered.requests;
        met.answered.wrong += answered.wrong;
        met.busy += took;
        met.portions.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_is_p99() {
        let met = Met { portions: (1..=100).rev().collect(), ..Met::default() };
        assert_eq!(met.p99_us(), 99);
        assert_eq!(Met::default().p99_us(), 0);
    }
}
