use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::fixture;
use crate::shown::{Cgroup, Condition};

const MIB: u64 = 1 << 20;

/// A host with as many services as an ordinary one, whose names differ at their ends.
fn host(count: u64) -> Shown {
    let mut shown = Shown::of(&fixture::mixed()).unwrap();
    shown.command = "observe".to_owned();
    shown.cgroups = (0..count)
        .map(|i| {
            let path = format!("/system.slice/a-service-of-this-host-{i:02}.service");
            let cgroup = Cgroup {
                path: path.clone(),
                mode: "Observe".to_owned(),
                anon_bytes_by_tier: [("dram".to_owned(), (i + 1) * 10 * MIB)].into(),
                ages: vec![(200.0, i * 5 * MIB), (0.0, 10 * MIB)],
                effective_age_seconds: 120.0,
                cold_bytes: i * 5 * MIB,
                would_free_bytes: i * 5 * MIB,
                ..Cgroup::default()
            };
            (path, cgroup)
        })
        .collect();
    shown
}

fn frame(shown: &Shown, screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, Some(shown), screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
    cells.chunks(usize::from(width)).fold(String::new(), |text, row| text + row.concat().trim_end() + "\n")
}

fn press(screen: &mut Screen, shown: &Shown, code: KeyCode) -> bool {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE), shown)
}

/// At each size: header, total, the greatest first with its distinguishing name, what is left out, the keys.
#[test]
fn an_ordinary_host_fits_any_terminal() {
    let shown = host(34);
    for (width, height) in [(80, 24), (100, 30), (120, 40), (160, 50), (200, 60)] {
        let text = frame(&shown, &Screen::default(), width, height);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), usize::from(height), "{text}");
        assert!(lines[0].starts_with("thermocline: observing, nothing is moved"), "{text}");
        assert!(lines[1].starts_with("would free "), "{text}");
        let head = lines.iter().position(|line| line.contains("WOULD FREE")).expect(&text);
        assert!(lines[head + 1].contains("33.service") && lines[head + 1].contains("165 MiB"), "{text}");
        assert!(lines[head + 2].contains("32.service"), "{text}");
        if height < 50 {
            assert!(text.contains(" more, which would free "), "{text}");
        } else {
            assert!(text.contains("00.service"), "{text}");
        }
        assert!(text.trim_end().ends_with("enter one cgroup"), "{text}");
    }
}

/// Sums that have no room beside each other stand below each other, and none is cut.
#[test]
fn what_it_saves_and_costs_is_told_whole_at_any_size() {
    let mut shown = host(34);
    shown.savings.total.would_touch_bytes_per_minute = Some(12 * MIB);
    for (width, height) in [(80, 24), (100, 30), (120, 40), (160, 50), (200, 60)] {
        let text = frame(&shown, &Screen::default(), width, height);
        for words in [
            "would free 244 MiB of 876 MiB (27 %), would touch 12 MiB a minute",
            "freed 803 MiB, of which 0 B a minute are touched",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(text.lines().count(), usize::from(height), "{text}");
        assert!(text.trim_end().ends_with("enter one cgroup"), "{text}");
    }
}

#[test]
fn the_parts_of_names_that_tell_them_apart_are_kept_at_80_columns() {
    let text = frame(&host(34), &Screen::default(), 80, 24);
    let rows = text.lines().filter(|line| line.contains(".service") && line.contains("MiB"));
    let names: Vec<&str> = rows.filter_map(|line| line.split_whitespace().next()).collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(names.len() > 10 && distinct.len() == names.len(), "{text}");
}

#[test]
fn warnings_wrap_and_keep_their_remedy() {
    let mut shown = host(3);
    let message = "the kernel has node 0 and node 1 in one tier, so it demotes nowhere; to do: name the slow node in `tiers` \
                   of the configuration";
    shown.conditions =
        vec![Condition { status: false, reason: "OneKernelTier".to_owned(), message: message.to_owned() }];
    let text = frame(&shown, &Screen::default(), 80, 24);
    assert!(text.contains("`tiers` of the configuration"), "{text}");
}

#[test]
fn a_page_of_one_cgroup_explains_it() {
    let shown = host(34);
    let mut screen = Screen::default();
    press(&mut screen, &shown, KeyCode::Down);
    press(&mut screen, &shown, KeyCode::Enter);
    let text = frame(&shown, &screen, 80, 24);
    assert!(
        text.contains("a-service-of-this-host-32.service") && text.contains("Saving: would free 160 MiB"),
        "{text}"
    );
    assert!(text.contains("To change: "), "{text}");
    press(&mut screen, &shown, KeyCode::Esc);
    assert_eq!(screen.page, None);
}

#[test]
fn keys_filter_sort_pause_and_quit() {
    let shown = host(34);
    let mut screen = Screen::default();
    press(&mut screen, &shown, KeyCode::Char('/'));
    for letter in "host-07".chars() {
        press(&mut screen, &shown, KeyCode::Char(letter));
    }
    press(&mut screen, &shown, KeyCode::Enter);
    let text = frame(&shown, &screen, 80, 24);
    assert!(text.contains("07.service") && !text.contains("33.service"), "{text}");
    press(&mut screen, &shown, KeyCode::Esc);
    for words in ["by cold", "by memory", "by name", "by would free"] {
        press(&mut screen, &shown, KeyCode::Char('s'));
        let text = frame(&shown, &screen, 100, 30);
        assert!(text.contains(words), "{text}");
    }
    press(&mut screen, &shown, KeyCode::Char('p'));
    assert!(screen.paused && frame(&shown, &screen, 80, 24).starts_with("PAUSED"));
    // Down to the last one: it is in sight.
    for _ in 0..99 {
        press(&mut screen, &shown, KeyCode::Down);
    }
    assert!(frame(&shown, &screen, 80, 24).contains("00.service"));
    assert!(!press(&mut screen, &shown, KeyCode::Char('q')));
    assert!(!screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &shown));
}

#[test]
fn without_colours_there_are_none() {
    let colours = |colour| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let screen = Screen { colour, ..Screen::default() };
        terminal.draw(|frame| draw(frame, Some(&host(5)), &screen)).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 50);
}

#[test]
fn a_name_that_a_terminal_would_obey_is_made_harmless_and_nothing_is_a_picture_too() {
    let mut shown = host(1);
    for cgroup in shown.cgroups.values_mut() {
        cgroup.path = "/a\u{1b}[2J".to_owned();
    }
    assert!(!frame(&shown, &Screen::default(), 80, 24).contains('\u{1b}'));
    assert!(frame(&host(0), &Screen::default(), 80, 24).contains("No cgroup with memory"));
    frame(&host(3), &Screen::default(), 20, 5);
}
