//! The system calls that the agent makes, as a seccomp profile for container runtimes.
//!
//! The binary carries it, so that a profile on a node is always that of the agent which put it there.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// The profile, as containerd, CRI-O and podman read it.
pub const PROFILE: &str = include_str!("seccomp.json");

/// Writes the profile, and the directory that it is in. A reader sees the old one or the new one, never a part.
pub fn install(path: &Path) -> anyhow::Result<()> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let beside = path.with_extension("new");
        fs::write(&beside, PROFILE)?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_allows_what_the_agent_is_for_and_no_way_out() {
        let profile: serde_json::Value = serde_json::from_str(PROFILE).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let mut allowed: Vec<&str> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null())
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        allowed.sort_unstable();
        assert!(allowed.windows(2).all(|pair| pair[0] != pair[1]), "a call is listed twice");
        for needed in ["move_pages", "process_vm_readv", "fanotify_mark", "inotify_add_watch", "execve"] {
            assert!(allowed.contains(&needed), "{needed}");
        }
        let setns =
            profile["syscalls"].as_array().unwrap().iter().find(|rule| rule["names"][0] == "setns").unwrap();
        let cgroup_namespaces_only =
            serde_json::json!([{ "index": 1, "value": 0x0200_0000, "op": "SCMP_CMP_EQ" }]);
        assert_eq!(setns["args"], cgroup_namespaces_only);
        for refused in [
            "ptrace",
            "process_vm_writev",
            "mount",
            "bpf",
            "unshare",
            "setns",
            "init_module",
            "kexec_load",
            "open_by_handle_at",
            "perf_event_open",
            "pivot_root",
            "clone",
            "clone3",
        ] {
            assert!(!allowed.contains(&refused), "{refused}");
        }
    }

    #[test]
    fn installing_makes_the_directory_and_replaces_an_older_profile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seccomp/thermocline/agent.json");
        install(&path).unwrap();
        fs::write(&path, "{}").unwrap();
        install(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), PROFILE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
