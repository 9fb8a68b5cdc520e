//! Nothing is silent for more than five seconds: what takes long is told of again, with its time.

use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody waits longer for a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What goes on, and who spoke when.
struct Quiet {
    /// What was said last.
    words: String,
    /// When.
    since: Instant,
    /// When there was a word of any kind.
    heard: Instant,
    /// How many speak for themselves.
    hushed: usize,
}

impl Quiet {
    const fn new(now: Instant) -> Self {
        Self { words: String::new(), since: now, heard: now, hushed: 0 }
    }

    fn said(&mut self, words: &str, now: Instant) {
        words.clone_into(&mut self.words);
        (self.since, self.heard) = (now, now);
    }

    /// What to say now. Where it goes to a file and not to a person, ever more rarely.
    fn due(&mut self, now: Instant, is_terminal: bool) -> Option<String> {
        let lasts = now.duration_since(self.since);
        let patience = if is_terminal { PATIENCE } else { PATIENCE.max(lasts / 4) };
        if self.hushed > 0 || now.duration_since(self.heard) < patience {
            return None;
        }
        self.heard = now;
        Some(format!("{} s: {}", lasts.as_secs(), self.words))
    }
}

static QUIET: Mutex<Option<Quiet>> = Mutex::new(None);

fn quiet() -> MutexGuard<'static, Option<Quiet>> {
    QUIET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to tell of what takes long, on standard error and until the process ends.
pub fn watch() {
    *quiet() = Some(Quiet::new(Instant::now()));
    std::thread::spawn(|| {
        let is_terminal = std::io::stderr().is_terminal();
        loop {
            std::thread::sleep(LOOK_EVERY);
            let due = quiet().as_mut().and_then(|quiet| quiet.due(Instant::now(), is_terminal));
            if let Some(words) = due {
                eprintln!("xtask: {words}");
            }
        }
    });
}

/// This was said, and goes on.
pub fn said(words: &str) {
    if let Some(quiet) = &mut *quiet() {
        quiet.said(words, Instant::now());
    }
}

/// A line of the result was printed.
pub fn printed() {
    if let Some(quiet) = &mut *quiet() {
        quiet.heard = Instant::now();
    }
}

/// As long as it is held, somebody else speaks.
pub struct Hush(());

/// Somebody else has the terminal.
#[must_use]
pub fn hush() -> Hush {
    if let Some(quiet) = &mut *quiet() {
        quiet.hushed += 1;
    }
    Hush(())
}

/// A program such as cargo shows its progress itself, where there is a terminal for it.
#[must_use]
pub fn talks() -> Option<Hush> {
    std::io::stderr().is_terminal().then(hush)
}

impl Drop for Hush {
    fn drop(&mut self) {
        if let Some(quiet) = &mut *quiet() {
            quiet.hushed = quiet.hushed.saturating_sub(1);
            quiet.heard = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_more_than_five_seconds_for_a_word() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut quiet = Quiet::new(began);
        quiet.said("building the servers", at(0));
        assert_eq!(quiet.due(at(4), true), None);
        assert_eq!(quiet.due(at(5), true).unwrap(), "5 s: building the servers");
        assert_eq!(quiet.due(at(9), true), None);
        assert_eq!(quiet.due(at(10), true).unwrap(), "10 s: building the servers");
        quiet.said("starting them", at(12));
        assert_eq!(quiet.due(at(16), true), None);
        assert_eq!(quiet.due(at(17), true).unwrap(), "5 s: starting them");
        quiet.hushed = 1;
        assert_eq!(quiet.due(at(60), true), None);
    }

    #[test]
    fn a_file_is_not_filled_with_it() {
        let began = Instant::now();
        let mut quiet = Quiet::new(began);
        quiet.said("testing", began);
        let lines = (0..3000).filter_map(|s| quiet.due(began + Duration::from_secs(s), false)).count();
        assert!((5..40).contains(&lines), "{lines}");
    }
}
