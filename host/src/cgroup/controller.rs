//! Why the hierarchy of cgroup v2 lacks a controller.

use std::path::{Path, PathBuf};

use super::unescape;

/// Why the root of cgroup v2 does not offer a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// A hierarchy of cgroup v1 holds it, mounted here if this process sees the mount.
    HeldByV1(Option<PathBuf>),
    /// The kernel was told to do without: `cgroup_disable=`.
    Disabled,
    /// The kernel was built without it.
    NotBuilt,
    /// The kernel has it for version 2; whoever stands above this hierarchy's root does not pass it on.
    NotPassedOn,
}

impl Absence {
    /// What was found of the controller `name`, as a sentence.
    #[must_use]
    pub fn finding(&self, name: &str) -> String {
        match self {
            Self::HeldByV1(Some(mount)) => {
                format!("a cgroup version 1 mount ({}) holds the {name} controller", mount.display())
            }
            Self::HeldByV1(None) => format!("a cgroup version 1 mount holds the {name} controller"),
            Self::Disabled => format!("the kernel was booted with cgroup_disable={name}"),
            Self::NotBuilt => format!("this kernel was built without the {name} controller"),
            Self::NotPassedOn => format!("nobody passes the {name} controller on to it"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self, name: &str) -> String {
        match self {
            Self::HeldByV1(_) => {
                "boot with systemd.unified_cgroup_hierarchy=1, so that cgroup version 2 has all \
                                  controllers, or unmount that mount where no program uses it"
                    .to_owned()
            }
            Self::Disabled => format!("boot without cgroup_disable={name}"),
            Self::NotBuilt => "boot a kernel with CONFIG_MEMCG and CONFIG_CPUSETS".to_owned(),
            Self::NotPassedOn => {
                format!(
                    "write +{name} to cgroup.subtree_control of the cgroup above, or use the host's /sys/fs/cgroup"
                )
            }
        }
    }
}

/// Why `name` (`memory`, `cpuset`) is not in `cgroup.controllers` of the root.
#[must_use]
pub fn controller_absence(proc: &Path, name: &str) -> Absence {
    // A file that can't be read tells nothing for or against.
    let text = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
    let mount = v1_mount(&text("self/mountinfo"), name);
    let cgroups = text("cgroups");
    let row: Option<Vec<&str>> = cgroups
        .lines()
        .map(|line| line.split_whitespace().collect())
        .find(|row: &Vec<&str>| row.first() == Some(&name));
    let hierarchy = row.as_ref().and_then(|row| row.get(1)).is_some_and(|id| *id != "0");
    let disabled = row.as_ref().and_then(|row| row.get(3)).is_some_and(|on| *on == "0");
    let told_to = text("cmdline")
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("cgroup_disable="))
        .any(|names| names.split(',').any(|one| one == name));
    if told_to || disabled {
        Absence::Disabled
    } else if mount.is_some() || hierarchy {
        Absence::HeldByV1(mount)
    } else if row.is_none() && !cgroups.is_empty() {
        Absence::NotBuilt
    } else {
        Absence::NotPassedOn
    }
}

/// Where cgroup v1 has the controller mounted: `36 35 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`.
fn v1_mount(mountinfo: &str, name: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        if kind.next()? != "cgroup" || !kind.nth(1)?.split(',').any(|option| option == name) {
            return None;
        }
        place.split(' ').nth(4).map(unescape)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heading and `rows` of /proc/cgroups.
    fn cgroups(rows: &str) -> String {
        format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t9\t1\n{rows}")
    }

    fn check(files: &[(&str, &str)], absence: &Absence, remedy: &str) {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("self")).unwrap();
        for (file, text) in files {
            std::fs::write(proc.path().join(file), text).unwrap();
        }
        assert_eq!(&controller_absence(proc.path(), "memory"), absence, "{files:?}");
        assert!(absence.remedy("memory").contains(remedy), "{}", absence.remedy("memory"));
    }

    #[test]
    fn each_cause_of_a_missing_controller_has_its_own_remedy() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n";
        let unified = "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let held = Absence::HeldByV1(Some("/sys/fs/cgroup/memory".into()));
        let boot = "systemd.unified_cgroup_hierarchy=1";
        check(&[("self/mountinfo", &format!("{unified}{v1}"))], &held, boot);
        // In a container that does not see the mount.
        check(&[("cgroups", &cgroups("memory\t4\t90\t1\n"))], &Absence::HeldByV1(None), boot);
        check(
            &[("cgroups", &cgroups("memory\t0\t1\t0\n"))],
            &Absence::Disabled,
            "without cgroup_disable=memory",
        );
        let line = "root=/dev/vda cgroup_disable=cpu,memory quiet\n";
        check(&[("cmdline", line)], &Absence::Disabled, "without cgroup_disable=memory");
        check(&[("cgroups", &cgroups(""))], &Absence::NotBuilt, "CONFIG_MEMCG");
        check(&[("cgroups", &cgroups("memory\t0\t9\t1\n"))], &Absence::NotPassedOn, "subtree_control");
        check(&[("self/mountinfo", unified)], &Absence::NotPassedOn, "subtree_control");
    }
}
