//! Where kubelet and the container runtimes put the cgroups of pods.
//!
//! | driver | a pod's cgroup below kubelet's `--cgroup-root` | a container's below that |
//! |---|---|---|
//! | systemd | `kubepods.slice[/kubepods-QOS.slice]/kubepods[-QOS]-podUID.slice` | `RUNTIME-ID.scope` |
//! | cgroupfs | `kubepods[/QOS]/podUID` | `ID`, or `RUNTIME-ID` |
//!
//! `QOS` is `burstable` or `besteffort`; Guaranteed pods are directly below `kubepods`. In slices a uid has `_` for `-`, and the
//! name of the slice that is kubelet's root comes first: `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID.slice`.

use std::path::Component;

use host::cgroup::CgroupPath;

/// Kubelet's root is at most this deep: below a node that is itself a container in a pod, it is 7 deep.
const DEEPEST_ROOT: usize = 8;

/// Names that runtimes put before a container's id.
const RUNTIMES: [&str; 4] = ["cri-containerd-", "crio-", "docker-", "libpod-"];

/// Cgroups beside the containers that runtimes put their own monitors in.
const MONITORS: [&str; 2] = ["crio-conmon-", "libpod-conmon-"];

/// Where in a pod a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's uid: of a static pod, the hash of its manifest.
    pub uid: String,
    /// The id of the container whose cgroup it is, or is in. The pod's sandbox counts as one.
    pub container: Option<String>,
    /// Whether it is below the pod's or the container's own cgroup.
    pub inner: bool,
}

impl Place {
    /// Whether it is the pod's own cgroup.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.container.is_none() && !self.inner
    }
}

/// Which pod and container a cgroup belongs to; `None` for what is no pod's.
///
/// Of pods within a pod, as in a cluster whose nodes are containers of another, it is the outer one.
#[must_use]
pub fn place(path: &CgroupPath) -> Option<Place> {
    let mut names = path.as_path().components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let driver = names.by_ref().take(DEEPEST_ROOT).find_map(Driver::of_root)?;
    let mut name = names.next()?;
    if driver.is_class(name) {
        name = names.next()?;
    }
    let uid = driver.uid(name)?;
    let Some(name) = names.next() else { return Some(Place { uid, container: None, inner: false }) };
    let container = container_id(name).map(str::to_owned);
    let inner = container.is_none() || names.next().is_some();
    Some(Place { uid, container, inner })
}

/// How kubelet names the cgroups of pods.
enum Driver<'a> {
    /// `kubepods`.
    Cgroupfs,
    /// As slices whose names begin with this: `kubepods`, `kubelet-kubepods`.
    Systemd(&'a str),
}

impl<'a> Driver<'a> {
    fn of_root(name: &'a str) -> Option<Self> {
        if name == "kubepods" {
            return Some(Self::Cgroupfs);
        }
        let slice = name.strip_suffix(".slice")?;
        let above = slice.strip_suffix("kubepods")?;
        (above.is_empty() || above.ends_with('-')).then_some(Self::Systemd(slice))
    }

    /// The slice's name without what all below the root begin with.
    fn slice<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self {
            Self::Cgroupfs => Some(name),
            Self::Systemd(root) => name.strip_prefix(root)?.strip_prefix('-')?.strip_suffix(".slice"),
        }
    }

    fn is_class(&self, name: &str) -> bool {
        matches!(self.slice(name), Some("burstable" | "besteffort"))
    }

    fn uid(&self, name: &str) -> Option<String> {
        let name = self.slice(name)?;
        let uid = match self {
            Self::Cgroupfs => name.strip_prefix("pod")?.to_owned(),
            Self::Systemd(_) => {
                let of_class =
                    ["burstable-", "besteffort-"].into_iter().find_map(|class| name.strip_prefix(class));
                of_class.unwrap_or(name).strip_prefix("pod")?.replace('_', "-")
            }
        };
        let plain = uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        (plain && !uid.is_empty()).then_some(uid)
    }
}

fn container_id(name: &str) -> Option<&str> {
    if MONITORS.iter().any(|monitor| name.starts_with(monitor)) {
        return None;
    }
    let name = name.strip_suffix(".scope").unwrap_or(name);
    Some(RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)).unwrap_or(name))
}

#[cfg(test)]
mod tests;
