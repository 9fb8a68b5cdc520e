//! The live picture in a real terminal, tmux: what it shows, its keys, and that it leaves the terminal as it was.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_thermocline-agent");

/// What an agent of a host with 34 services answers.
fn picture() -> String {
    const MIB: u64 = 1 << 20;
    let cgroup = |i: u64| {
        let path = format!("/system.slice/a-service-of-this-host-{i:02}.service");
        let cold = i * 5 * MIB;
        let view = serde_json::json!({
            "path": path, "policy": "all", "mode": "Observe", "anon_bytes_by_tier": { "dram": (i + 1) * 10 * MIB },
            "ages": [[200.0, cold], [0.0, 10 * MIB]], "effective_age_seconds": 120.0, "cold_bytes": cold,
            "would_free_bytes": cold, "decision": { "text": "would demote (observed)", "action": "demote" },
        });
        (path, view)
    };
    let tier = |name, mib: u64| serde_json::json!({ "name": name, "capacity_bytes": mib * MIB, "free_bytes": mib / 2 * MIB });
    let cgroups: serde_json::Map<_, _> = (0..34).map(cgroup).collect();
    serde_json::json!({
        "command": "run", "rounds": 7, "engine": "lru-gen", "promoter": "kernel", "cgroups": cgroups,
        "tiers": [tier("dram", 16384), tier("pmem", 65536)],
        "savings": { "total": { "would_free_bytes": 2805 * MIB, "dram_bytes": 5950 * MIB } },
    })
    .to_string()
}

/// A tmux server of this test's own, with one window where `status` runs in a shell.
struct Terminal {
    name: String,
    dir: tempfile::TempDir,
}

impl Terminal {
    fn open(name: &str, width: u16, height: u16) -> Self {
        Self::open_with(name, width, height, "")
    }

    /// With variables as a shell sets them for one command.
    fn open_with(name: &str, width: u16, height: u16, variables: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let listener = UnixListener::bind(dir.path().join("agent.sock")).expect("a socket");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who went away meanwhile needs no answer.
                let _ = (&stream).write_all(picture().as_bytes());
            }
        });
        let script = dir.path().join("script");
        let (agent, at) = (AGENT, dir.path().display());
        let text = format!(
            "stty -g > {at}/before\n{variables} '{agent}' status --state {}\necho $? > {at}/code\nstty -g > {at}/after\necho THE SHELL AGAIN\nexec sleep 60\n",
            state.display()
        );
        std::fs::write(&script, text).expect("a script");
        let terminal = Self { name: format!("thermocline-{name}-{}", std::process::id()), dir };
        let (width, height) = (width.to_string(), height.to_string());
        let command = format!("sh {}", script.display());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, &command]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.name])
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .expect("tmux");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits for a screen that satisfies.
    fn shows(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "no {what}:\n{screen}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Whether the other screen is on, and the cursor.
    fn modes(&self) -> String {
        self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim().to_owned()
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::read_to_string(path).expect("what the script wrote")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = Command::new("tmux").args(["-L", &self.name, "kill-server"]).output();
    }
}

/// Past the capture of the test's output: what is not run must be seen.
fn there_is_tmux(test: &str) -> bool {
    let there = Command::new("tmux").arg("-V").output().is_ok();
    if !there {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: there is no tmux here (apt-get install tmux)");
    }
    there
}

#[test]
fn q_and_ctrl_c_leave_the_terminal_as_it_was() {
    if !there_is_tmux("the live picture in a terminal") {
        return;
    }
    for key in ["q", "C-c"] {
        let terminal = Terminal::open(if key == "q" { "q" } else { "interrupt" }, 80, 24);
        terminal.shows("picture", |screen| screen.contains("would free 2.7 GiB of 5.8 GiB (47 %)"));
        assert_eq!(terminal.modes(), "1 0");
        terminal.press(key);
        let screen = terminal.shows("shell", |screen| screen.contains("THE SHELL AGAIN"));
        assert!(!screen.contains("WOULD FREE"), "{key}: {screen}");
        assert_eq!(terminal.modes(), "0 1", "{key}");
        assert_eq!(terminal.file("before"), terminal.file("after"), "{key}");
        assert_eq!(terminal.file("code").trim(), "0", "{key}");
    }
}

#[test]
fn colours_are_there_unless_no_color_says_otherwise() {
    if !there_is_tmux("the live picture's colours in a terminal") {
        return;
    }
    for (name, variables, are_there) in [("colour", "", true), ("plain", "NO_COLOR=1", false)] {
        let terminal = Terminal::open_with(name, 80, 24, variables);
        terminal.shows("picture", |screen| screen.contains("WOULD FREE"));
        // With the sequences that set them.
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
        assert_eq!(screen.contains("\u{1b}[38;5;"), are_there, "{variables}: {screen:?}");
        terminal.press("q");
        terminal.shows("shell", |screen| screen.contains("THE SHELL AGAIN"));
    }
}

#[test]
fn keys_filter_sort_pause_and_open_a_page_at_five_sizes() {
    if !there_is_tmux("the live picture's keys and sizes in a terminal") {
        return;
    }
    let terminal = Terminal::open("keys", 80, 24);
    for (width, height) in [(80, 24), (100, 30), (120, 40), (160, 50), (200, 60)] {
        terminal.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
        // The keys are named on the last line, wherever that is.
        let screen = terminal.shows("picture of this size", |screen| {
            screen.lines().count() == height
                && screen.trim_end().ends_with("enter one cgroup")
                && screen.trim_end().lines().count() == height
        });
        assert!(screen.contains("WOULD FREE") && screen.contains("33.service"), "{screen}");
    }
    for key in ["/", "h", "o", "s", "t", "-", "0", "7", "Enter"] {
        terminal.press(key);
    }
    terminal
        .shows("filtered picture", |screen| screen.contains("07.service") && !screen.contains("33.service"));
    terminal.press("Enter");
    terminal
        .shows("page", |screen| screen.contains("Saving: would free 35 MiB") && screen.contains("Ages: "));
    terminal.press("Escape");
    terminal.shows("list", |screen| screen.contains("WOULD FREE"));
    terminal.press("s");
    terminal.shows("order", |screen| screen.contains("by cold"));
    terminal.press("p");
    terminal.shows("pause", |screen| screen.contains("PAUSED"));
    terminal.press("q");
    terminal.shows("shell", |screen| screen.contains("THE SHELL AGAIN"));
}
