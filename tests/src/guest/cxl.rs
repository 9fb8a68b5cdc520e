//! A CXL type-3 device as memory, by the kernel's own drivers: what `cxl create-region`, `ndctl create-namespace -m devdax` and
//! `daxctl reconfigure-device -m system-ram` do, by sysfs.
//!
//! The emulator's device has persistent memory alone, so its region is one of those.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{kmem, modules, read, write_file};

const DEVICES: &str = "/sys/bus/cxl/devices";
const MEMDEV: &str = "/sys/bus/cxl/devices/mem0";
/// Of the host bridge's window.
const ROOT_DECODER: &str = "/sys/bus/cxl/devices/decoder0.0";

/// Brings the whole device up as movable memory on a node of its own.
pub(super) fn bring_up() -> Result<()> {
    for module in ["cxl_pmem", "cxl_mem", "cxl_pci", "cxl_acpi"].into_iter().chain(kmem::MODULES) {
        modules::load(module)?;
    }
    kmem::wait_for(MEMDEV)?;
    kmem::wait_for(&format!("{MEMDEV}/pmem/size"))?;
    let size = read(format!("{MEMDEV}/pmem/size"))?;
    let region = region(size.trim()).context("CXL region")?;
    ensure!(read(region.join("commit"))?.trim() == "1", "the decoders did not take the region");
    kmem::wait_for(kmem::NAMESPACE)?;
    for (file, value) in [("uuid", "f8d2f0c6-3b52-4bb5-9c53-6c7c8f3f0003"), ("size", size.trim())] {
        write_file(format!("{}/{file}", kmem::NAMESPACE), value)?;
    }
    kmem::as_memory()
}

/// Maps the device into the window.
fn region(size: &str) -> Result<PathBuf> {
    let endpoint = endpoint_decoder()?;
    let create = format!("{ROOT_DECODER}/create_pmem_region");
    let name = read(&create)?.trim().to_owned();
    write_file(&create, &name)?;
    let region = Path::new(DEVICES).join(&name);
    for (file, value) in [
        ("interleave_ways", "1"),
        ("interleave_granularity", "256"),
        // It is a line or none.
        ("uuid", "f8d2f0c6-3b52-4bb5-9c53-6c7c8f3f0002\n"),
        ("size", size),
    ] {
        write_file(region.join(file), value)?;
    }
    write_file(endpoint.join("mode"), "pmem")?;
    write_file(endpoint.join("dpa_size"), size)?;
    let endpoint = endpoint.file_name().unwrap_or_default().to_string_lossy().into_owned();
    write_file(region.join("target0"), endpoint)?;
    write_file(region.join("commit"), "1")?;
    write_file("/sys/bus/cxl/drivers/cxl_region/bind", name)?;
    Ok(region)
}

/// The device's decoder: the one that knows addresses on the device.
fn endpoint_decoder() -> Result<PathBuf> {
    for entry in std::fs::read_dir(DEVICES)? {
        let path = entry?.path();
        if path.join("dpa_size").exists() {
            return Ok(path);
        }
    }
    anyhow::bail!("{DEVICES} has no decoder of an endpoint")
}
