//! The program as shells run it.

use std::io;
use std::process::{Command, Stdio};

/// `thermocline-agent ... | head -c 1`, and what it said beside.
fn into_a_reader_that_leaves(arguments: &[&str]) -> io::Result<(bool, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_thermocline-agent"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_reader_who_has_seen_enough_hears_no_complaint() -> io::Result<()> {
    for arguments in [
        &["seccomp"][..],
        &["probe", "--proc-root", "/nonexistent", "--sysfs-root", "/nonexistent"],
        &["probe", "--output", "json", "--proc-root", "/nonexistent", "--sysfs-root", "/nonexistent"],
        &["check", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/agent.yaml")],
        &["--help"],
        &["completions", "bash"],
        &["man"],
    ] {
        assert_eq!(into_a_reader_that_leaves(arguments)?, (true, String::new()), "{arguments:?}");
    }
    Ok(())
}
