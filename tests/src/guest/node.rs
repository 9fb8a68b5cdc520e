//! A real Kubernetes node: containerd and kubelet, in the guest's root cgroup as on a host without systemd.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{Guest, busybox, modules, write_file};
use crate::node::{ADDRESS, GATEWAY, IMAGES, KUBELET_CONFIG, NAME, NAMESPACE, PAUSE_IMAGE, POD_LOGS};

const CONTAINERD_LOG: &str = "/var/log/containerd.log";
const KUBELET_LOG: &str = "/var/log/kubelet.log";
/// Of the kubelet, as its configuration has it.
const HEALTH_PORT: u16 = 10248;
/// From here on kubelet resizes running containers, unless a feature is switched off.
pub const RESIZES: u32 = 33;
/// Emulated Go programs take tens of seconds to start where the machine has other work.
const START_LIMIT: Duration = Duration::from_mins(4);

/// containerd and kubelet. Killed when dropped; containers live on, as on a host.
#[derive(Debug)]
pub struct Node {
    containerd: Child,
    kubelet: Child,
    kubelet_minor: u32,
}

impl Node {
    /// Connects the guest to the API server, starts containerd, imports the images and starts the kubelet.
    pub fn start(guest: &Guest) -> Result<Self> {
        let kubelet_minor = kubelet_minor()?;
        prepare(kubelet_minor)?;
        network()?;
        let containerd = daemon("containerd", &[], CONTAINERD_LOG)?;
        guest
            .expect_within(START_LIMIT, "containerd answers", || ctr(&["version"]).is_ok())
            .with_context(|| last_words(Path::new(CONTAINERD_LOG)))?;
        guest.say("containerd answers");
        for image in std::fs::read_dir(IMAGES).context(IMAGES)? {
            ctr(&["images", "import", &image?.path().display().to_string()])?;
        }
        guest.say("images are imported");
        let kubelet = kubelet()?;
        Ok(Self { containerd, kubelet, kubelet_minor })
    }

    /// Which kubelet that is, as in 1.36.
    #[must_use]
    pub fn kubelet_minor(&self) -> u32 {
        self.kubelet_minor
    }

    /// Kills the kubelet, starts it again and waits until it answers.
    pub fn restart_kubelet(&mut self, guest: &Guest) -> Result<()> {
        end(&mut self.kubelet);
        self.kubelet = kubelet()?;
        let answers = guest.expect_within(START_LIMIT, "kubelet answers", || {
            guest.http_get(HEALTH_PORT, "/healthz").is_ok()
        })?;
        guest.say(format_args!("kubelet answers again after {answers:?}"));
        Ok(())
    }

    /// The last lines of the logs of both, and of the pods in the chart's namespace.
    #[must_use]
    pub fn last_words(&self) -> String {
        let ours = files_below(Path::new(POD_LOGS)).into_iter().filter(|path| {
            path.strip_prefix(POD_LOGS).is_ok_and(|below| below.to_string_lossy().starts_with(NAMESPACE))
        });
        let logs = [CONTAINERD_LOG, KUBELET_LOG].map(PathBuf::from).into_iter().chain(ours);
        logs.map(|log| last_words(&log)).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.kubelet);
        end(&mut self.containerd);
    }
}

/// What a distribution's boot has done before containerd starts.
fn prepare(kubelet_minor: u32) -> Result<()> {
    for (kind, target) in [(c"devpts", "/dev/pts"), (c"tmpfs", "/dev/shm"), (c"tmpfs", "/var")] {
        std::fs::create_dir_all(target)?;
        mount(c"none", target, kind, MountFlags::empty(), None).with_context(|| format!("mount {target}"))?;
    }
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    let files = [
        // Newer kubelets look their own user up.
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n".to_owned()),
        ("/etc/group", "root:x:0:\n".to_owned()),
        ("/etc/hosts", format!("127.0.0.1 localhost {NAME}\n")),
        // Kubelet copies it for each pod; nobody here resolves names.
        ("/etc/resolv.conf", String::new()),
        (
            "/etc/containerd/config.toml",
            include_str!("node/containerd.toml").replace("PAUSE_IMAGE", PAUSE_IMAGE),
        ),
        ("/etc/cni/net.d/10-pods.conflist", include_str!("node/cni.conflist").to_owned()),
        ("/etc/kubernetes/kubelet.yaml", kubelet_configuration(kubelet_minor)),
    ];
    for (path, content) in files {
        if let Some(dir) = Path::new(path).parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, content)?;
    }
    std::fs::create_dir_all("/var/log")?;
    busybox(&["hostname", NAME])?;
    modules::load("overlay")
}

/// The guest's way to the API server, and that of its pods.
fn network() -> Result<()> {
    for module in ["virtio_pci", "virtio_net", "veth"] {
        modules::load(module)?;
    }
    busybox(&["ip", "address", "add", &format!("{ADDRESS}/24"), "dev", "eth0"])?;
    busybox(&["ip", "link", "set", "eth0", "up"])?;
    busybox(&["ip", "route", "add", "default", "via", &GATEWAY.to_string()])?;
    write_file("/proc/sys/net/ipv4/ip_forward", "1")?;
    // The emulator takes the pods for its neighbours.
    write_file("/proc/sys/net/ipv4/conf/eth0/proxy_arp", "1")
}

fn kubelet() -> Result<Child> {
    let (kubeconfig, name, address) = (
        format!("--kubeconfig={KUBELET_CONFIG}"),
        format!("--hostname-override={NAME}"),
        format!("--node-ip={ADDRESS}"),
    );
    let mut args = vec![
        "--config=/etc/kubernetes/kubelet.yaml",
        &kubeconfig,
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        &name,
        &address,
        "--v=2",
    ];
    // Up to 1.26 there was another runtime to choose, and it was the default.
    if kubelet_knows("--container-runtime ")? {
        args.push("--container-runtime=remote");
    }
    daemon("kubelet", &args, KUBELET_LOG)
}

/// Whether kubelet's help has these words.
fn kubelet_knows(words: &str) -> Result<bool> {
    let output =
        Command::new("/bin/kubelet").arg("--help").env("PATH", "/bin").output().context("kubelet")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(words))
}

/// Where it resizes running containers it writes their `memory.high`, too: what writes the same files as we is to be beside us.
fn kubelet_configuration(minor: u32) -> String {
    let qos = if minor >= RESIZES { "featureGates:\n  MemoryQoS: true\n" } else { "" };
    format!("{}{qos}", include_str!("node/kubelet.yaml"))
}

fn kubelet_minor() -> Result<u32> {
    let output =
        Command::new("/bin/kubelet").arg("--version").env("PATH", "/bin").output().context("kubelet")?;
    minor_of(&String::from_utf8_lossy(&output.stdout))
}

/// The minor version in `Kubernetes v1.36.2`.
fn minor_of(version: &str) -> Result<u32> {
    let minor = version.split("v1.").nth(1).and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).with_context(|| format!("the version of kubelet: {version:?}"))
}

fn daemon(program: &str, args: &[&str], log: &str) -> Result<Child> {
    let out = OpenOptions::new().create(true).append(true).open(log).context("log")?;
    Command::new(Path::new("/bin").join(program))
        .args(args)
        .env("PATH", "/bin")
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| program.to_owned())
}

fn ctr(args: &[&str]) -> Result<()> {
    let output =
        Command::new("/bin/ctr").args(["--namespace", "k8s.io"]).args(args).output().context("ctr")?;
    if !output.status.success() {
        bail!("ctr {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// All files; what can't be read has none.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect()
}

fn last_words(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    const TAIL: u64 = 4000;
    let mut tail = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let start = file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(TAIL));
        let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut tail));
    }
    format!("the end of {}:\n{}\n", log.display(), String::from_utf8_lossy(&tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_found_in_what_kubelet_says() {
        assert_eq!(minor_of("Kubernetes v1.36.2\n").unwrap(), 36);
        assert_eq!(minor_of("Kubernetes v1.20.2-debian\n").unwrap(), 20);
        assert!(minor_of("Kubernetes").is_err());
    }

    #[test]
    fn memory_qos_is_on_where_kubelet_resizes_running_containers() {
        assert!(!kubelet_configuration(RESIZES - 1).contains("featureGates"));
        assert!(kubelet_configuration(RESIZES).ends_with("featureGates:\n  MemoryQoS: true\n"));
    }
}
