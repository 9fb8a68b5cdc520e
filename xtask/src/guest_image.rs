//! What a guest boots into: our static binaries, busybox and a kernel's modules, in an initramfs.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::kernels::Unpacked;
use crate::say;
use crate::static_build::{Arch, StaticBuild, is_static, read_static};
use crate::suite::Suite;

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Kernels, images and logs of guests: `target/vm`, or `THERMOCLINE_VM_CACHE`.
pub(crate) fn cache() -> Result<PathBuf> {
    let dir =
        std::env::var_os("THERMOCLINE_VM_CACHE").map_or_else(|| root().join("target/vm"), PathBuf::from);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create the cache {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

/// Holds the cache against other runs of xtask until dropped.
pub(crate) fn lock(cache: &Path) -> Result<File> {
    let file = File::create(cache.join("lock"))?;
    if file.try_lock().is_err() {
        say!("waiting for another xtask to let go of {}", cache.display());
        file.lock()?;
    }
    Ok(file)
}

/// How guests' binaries are built: profiles of Cargo.toml.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// All scenarios, optimised.
    Guest,
    /// What a demo runs, soon built.
    Demo,
}

/// Builds the guests' binaries; returns where they are.
pub(crate) fn build_binaries(profile: Profile, with_agent: bool) -> Result<PathBuf> {
    say!("building the guest's binaries, statically linked");
    let build = StaticBuild {
        arch: Arch::Amd64,
        profile: match profile {
            Profile::Guest => "guest",
            Profile::Demo => "demo",
        },
        default_features: profile == Profile::Guest,
        target_dir: root().join("target/guest"),
        flags: Vec::new(),
        env: Vec::new(),
    };
    let agent = with_agent.then_some("thermocline-agent");
    build.run(&["thermocline-tests"].into_iter().chain(agent).collect::<Vec<_>>())
}

/// A static busybox: the machine's, or one downloaded.
pub(crate) fn busybox(cache: &Path) -> Result<PathBuf> {
    let unpacked = cache.join("busybox");
    for candidate in
        ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().chain([unpacked.clone()])
    {
        if is_static(&candidate) {
            return Ok(candidate);
        }
    }
    let work = cache.join("unpack/busybox");
    let suite = Suite::of_this_machine(cache)?;
    suite.unpack("busybox-static", &work, &work.join("root"))?;
    for inside in ["root/bin/busybox", "root/usr/bin/busybox"] {
        if is_static(&work.join(inside)) {
            std::fs::copy(work.join(inside), &unpacked)?;
            std::fs::remove_dir_all(&work)?;
            return Ok(unpacked);
        }
    }
    anyhow::bail!("busybox-static has no static busybox: the suite has changed shape")
}

/// Writes the initramfs for a kernel.
pub(crate) fn initramfs(
    kernel: &Unpacked,
    binaries: &Path,
    with_agent: bool,
    cache: &Path,
) -> Result<PathBuf> {
    let mut archive = Cpio::default();
    for dir in ["bin", "dev", "lib", "lib/modules", "proc", "run", "sys", "tmp"] {
        archive.dir(dir);
    }
    archive.file("bin/busybox", &std::fs::read(busybox(cache)?)?);
    let ours = [("init", "thermocline-guest"), ("bin/thermocline-workload", "thermocline-workload")];
    let agent = with_agent.then_some(("bin/thermocline-agent", "thermocline-agent"));
    for (inside, name) in ours.into_iter().chain(agent) {
        archive.file(inside, &read_static(&binaries.join(name))?);
    }
    for module in &kernel.modules {
        let name = module.file_name().context("module")?.to_string_lossy();
        archive.file(&format!("lib/modules/{name}"), &std::fs::read(module)?);
    }
    let dir = cache.join("images");
    std::fs::create_dir_all(&dir)?;
    // A guest may be booting from the old one: replaced, not overwritten.
    let path = dir.join(format!("{}{}.cpio", kernel.release, if with_agent { "" } else { "-bare" }));
    let new = path.with_extension("new");
    std::fs::write(&new, archive.finish())?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}

/// Writes an initramfs of `plain` and these files into `directory`.
pub(crate) fn extend(plain: &Path, files: &[(PathBuf, Vec<u8>)], directory: &Path) -> Result<PathBuf> {
    let path = directory.join("initramfs.cpio");
    std::fs::copy(plain, &path).with_context(|| plain.display().to_string())?;
    let mut archive = Cpio::default();
    for (inside, content) in files {
        archive.file_with_parents(inside, content);
    }
    // Kernels unpack archives that follow each other one after the other.
    OpenOptions::new().append(true).open(&path)?.write_all(&archive.finish())?;
    Ok(path)
}

/// A cpio archive in the `newc` format, the one that kernels unpack.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: usize,
    dirs: BTreeSet<PathBuf>,
}

impl Cpio {
    fn dir(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content);
    }

    /// A program, and the directories above it that this archive does not have yet.
    fn file_with_parents(&mut self, path: &Path, content: &[u8]) {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        // The last is the root itself.
        parents.pop();
        for parent in parents.into_iter().rev() {
            if self.dirs.insert(parent.to_owned()) {
                self.dir(&parent.display().to_string());
            }
        }
        self.file(&path.display().to_string(), content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Cpio;

    #[test]
    fn an_archive_is_aligned_headers_and_contents() {
        let mut archive = Cpio::default();
        archive.dir("bin");
        archive.file("bin/x", b"12345");
        let bytes = archive.finish();
        // Header 110 bytes, name with its NUL, each padded to four.
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[110..114], b"bin\0");
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 110..116 + 116], b"bin/x\0");
        assert_eq!(&bytes[232..237], b"12345");
        assert_eq!(bytes.len() % 4, 0);
    }
}
