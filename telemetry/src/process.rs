//! What a process itself costs, as the kernel accounts it. Under the names all Prometheus clients use.

use std::fs;

use crate::metrics::{Family, counter, gauge};

/// The kernel shows times of processes in this many ticks per second to user space, whatever it counts in.
const USER_HZ: f64 = 100.0;

/// This process now; `None` where `/proc` does not tell.
#[derive(Debug, Default, PartialEq)]
pub struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    start_time_seconds: Option<f64>,
    open_fds: Option<u64>,
}

impl Process {
    /// This process now.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        // The directory is open itself while it is listed.
        let open_fds =
            fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
        Self { open_fds, ..Self::parse(&stat, &status, &boot) }
    }

    /// Families of a binary whose scrapes read a process.
    #[must_use]
    pub const fn families<S: AsRef<Self>>() -> [Family<S>; 4] {
        [
            counter("process_cpu_seconds_total", &[], "User and system CPU time.", |scrape: &S, series| {
                if let Some(seconds) = scrape.as_ref().cpu_seconds {
                    series.push(&[], seconds);
                }
            }),
            gauge("process_resident_memory_bytes", &[], "Resident memory.", |scrape: &S, series| {
                if let Some(bytes) = scrape.as_ref().resident_bytes {
                    series.push(&[], bytes as f64);
                }
            }),
            gauge(
                "process_start_time_seconds",
                &[],
                "When the process started, in Unix time.",
                |scrape: &S, series| {
                    if let Some(seconds) = scrape.as_ref().start_time_seconds {
                        series.push(&[], seconds);
                    }
                },
            ),
            gauge("process_open_fds", &[], "Open file descriptors.", |scrape: &S, series| {
                if let Some(count) = scrape.as_ref().open_fds {
                    series.push(&[], count as f64);
                }
            }),
        ]
    }

    fn parse(stat: &str, status: &str, boot: &str) -> Self {
        // The command name may hold blanks and brackets: fields count from the last bracket, state being the third.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let seconds =
            |number: usize| fields.get(number - 3)?.parse::<u64>().ok().map(|ticks| ticks as f64 / USER_HZ);
        let cpu_seconds = seconds(14).zip(seconds(15)).map(|(user, system)| user + system);
        let booted = value_of(boot, "btime ").map(|seconds| seconds as f64);
        Self {
            cpu_seconds,
            resident_bytes: value_of(status, "VmRSS:").map(|kib| kib * 1024),
            start_time_seconds: booted.zip(seconds(22)).map(|(boot, after)| boot + after),
            open_fds: None,
        }
    }
}

fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 8192 77 0";
        let process = Process::parse(stat, "Name:\tx\nVmRSS:\t    1024 kB\n", "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(
            process,
            Process {
                cpu_seconds: Some(3.0),
                resident_bytes: Some(1 << 20),
                start_time_seconds: Some(1_700_000_010.0),
                open_fds: None
            }
        );
    }

    #[test]
    fn nothing_readable_is_nothing_told() {
        assert_eq!(Process::parse("", "", ""), Process::default());
    }
}
