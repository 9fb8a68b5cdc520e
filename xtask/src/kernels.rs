//! Stock Debian kernels for the guests: found in a suite's lists, downloaded, unpacked, never installed. What a guest
//! needs is kept in a cache, so the next run, also an offline one, takes no network.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use thermocline_tests::modinfo;
use thermocline_tests::scenario::Kernel;

use crate::suite::Suite;
use crate::{say, tools};

/// Modules that guests may load; what they depend on comes along. A name that a kernel lacks is built into it.
const MODULES: &[&str] = &[
    "nfit",
    "nd_btt",
    "nd_pmem",
    "device_dax",
    "dax_pmem",
    "kmem",
    "cxl_acpi",
    "cxl_mem",
    "cxl_pci",
    "cxl_pmem",
    "zram",
    "zsmalloc",
    "lz4",
    "lz4hc",
    "lzo",
    "lzo_rle",
    "virtio_pci",
    "virtio_net",
    "overlay",
    "veth",
];

/// The file in a kernel's directory that says which modules were looked for.
const WANTED: &str = "wanted-modules";

/// A kernel in the cache.
pub(crate) struct Unpacked {
    /// The release, e.g. `6.12.107+deb13-amd64`.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// `*.ko`, uncompressed.
    pub(crate) modules: Vec<PathBuf>,
}

/// The kernel from the cache, downloaded first when it is not there or when `refresh` asks for a new one.
pub(crate) fn ensure(kernel: Kernel, cache: &Path, refresh: bool) -> Result<Unpacked> {
    let dir = cache.join("kernels").join(kernel.as_str());
    let cached = match load(&dir) {
        Some(unpacked) if !refresh && has_every_module(&dir) => {
            say!("kernel {kernel}: {} from {}", unpacked.release, dir.display());
            return Ok(unpacked);
        }
        cached => cached,
    };
    match (download(kernel, cache, &dir), cached) {
        (Ok(()), _) => {
            load(&dir).with_context(|| format!("{} is incomplete after the download", dir.display()))
        }
        (Err(error), Some(old)) => {
            say!("kernel {kernel}: no newer one ({error:#}); keeping {}", old.release);
            Ok(old)
        }
        (Err(error), None) => Err(error.context(format!("no kernel {kernel} for the guests"))),
    }
}

/// The release file is written last, so a directory that has it is complete.
fn load(dir: &Path) -> Option<Unpacked> {
    let release = std::fs::read_to_string(dir.join("release")).ok()?.trim().to_owned();
    let vmlinuz = dir.join("vmlinuz");
    let mut modules: Vec<_> =
        std::fs::read_dir(dir.join("modules")).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    modules.sort();
    vmlinuz.exists().then_some(Unpacked { release, vmlinuz, modules })
}

/// Whether it was unpacked for the modules that guests may load today.
fn has_every_module(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join(WANTED)).is_ok_and(|wanted| wanted == MODULES.join(" "))
}

fn download(kernel: Kernel, cache: &Path, dir: &Path) -> Result<()> {
    let suite_name = suite_of(kernel);
    let suite = Suite::open(suite_name, &cache.join("apt").join(suite_name))?;
    // Since 7.x an image is split; linux-image-* is then an empty package that depends on the parts.
    let names = suite.search("^linux-(image|binary|modules)-[0-9][^ ]*-amd64$")?;
    let (release, packages) = choose(kernel, &names).with_context(|| {
        format!(
            "Debian {suite_name} lists no package linux-image-{kernel}*-amd64 (nor a newer one where that will do): \
             the suite has changed shape or moved on. It lists: {}",
            names.join(" ")
        )
    })?;
    if !release.starts_with(&format!("{kernel}.")) {
        say!("Debian {suite_name} has no kernel {kernel} any more; taking {release}");
    }
    let work = cache.join("unpack").join(kernel.as_str());
    remove_tree(&work)?;
    let root = work.join("root");
    for package in &packages {
        suite.unpack(package, &work, &root)?;
    }
    keep(&release, &root, dir)?;
    remove_tree(&work)?;
    say!("kernel {kernel}: {release} unpacked into {}", dir.display());
    Ok(())
}

fn suite_of(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::V6_1 => "bookworm",
        Kernel::V6_12 => "trixie",
        Kernel::V7_2 => "sid",
    }
}

/// The newest release of the series and the packages that hold its image and modules. Of the rolling suite any newer
/// series will do.
fn choose(kernel: Kernel, names: &[String]) -> Option<(String, Vec<String>)> {
    let mut releases: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let Some((kind, release)) = name.strip_prefix("linux-").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        // Other flavours and meta-packages.
        let plain = !["-cloud-", "-rt-", "-unsigned", "-dbg"].iter().any(|flavour| release.contains(flavour));
        if plain && release.matches('.').count() >= 2 {
            releases.entry(release).or_default().insert(kind);
        }
    }
    let series = format!("{kernel}.");
    let newest = |wanted: &dyn Fn(&str) -> bool| {
        releases.keys().copied().filter(|release| wanted(release)).max_by(|a, b| compare_versions(a, b))
    };
    let release = newest(&|release| release.starts_with(&series)).or_else(|| match kernel {
        Kernel::V7_2 => newest(&|release| compare_versions(release, &series) == Ordering::Greater),
        Kernel::V6_1 | Kernel::V6_12 => None,
    })?;
    let kinds = &releases[release];
    let parts: &[&str] = if kinds.contains("binary") { &["binary", "modules"] } else { &["image"] };
    Some((release.to_owned(), parts.iter().map(|part| format!("linux-{part}-{release}")).collect()))
}

/// By runs of digits as numbers, everything else as text: enough for kernel releases.
fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    }
    parts(a).cmp(&parts(b))
}

/// Keeps the image and the few modules, uncompressed.
fn keep(release: &str, root: &Path, dir: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    let vmlinuz = files
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .with_context(|| format!("the packages of {release} have no vmlinuz: the suite has changed shape"))?;
    let by_name: BTreeMap<String, &PathBuf> =
        files.iter().filter_map(|path| Some((module_name(path)?, path))).collect();
    ensure!(!by_name.is_empty(), "the packages of {release} have no modules: the suite has changed shape");

    remove_tree(dir)?;
    std::fs::create_dir_all(dir.join("modules"))?;
    std::fs::copy(vmlinuz, dir.join("vmlinuz"))?;
    let mut wanted: Vec<String> = MODULES.iter().map(|&name| name.to_owned()).collect();
    let mut done = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        let Some(path) = by_name.get(&name).filter(|_| done.insert(name.clone())) else { continue };
        let module = uncompressed(path)?;
        wanted.extend(modinfo::depends(&module));
        std::fs::write(dir.join("modules").join(format!("{name}.ko")), module)?;
    }
    std::fs::write(dir.join(WANTED), MODULES.join(" "))?;
    std::fs::write(dir.join("release"), format!("{release}\n"))?;
    Ok(())
}

fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return Ok(std::fs::read(path)?);
    }
    ensure!(
        path.extension().is_some_and(|extension| extension == "xz"),
        "{} is compressed in a way this task does not know: the suite has changed shape",
        path.display()
    );
    tools::ensure(&[&tools::XZ])?;
    let output = Command::new("xz").arg("-dc").arg(path).output()?;
    if !output.status.success() {
        bail!("xz -dc {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// `nd_pmem` of `.../nd-pmem.ko.xz`, as the kernel names it.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    Some(
        file.split_once(".ko")
            .filter(|(_, rest)| rest.is_empty() || rest.starts_with('.'))?
            .0
            .replace('-', "_"),
    )
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, choose};

    fn check(kernel: Kernel, names: &[&str], expected: Option<(&str, &[&str])>) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let chosen = choose(kernel, &names);
        let chosen = chosen.as_ref().map(|(release, packages)| {
            (release.as_str(), packages.iter().map(String::as_str).collect::<Vec<_>>())
        });
        assert_eq!(chosen, expected.map(|(release, packages)| (release, packages.to_vec())));
    }

    #[test]
    fn the_newest_of_the_series_is_taken() {
        check(
            Kernel::V6_1,
            &["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64", "linux-image-6.12-amd64"],
            Some(("6.1.0-56-amd64", &["linux-image-6.1.0-56-amd64"])),
        );
    }

    #[test]
    fn other_flavours_are_left() {
        check(
            Kernel::V6_12,
            &[
                "linux-image-6.12.9+deb13-cloud-amd64",
                "linux-image-6.12.8+deb13-amd64",
                "linux-image-6.12.9+deb13-rt-amd64",
            ],
            Some(("6.12.8+deb13-amd64", &["linux-image-6.12.8+deb13-amd64"])),
        );
    }

    #[test]
    fn a_split_image_is_taken_in_its_parts_and_a_newer_series_will_do() {
        check(
            Kernel::V7_2,
            &["linux-image-7.4.1-amd64", "linux-binary-7.4.1-amd64", "linux-modules-7.4.1-amd64"],
            Some(("7.4.1-amd64", &["linux-binary-7.4.1-amd64", "linux-modules-7.4.1-amd64"])),
        );
    }

    #[test]
    fn a_suite_that_moved_on_has_none() {
        check(Kernel::V6_12, &["linux-image-6.18.1+deb14-amd64"], None);
    }
}
