//! The program as shells run it.

use std::io::{self, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;

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

/// Two that look would spoil each other's ages: where an agent runs it is asked. Without a terminal the answer is a table.
#[test]
fn observe_status_and_explain_ask_the_agent_that_runs() -> io::Result<()> {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir()?;
    let listener = UnixListener::bind(dir.path().join("agent.sock"))?;
    let cgroup = |path: &str, mib: u64| {
        serde_json::json!({
            "path": path, "policy": "all", "mode": "Observe", "anon_bytes_by_tier": { "dram": 2 * mib * MIB },
            "cold_bytes": mib * MIB, "would_free_bytes": mib * MIB, "would_touch_bytes_per_minute": 3 * MIB, "effective_age_seconds": 120.0,
            "decision": { "text": "would demote (observed)", "action": "demote" },
        })
    };
    let picture = serde_json::json!({
        "command": "run", "rounds": 7, "engine": "lru-gen",
        "tiers": [{ "name": "dram", "capacity_bytes": 4096 * MIB, "free_bytes": MIB }],
        "cgroups": { "/a.slice/web": cgroup("/a.slice/web", 30), "/b.slice/job": cgroup("/b.slice/job", 100) },
        "savings": { "total": { "would_free_bytes": 130 * MIB, "dram_bytes": 260 * MIB } },
    })
    .to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who went away meanwhile needs no answer.
            let _ = (&stream).write_all(picture.as_bytes());
        }
    });
    let state = dir.path().join("state");
    let run = |arguments: &[&str]| -> io::Result<(String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thermocline-agent"));
        let output = command.args(arguments).arg("--state").arg(&state).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        Ok((text(&output.stdout), text(&output.stderr)))
    };
    let (table, said) = run(&["observe", "/a.slice/*"])?;
    assert!(said.contains("an agent runs on this host: it is asked"), "{said}");
    assert!(table.contains("WOULD FREE") && table.contains("/a.slice/web"), "{table}");
    // What was not asked for is not in the sum either.
    assert!(
        !table.contains("/b.slice")
            && table.contains("would free 30 MiB of 60 MiB (50 %), would touch 3 MiB a minute"),
        "{table}"
    );
    let (table, said) = run(&["status"])?;
    assert!(said.is_empty() && table.contains("would free 130 MiB of 260 MiB (50 %)"), "{said}{table}");
    let (json, _) = run(&["status", "--output", "json"])?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["cgroups"]["/b.slice/job"]["would_free_bytes"], 100 * MIB);
    assert_eq!(json["cgroups"]["/b.slice/job"]["would_touch_bytes_per_minute"], 3 * MIB);
    let (words, _) = run(&["explain", "job"])?;
    assert!(words.contains("Saving: would free 100 MiB of 200 MiB (50 %)"), "{words}");
    assert!(words.contains("Cost if enforced: it would touch 3 MiB a minute"), "{words}");
    Ok(())
}
