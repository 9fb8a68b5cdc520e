//! What is asked of `/proc/PID`.

use std::path::Path;
use std::time::Duration;

use crate::cgroup::CgroupPath;
use crate::error::{Error, Result};

/// A process's name: 15 bytes of its executable's name, or what it set itself.
///
/// # Errors
/// [`Error::Gone`] once the process ended; likewise for the functions below.
pub fn read_comm(proc: &Path, pid: i32) -> Result<String> {
    let (_, text) = read(proc, pid, "comm")?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// When a process started, in clock ticks since boot: with its pid, names the process for good.
pub fn read_start_time(proc: &Path, pid: i32) -> Result<u64> {
    let (path, text) = read(proc, pid, "stat")?;
    start_time(&text, &path)
}

/// The start time in the text of `stat`; `path` is for errors.
pub fn start_time(text: &str, path: &Path) -> Result<u64> {
    // Field 22, counted behind the name: that is in brackets and may have spaces and brackets of its own.
    text.rsplit_once(") ")
        .and_then(|(_, fields)| fields.split(' ').nth(22 - 3))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| Error::malformed(path, 1, text))
}

/// The CPU time that a process or kernel thread took, in steps of the kernel's clock tick.
pub fn read_cpu_time(proc: &Path, pid: i32) -> Result<Duration> {
    let (path, text) = read(proc, pid, "stat")?;
    let ticks = cpu_ticks(&text).ok_or_else(|| Error::malformed(&path, 1, &text))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

/// Fields 14 and 15 of `stat`: ticks in user mode and in the kernel.
fn cpu_ticks(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(14 - 3);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

/// The cgroup2 cgroup of a process; `None` where its path cannot be told from here, being outside this cgroup namespace
/// or removed already.
pub fn read_proc_cgroup(proc: &Path, pid: i32) -> Result<Option<CgroupPath>> {
    let (_, text) = read(proc, pid, "cgroup")?;
    Ok(proc_cgroup(&text))
}

/// The cgroup2 cgroup in the text of `cgroup`; see [`read_proc_cgroup`].
#[must_use]
pub fn proc_cgroup(text: &str) -> Option<CgroupPath> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.filter(|path| !path.ends_with(" (deleted)")).and_then(CgroupPath::new)
}

/// `sys/kernel/random/boot_id`: another one each time the host is booted.
pub fn read_boot_id(proc: &Path) -> Result<String> {
    let path = proc.join("sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "read", error))?;
    Ok(text.trim_end().to_owned())
}

/// A file of a process, with its path for errors. Names in it, of programs and of files, may have any bytes.
pub(crate) fn read(proc: &Path, pid: i32, file: &str) -> Result<(std::path::PathBuf, String)> {
    let path = proc.join(pid.to_string()).join(file);
    let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, "read", error))?;
    Ok((path, String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("7")).unwrap();
        for (name, content) in files {
            std::fs::write(proc.path().join("7").join(name), content).unwrap();
        }
        proc
    }

    #[test]
    fn a_name_may_have_any_bytes() {
        for (content, comm) in [("sh\n", "sh"), ("a) R 1\n", "a) R 1"), ("\n", "")] {
            assert_eq!(read_comm(process(&[("comm", content.as_bytes())]).path(), 7).unwrap(), comm);
        }
        assert_eq!(read_comm(process(&[("comm", b"\xff\n")]).path(), 7).unwrap(), "\u{fffd}");
    }

    #[test]
    fn the_start_time_is_found_behind_an_awkward_name() {
        let behind = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 5\n";
        for comm in ["sh", "a b", ") S 1 (", "x) R 9 9 9"] {
            let stat = format!("7 ({comm}) {behind}");
            assert_eq!(
                read_start_time(process(&[("stat", stat.as_bytes())]).path(), 7).unwrap(),
                4242,
                "{comm}"
            );
        }
        for garbage in ["", "7 sh S 1", "7 (sh) S 1\n"] {
            let error = read_start_time(process(&[("stat", garbage.as_bytes())]).path(), 7).unwrap_err();
            assert!(matches!(error, Error::Malformed { line: 1, .. }), "{garbage:?}");
        }
    }

    #[test]
    fn cpu_time_is_that_of_both_modes() {
        let stat = "7 (kdamond.0) S 2 0 0 0 -1 2129984 0 0 0 0 150 50 0 0 20 0 1 0 4242 0 0\n";
        let spent = read_cpu_time(process(&[("stat", stat.as_bytes())]).path(), 7).unwrap();
        assert_eq!(spent, Duration::from_millis(200_000 / rustix::param::clock_ticks_per_second()));
        assert_eq!(cpu_ticks("7 (sh) S 1\n"), None);
    }

    #[test]
    fn the_cgroup_is_that_of_cgroup2() {
        for (content, path) in [
            ("0::/a/b\n", Some("/a/b")),
            ("12:memory:/v1\n0::/\n", Some("/")),
            ("0::/../other\n", None),
            ("0::/a (deleted)\n", None),
            ("12:memory:/v1\n", None),
        ] {
            let found = read_proc_cgroup(process(&[("cgroup", content.as_bytes())]).path(), 7).unwrap();
            assert_eq!(found, path.map(|path| CgroupPath::new(path).unwrap()), "{content:?}");
        }
    }

    #[test]
    fn an_ended_process_is_gone() {
        let proc = tempfile::tempdir().unwrap();
        assert!(read_comm(proc.path(), 7).unwrap_err().is_gone());
        assert!(read_start_time(proc.path(), 7).unwrap_err().is_gone());
        assert!(read_proc_cgroup(proc.path(), 7).unwrap_err().is_gone());
    }

    #[test]
    fn this_process_reads_itself() {
        let (proc, pid) = (Path::new("/proc"), i32::try_from(std::process::id()).unwrap());
        assert!(!read_comm(proc, pid).unwrap().is_empty());
        assert!(read_start_time(proc, pid).unwrap() > 0);
        read_proc_cgroup(proc, pid).unwrap();
    }
}
