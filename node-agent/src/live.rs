//! The live picture: what is drawn ([`draw`]), and the terminal it is drawn on.

mod draw;

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;

use crate::shown::Shown;

pub use draw::draw;

/// How cgroups are sorted; greatest first, but for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What could be freed, then what is held.
    #[default]
    WouldFree,
    /// Cold memory.
    Cold,
    /// All anonymous memory.
    Held,
    /// Names.
    Name,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::WouldFree => Self::Cold,
            Self::Cold => Self::Held,
            Self::Held => Self::Name,
            Self::Name => Self::WouldFree,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::WouldFree => "would free",
            Self::Cold => "cold",
            Self::Held => "memory",
            Self::Name => "name",
        }
    }
}

/// What a person chose to see.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The order of cgroups.
    pub order: Order,
    /// Only names that contain this.
    pub filter: String,
    /// Letters go to the filter.
    pub typing: bool,
    /// The picture stands still.
    pub paused: bool,
    /// Which of the sorted cgroups is marked.
    pub marked: usize,
    /// The path of the one cgroup that has the page.
    pub page: Option<String>,
    /// Whether colours are wanted.
    pub colour: bool,
}

impl Screen {
    /// Takes a key; whether to go on.
    pub fn key(&mut self, key: KeyEvent, shown: &Shown) -> bool {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return false;
        }
        if self.typing {
            match key.code {
                KeyCode::Char(letter) => self.filter.push(letter),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
                _ => {}
            }
            self.marked = 0;
            return true;
        }
        let count = draw::sorted(shown, self).len();
        match key.code {
            KeyCode::Char('q') => return false,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Left if self.page.is_some() => self.page = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => {
                self.marked = (self.marked + 1).min(count.saturating_sub(1));
            }
            KeyCode::Up | KeyCode::Char('k') => self.marked = self.marked.saturating_sub(1),
            KeyCode::Enter | KeyCode::Right => {
                self.page = draw::sorted(shown, self).get(self.marked).map(|cgroup| cgroup.path.clone());
            }
            _ => {}
        }
        true
    }
}

/// Whether there is a terminal to draw on and to read keys from.
#[must_use]
pub fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows each picture that comes until a person has seen enough or none comes any more. The terminal is left as it was, also by a
/// panic.
///
/// # Errors
/// The terminal can't be read or drawn on.
pub fn show(pictures: &Receiver<Shown>, colour: bool) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let outcome = run(&mut terminal, pictures, colour);
    ratatui::try_restore()?;
    outcome
}

fn run(terminal: &mut DefaultTerminal, pictures: &Receiver<Shown>, colour: bool) -> io::Result<()> {
    const BETWEEN_LOOKS_FOR_PICTURES: Duration = Duration::from_millis(100);
    let mut screen = Screen { colour, ..Screen::default() };
    let mut shown: Option<Shown> = None;
    loop {
        match pictures.recv_timeout(Duration::ZERO) {
            Ok(picture) if !screen.paused || shown.is_none() => shown = Some(picture),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        terminal.draw(|frame| draw(frame, shown.as_ref(), &screen))?;
        if !event::poll(BETWEEN_LOOKS_FOR_PICTURES)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && !screen.key(key, shown.as_ref().unwrap_or(&Shown::default()))
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
