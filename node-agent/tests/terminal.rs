//! The live picture in a real terminal, tmux: what it shows, its keys, and that it leaves the terminal as it was.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser as _;
use host::cgroup::CgroupRoot;
use node_agent::args::Args;
use node_agent::commands;

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
        "savings": { "total": { "would_free_bytes": 2805 * MIB, "would_touch_bytes_per_minute": 12 * MIB, "dram_bytes": 5950 * MIB } },
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
        let command = format!("{variables} '{AGENT}' status --state {}", state.display());
        Self::open_in(dir, name, width, height, &command)
    }

    /// With this command, and a directory for what the shell writes.
    fn open_in(dir: tempfile::TempDir, name: &str, width: u16, height: u16, command: &str) -> Self {
        let script = dir.path().join("script");
        let at = dir.path().display();
        let text = format!(
            "stty -g > {at}/before\n{command}\necho $? > {at}/code\nstty -g > {at}/after\necho THE SHELL AGAIN\nexec sleep 60\n"
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
        terminal.shows("picture", |screen| {
            screen.contains("would free 2.7 GiB of 5.8 GiB (47 %), would touch 12 MiB a minute")
        });
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

/// Set where [`observe_a_host_of_files`] is to be the command in a terminal: the directory of the files.
const OF_FILES: &str = "THERMOCLINE_TEST_OBSERVES";

/// Files as a kernel shows them, of a host where nothing may be moved.
fn host_of_files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let meminfo = "Node 0 MemTotal: 1048576 kB\nNode 0 MemFree: 524288 kB\n";
    let zones = "Node 0, zone Normal\n  pages free 131072\nNode 1, zone Normal\n  pages free 131072\n";
    for (path, text) in [
        ("cgroup/cgroup.controllers", "cpuset memory\n"),
        ("cgroup/cgroup.procs", ""),
        ("cgroup/a.slice/cgroup.controllers", "cpuset memory\n"),
        ("cgroup/a.slice/cgroup.procs", ""),
        ("cgroup/a.slice/cgroup.events", "populated 1\nfrozen 0\n"),
        ("cgroup/a.slice/cgroup.type", "domain\n"),
        ("cgroup/a.slice/cpuset.mems", "\n"),
        ("cgroup/a.slice/cpuset.mems.effective", "0-1\n"),
        ("cgroup/a.slice/memory.current", "67108864\n"),
        ("cgroup/a.slice/memory.high", "max\n"),
        ("cgroup/a.slice/memory.max", "max\n"),
        ("cgroup/a.slice/memory.low", "0\n"),
        ("cgroup/a.slice/memory.min", "0\n"),
        ("cgroup/a.slice/memory.stat", "anon 67108864\nfile 0\n"),
        (
            "cgroup/a.slice/memory.numa_stat",
            "anon N0=67108864 N1=0\nfile N0=0 N1=0\ninactive_anon N0=67108864 N1=0\n",
        ),
        ("sys/devices/system/node/online", "0-1\n"),
        ("sys/devices/system/node/possible", "0-1\n"),
        ("sys/devices/system/node/has_cpu", "0\n"),
        ("sys/devices/system/node/has_memory", "0-1\n"),
        ("sys/devices/system/node/has_normal_memory", "0-1\n"),
        ("sys/devices/system/node/node0/meminfo", meminfo),
        ("sys/devices/system/node/node0/distance", "10 20\n"),
        ("sys/devices/system/node/node1/meminfo", meminfo),
        ("sys/devices/system/node/node1/distance", "20 10\n"),
        ("proc/sys/kernel/random/boot_id", "this\n"),
        ("proc/zoneinfo", zones),
    ] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    dir
}

/// No test by itself: `observe` with everything logged, by [`nothing_of_the_log_is_in_the_picture`].
#[test]
fn observe_a_host_of_files() {
    let Some(dir) = std::env::var_os(OF_FILES).map(PathBuf::from) else { return };
    let words =
        ["thermocline-agent", "observe", "--interval", "1s", "--engine", "pages", "--log-level", "debug"];
    let mut line = words.map(OsString::from).to_vec();
    for (option, at) in [
        ("--cgroup-root", "cgroup"),
        ("--sysfs-root", "sys"),
        ("--proc-root", "proc"),
        ("--debugfs-root", "debug"),
        ("--state", "run/state"),
    ] {
        line.extend([OsString::from(option), dir.join(at).into_os_string()]);
    }
    commands::dispatch(&Args::parse_from(line), |mount| CgroupRoot::open_unchecked(mount))
        .expect("a picture");
}

#[test]
fn nothing_of_the_log_is_in_the_picture() {
    const TEST: &str = "the live picture without the log";
    // As the agent says it where nobody promotes.
    const LOGGED: &str = "promotion: nothing may be written";
    if !there_is_tmux(TEST) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {TEST}: only root observes");
        return;
    }
    let test = std::env::current_exe().expect("this test's path");
    for (name, to_a_file) in [("log-kept", true), ("log-dropped", false)] {
        let dir = host_of_files();
        let log = dir.path().join("log");
        let elsewhere = if to_a_file { format!("2> {}", log.display()) } else { String::new() };
        let command = format!(
            "{OF_FILES}='{}' '{}' --exact observe_a_host_of_files --nocapture {elsewhere}",
            dir.path().display(),
            test.display()
        );
        let terminal = Terminal::open_in(dir, name, 80, 24, &command);
        let later = |screen: &str| {
            let round = screen.split("round ").nth(1).and_then(|words| words.split_whitespace().next());
            round.and_then(|round| round.parse::<u64>().ok()).is_some_and(|round| round > 1)
        };
        let screen = terminal.shows("picture", later);
        // Where the log goes to a file, it has the line.
        if to_a_file {
            assert!(terminal.file("log").contains(LOGGED), "{}", terminal.file("log"));
        }
        terminal.press("q");
        let after = terminal.shows("shell", |screen| screen.contains("THE SHELL AGAIN"));
        for screen in [screen, after] {
            for words in [LOGGED, "INFO", "WARN", "DEBUG"] {
                assert!(!screen.contains(words), "{name}: {screen}");
            }
        }
    }
}
