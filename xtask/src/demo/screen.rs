//! The user's terminal: each picture when its time has come, in place, without flicker.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thermocline_tests::report::Frame;
use xtask_front::quiet::{self, Hush};

use crate::interrupt;

/// Guest time between two pictures where they scroll by.
const PLAIN_EVERY_MS: u64 = 10_000;
/// Where pictures scroll by.
const PLAIN_SIZE: (usize, usize) = (100, 30);
/// A guest that is late by this much is not made up for by a rush.
const LATE: Duration = Duration::from_millis(500);

/// To an own screen, without cursor and line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Terminals that know it hold the picture back until it is complete.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";

pub(crate) struct Screen {
    /// In place; else pictures scroll by.
    terminal: bool,
    colour: bool,
    speed: f64,
    size: (usize, usize),
    /// What is told of long waits would be drawn into the picture.
    open: Option<Hush>,
    /// A moment here and the same moment in the guest, milliseconds.
    anchor: Option<(Instant, u64)>,
    last: Option<Frame>,
    last_shown_ms: Option<u64>,
    /// Where the last picture goes as SVG.
    svg: Option<PathBuf>,
    /// When the first one was shown.
    first: Option<Instant>,
}

impl Screen {
    pub(super) fn new(speed: f64, plain: bool, svg: Option<PathBuf>) -> Self {
        let terminal = !plain && std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let size = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|size| terminal && size.ws_col > 0 && size.ws_row > 0)
            .map_or(PLAIN_SIZE, |size| (size.ws_col.into(), size.ws_row.into()));
        Self {
            terminal,
            colour,
            speed,
            size,
            open: None,
            anchor: None,
            last: None,
            last_shown_ms: None,
            svg,
            first: None,
        }
    }

    /// What the guest must know to draw for this terminal.
    pub(super) fn kernel_arguments(&self) -> Vec<String> {
        // The last line stays empty: a newline there would scroll.
        let (width, height) = (self.size.0.clamp(40, 200), self.size.1.clamp(16, 60) - 1);
        let colour = if self.colour || self.svg.is_some() { "yes" } else { "no" };
        vec![format!("thermocline.frame={width}x{height}"), format!("thermocline.colour={colour}")]
    }

    /// Shows the frame when its time has come. Returns at once when this task is interrupted.
    pub(super) fn show(&mut self, frame: Frame) {
        self.first.get_or_insert_with(|| {
            quiet::said("the demo runs; here is a picture for every ten seconds of the guest's");
            Instant::now()
        });
        if self.terminal {
            self.wait_for(frame.at_ms);
            if interrupt::check().is_err() {
                return;
            }
            let enter = if self.open.is_some() { "" } else { ENTER };
            self.open.get_or_insert_with(quiet::hush);
            let text = self.text(&frame);
            let lines = text.lines().take(self.size.1.saturating_sub(1));
            let picture: String = lines.flat_map(|line| [line, "\x1b[K\r\n"]).collect();
            write(&format!("{enter}{BEGIN}{picture}{END}"));
        } else if self.last_shown_ms.is_none_or(|last| frame.at_ms >= last + PLAIN_EVERY_MS) {
            self.last_shown_ms = Some(frame.at_ms);
            write(&format!("{}\n", self.text(&frame)));
        }
        self.last = Some(frame);
    }

    /// In colours where the terminal shall have them.
    fn text(&self, frame: &Frame) -> String {
        if self.colour { frame.text.clone() } else { anstream::adapter::strip_str(&frame.text).to_string() }
    }

    /// When the first picture was shown.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first
    }

    /// Back to the terminal as it was, with the last picture on it, and in the file that was asked for.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn close(&mut self) -> std::io::Result<()> {
        self.leave();
        let picture = self.svg.take().zip(self.last.as_ref());
        if let Some((path, last)) = picture {
            std::fs::write(&path, anstyle_svg::Term::new().render_svg(&last.text))?;
        }
        if let Some(last) = self.last.take().filter(|last| self.last_shown_ms != Some(last.at_ms)) {
            write(&format!("{}\n", self.text(&last)));
        }
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(hush) = self.open.take() {
            write(LEAVE);
            drop(hush);
        }
    }

    fn wait_for(&mut self, at_ms: u64) {
        let now = Instant::now();
        let (then, then_ms) = *self.anchor.get_or_insert((now, at_ms));
        let due = then + Duration::from_millis(at_ms.saturating_sub(then_ms)).div_f64(self.speed);
        if now > due + LATE {
            self.anchor = Some((now, at_ms));
        }
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if interrupt::check().is_err() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A terminal that is gone is no error.
fn write(text: &str) {
    quiet::printed();
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
