//! Text for terminals: coloured lines of a bounded width, bars, short words for ages.

use std::fmt::Write as _;

/// What a piece of text stands for; the colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    /// By heat: 0 is the hottest, 4 and more the coldest.
    Heat(usize),
}

impl Ink {
    /// Warm water above, cold below.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Heat(0) => "38;5;203",
            Self::Heat(1) => "38;5;215",
            Self::Heat(2) => "38;5;116",
            Self::Heat(3) => "38;5;68",
            Self::Heat(_) => "38;5;61",
        }
    }
}

/// One line, built piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pieces: Vec<(Ink, String)>,
    width: usize,
}

impl Line {
    pub(crate) fn push(&mut self, ink: Ink, text: impl AsRef<str>) -> &mut Self {
        // A cgroup may be named so that the terminal would obey it.
        let text: String =
            text.as_ref().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        self.width += text.chars().count();
        self.pieces.push((ink, text));
        self
    }

    /// Blanks up to column `column`.
    pub(crate) fn pad_to(&mut self, column: usize) -> &mut Self {
        if self.width < column {
            self.push(Ink::Plain, " ".repeat(column - self.width));
        }
        self
    }

    /// Adds the pieces where all of them fit into `width` columns, none of them otherwise; whether they did.
    pub(crate) fn push_if_fits<'a>(
        &mut self,
        width: usize,
        pieces: impl IntoIterator<Item = (Ink, &'a str)>,
    ) -> bool {
        let pieces: Vec<(Ink, &str)> = pieces.into_iter().collect();
        let columns: usize = pieces.iter().map(|(_, text)| text.chars().count()).sum();
        let fits = self.width + columns <= width;
        if fits {
            for (ink, text) in pieces {
                self.push(ink, text);
            }
        }
        fits
    }

    /// Appends the line to `out`, cut at `width` columns: after a word, if not much is lost by it.
    pub(crate) fn render(&self, width: usize, colour: bool, out: &mut String) {
        let text: String = self.pieces.iter().map(|(_, text)| text.as_str()).collect();
        let length = text.trim_end().chars().count();
        let cut = length > width;
        let mut room = if cut { after_a_word(&text, width.saturating_sub(1)) } else { length };
        let mut line = String::new();
        for (ink, text) in &self.pieces {
            let text: String = text.chars().take(room).collect();
            room -= text.chars().count();
            if !colour || *ink == Ink::Plain || text.is_empty() {
                line.push_str(&text);
            } else {
                let _ = write!(line, "\x1b[{}m{text}\x1b[0m", ink.code());
            }
        }
        out.push_str(&line);
        if cut && width > 0 {
            out.push('…');
        }
        out.push('\n');
    }
}

/// Where to cut a text that has room for so many characters: after the last whole word, unless that is in its first half. An amount
/// and its unit are one word.
pub(crate) fn after_a_word(text: &str, room: usize) -> usize {
    let chars: Vec<char> = text.chars().collect();
    let ends = |end: usize| {
        let (last, next) = (chars.get(end.wrapping_sub(1)), chars.get(end));
        let after_blank = chars.get(end + 1);
        let is_unit = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_uppercase() || *c == '%');
        next == Some(&' ')
            && last.is_some_and(|last| *last != ' ' && !(last.is_ascii_digit() && is_unit(after_blank)))
    };
    (room / 2..=room).rev().find(|end| ends(*end)).unwrap_or(room)
}

/// `words` on lines of at most `width` columns, broken at blanks: a remedy that is cut off cannot be typed.
pub(crate) fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
        used += length + usize::from(used > 0);
    }
    lines
}

/// `path` in at most `width` columns. Cut in the middle: both the slice above and the name at the end tell it apart.
pub(crate) fn middle_cut(path: &str, width: usize) -> String {
    let count = path.chars().count();
    if count <= width {
        return path.to_owned();
    }
    let keep = width.saturating_sub(1);
    let tail = keep - keep / 3;
    let head: String = path.chars().take(keep / 3).collect();
    let end: String = path.chars().skip(count - tail).collect();
    format!("{head}…{end}")
}

/// What all names begin with, up to a slash: it tells none from another.
pub(crate) fn shared_beginning(names: &[String]) -> usize {
    let Some(first) = names.first().filter(|_| names.len() > 1) else { return 0 };
    let mut shared = first.as_str();
    for name in names {
        let same = shared.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        shared = &shared[..shared.floor_char_boundary(same)];
    }
    shared.rfind('/').map_or(0, |slash| slash + 1)
}

/// A time in its greatest whole unit: `45s`, `2m`, `90m`, `3h`.
pub(crate) fn short_time(seconds: f64) -> String {
    if seconds < 120.0 && seconds % 60.0 != 0.0 {
        format!("{seconds:.0}s")
    } else if seconds == 0.0 {
        "0s".to_owned()
    } else if seconds < 7200.0 {
        format!("{:.0}m", seconds / 60.0)
    } else {
        format!("{:.0}h", seconds / 3600.0)
    }
}

/// `cells` shared out by `parts`. What is there gets a cell at least, where there are enough.
pub(crate) fn shared_cells(parts: &[u64], cells: usize) -> Vec<usize> {
    let total: u128 = parts.iter().copied().map(u128::from).sum();
    if total == 0 {
        return vec![0; parts.len()];
    }
    let share = |part: u64| usize::try_from(u128::from(part) * cells as u128 / total).unwrap_or(cells);
    let mut shares: Vec<usize> =
        parts.iter().map(|part| if *part == 0 { 0 } else { share(*part).max(1) }).collect();
    // Rounding is put right where it is seen least: at the greatest share.
    loop {
        let sum: usize = shares.iter().sum();
        let Some(greatest) = (0..shares.len()).rev().max_by_key(|index| shares[*index]) else {
            return shares;
        };
        if sum > cells && shares[greatest] > 0 {
            shares[greatest] -= 1;
        } else if sum < cells {
            shares[greatest] += 1;
        } else {
            return shares;
        }
    }
}

/// Columns of a bar for `part`, where `whole` fills `cells`.
pub(crate) fn bar_cells(part: u64, whole: u64, cells: usize) -> usize {
    if part == 0 || whole == 0 || cells == 0 {
        return 0;
    }
    let share = (u128::from(part) * cells as u128 + u128::from(whole) / 2) / u128::from(whole);
    usize::try_from(share).unwrap_or(cells).clamp(1, cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_beginning_and_more_of_its_end() {
        assert_eq!(middle_cut("a/short/path", 20), "a/short/path");
        assert_eq!(middle_cut("kubepods.slice/pod1234/container5678", 20), "kubepo…container5678");
        assert_eq!(middle_cut("äöüäöü", 4), "ä…öü");
        assert_eq!(middle_cut("abc", 0), "…");
    }

    #[test]
    fn what_all_names_begin_with_ends_at_a_slash() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(shared_beginning(&names(&["/a.slice/web", "/a.slice/worker"])), 9);
        assert_eq!(shared_beginning(&names(&["/a.slice/web", "/b.slice/web"])), 1);
        assert_eq!(shared_beginning(&names(&["/a.slice/web"])), 0);
        assert_eq!(shared_beginning(&[]), 0);
    }

    #[test]
    fn words_are_broken_at_blanks_and_none_is_lost() {
        assert_eq!(wrapped("mount it, then try again", 10), ["mount it,", "then try", "again"]);
        assert_eq!(wrapped("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn times_are_short() {
        let all: Vec<_> = [0.0, 5.0, 60.0, 90.0, 120.0, 3600.0, 7200.0].map(short_time).into();
        assert_eq!(all, ["0s", "5s", "1m", "90s", "2m", "60m", "2h"]);
    }

    #[test]
    fn shares_fill_the_cells_and_show_what_is_there() {
        assert_eq!(shared_cells(&[50, 50], 10), [5, 5]);
        assert_eq!(shared_cells(&[1, 999], 10), [1, 9]);
        assert_eq!(shared_cells(&[0, 7], 10), [0, 10]);
        assert_eq!(shared_cells(&[0, 0], 10), [0, 0]);
        assert_eq!(shared_cells(&[1, 1, 1], 10).iter().sum::<usize>(), 10);
        assert_eq!(shared_cells(&[1, 1, 1], 2).iter().sum::<usize>(), 2);
        assert_eq!(shared_cells(&[u64::MAX, u64::MAX], 8), [4, 4]);
    }

    #[test]
    fn a_text_is_cut_after_a_word_and_an_amount_keeps_its_unit() {
        let check = |text: &str, width: usize, shown: &str| {
            let mut line = Line::default();
            line.push(Ink::Plain, text);
            let mut out = String::new();
            line.render(width, false, &mut out);
            assert_eq!(out, format!("{shown}\n"));
        };
        check("not accessed for a minute", 25, "not accessed for a minute");
        check("not accessed for a minute", 24, "not accessed for a…");
        check("demote 180 MiB", 13, "demote…");
        check("demoted 180 MiB and 27 % of it", 26, "demoted 180 MiB and 27 %…");
        check("demoted 180 MiB and 27 % of it", 24, "demoted 180 MiB and…");
        // Without a blank near the end, the name is cut.
        check("a-name-without-any-blank", 10, "a-name-wi…");
        check("a name-without-any-blank", 10, "a name-wi…");
    }

    #[test]
    fn a_line_is_cut_at_its_width_and_obeys_no_escape_of_a_name() {
        let mut line = Line::default();
        line.push(Ink::Strong, "name\x1b[2J").push(Ink::Plain, " and more");
        let mut plain = String::new();
        line.render(12, false, &mut plain);
        assert_eq!(plain, "name\u{fffd}[2J…\n");
        let mut coloured = String::new();
        line.render(80, true, &mut coloured);
        assert_eq!(coloured, "\x1b[1mname\u{fffd}[2J\x1b[0m and more\n");
    }
}
