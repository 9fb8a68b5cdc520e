//! Direct-access memory devices: `/sys/bus/dax/devices`.

use std::fs;
use std::path::{Component, Path};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::file;

/// What kind of memory is behind a device, as far as its place in the device tree tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DaxKind {
    /// A namespace of an NVDIMM bus.
    Pmem,
    /// A CXL region.
    Cxl,
    /// Memory that firmware set aside, of unknown kind.
    Unknown,
}

/// A dax device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaxDevice {
    /// Such as `dax0.0`.
    pub name: String,
    /// The node that its memory goes online as.
    pub target_node: Option<u32>,
    /// The bound driver: `kmem` where it serves as memory, `device_dax` where programs map it.
    pub driver: Option<String>,
    /// The kind of memory.
    pub kind: DaxKind,
}

impl DaxDevice {
    /// Whether its memory is part of the system's.
    #[must_use]
    pub fn is_kmem(&self) -> bool {
        self.driver.as_deref() == Some("kmem")
    }
}

/// Reads `bus/dax/devices/*/{target_node,driver}`, by name. Empty where the kernel has no dax bus.
pub fn read_dax_devices(sys: &Path) -> Result<Vec<DaxDevice>> {
    let dir = sys.join("bus/dax/devices");
    let entries = match fs::read_dir(&dir).map_err(|source| Error::io(&dir, "list", source)) {
        Err(error) if error.is_gone() => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut devices = Vec::new();
    for entry in entries {
        let device = entry.map_err(|source| Error::io(&dir, "list", source))?.path();
        let Some(name) = device.file_name() else { continue };
        let target = device.join("target_node");
        let target_node =
            file::read_if_there(&target)?.map(|text| dax_target_node(&text, &target)).transpose()?.flatten();
        let driver = fs::read_link(device.join("driver"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        let kind = fs::canonicalize(&device).map_or(DaxKind::Unknown, |real| dax_kind(&real));
        devices.push(DaxDevice { name: name.to_string_lossy().into_owned(), target_node, driver, kind });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

/// The text of `target_node`: `None` for -1, when the device knows no node; `path` is for errors.
pub fn dax_target_node(text: &str, path: &Path) -> Result<Option<u32>> {
    let node: i64 = text.trim().parse().map_err(|_| Error::malformed(path, 1, text.trim_end()))?;
    Ok(u32::try_from(node).ok())
}

/// The kind of memory that a device's directory under `/sys/devices` tells of.
#[must_use]
pub fn dax_kind(device: &Path) -> DaxKind {
    for part in device.components() {
        let Component::Normal(part) = part else { continue };
        let part = part.to_string_lossy();
        let numbered = |prefix: &str| {
            part.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        if numbered("ndbus") || numbered("namespace") {
            return DaxKind::Pmem;
        }
        // ACPI0017 is the CXL root device, dax_region its memory as a dax region.
        if numbered("dax_region") || part.starts_with("ACPI0017") || part.starts_with("cxl_") {
            return DaxKind::Cxl;
        }
    }
    DaxKind::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_known_by_its_place_in_the_device_tree() {
        let pmem = "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.0/dax0.0";
        let cxl = "sys/devices/platform/ACPI0017:00/root0/decoder0.0/region1/dax_region1/dax1.0";
        let hmem = "sys/devices/platform/hmem.0/dax2.0";
        let (dir, roots) = tree(&[
            (&format!("{pmem}/target_node"), "1\n"),
            (&format!("{cxl}/target_node"), "2\n"),
            (&format!("{hmem}/target_node"), "-1\n"),
            ("sys/bus/dax/drivers/kmem/new_id", ""),
        ]);
        fs::create_dir_all(roots.sys.join("bus/dax/devices")).unwrap();
        for device in [pmem, cxl, hmem] {
            let device = dir.path().join(device);
            symlink(&device, roots.sys.join("bus/dax/devices").join(device.file_name().unwrap())).unwrap();
        }
        symlink(roots.sys.join("bus/dax/drivers/kmem"), dir.path().join(pmem).join("driver")).unwrap();

        let devices = read_dax_devices(&roots.sys).unwrap();
        let seen: Vec<_> = devices.iter().map(|d| (d.target_node, d.is_kmem(), d.kind)).collect();
        assert_eq!(
            seen,
            [(Some(1), true, DaxKind::Pmem), (Some(2), false, DaxKind::Cxl), (None, false, DaxKind::Unknown)]
        );
    }

    #[test]
    fn a_kernel_without_a_dax_bus_has_no_devices() {
        let (_dir, roots) = tree(&[]);
        assert_eq!(read_dax_devices(&roots.sys).unwrap(), []);
    }
}
