//! The NVDIMM as memory: what `ndctl create-namespace -m devdax` and `daxctl reconfigure-device -m system-ram` do, by sysfs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{modules, read, write_file};

pub(super) const NAMESPACE: &str = "/sys/bus/nd/devices/namespace0.0";
/// From a namespace to system memory.
pub(super) const MODULES: [&str; 5] = ["nd_btt", "nd_pmem", "device_dax", "dax_pmem", "kmem"];
const DAX: &str = "/sys/bus/nd/devices/dax0.0";
const MEMORY: &str = "/sys/devices/system/memory";

/// Brings the NVDIMM up as movable memory on its own node.
pub(super) fn bring_up() -> Result<()> {
    modules::load("nfit")?;
    for module in MODULES {
        modules::load(module)?;
    }
    wait_for(NAMESPACE)?;
    // A namespace without labels is bound to the block driver; its size goes to a dax device instead.
    unbind("/sys/bus/nd/drivers/nd_pmem", "namespace0.0");
    write_file(format!("{NAMESPACE}/force_raw"), "1")?;
    unbind("/sys/bus/nd/drivers/nd_pmem", "namespace0.0");
    as_memory()
}

/// Hands the namespace to dax/kmem.
pub(super) fn as_memory() -> Result<()> {
    for (file, value) in [
        ("mode", "ram"),
        ("align", "2097152"),
        ("uuid", "f8d2f0c6-3b52-4bb5-9c53-6c7c8f3f0001"),
        ("namespace", "namespace0.0"),
    ] {
        write_file(format!("{DAX}/{file}"), value)?;
    }
    write_file("/sys/bus/nd/drivers/dax_pmem/bind", "dax0.0")?;
    wait_for("/sys/bus/dax/devices/dax0.0")?;

    // Movable only: kernel allocations stay out, as on a real PMEM node.
    write_file(format!("{MEMORY}/auto_online_blocks"), "online_movable")?;
    unbind("/sys/bus/dax/drivers/device_dax", "dax0.0");
    write_file("/sys/bus/dax/drivers/kmem/new_id", "dax0.0")?;
    for entry in std::fs::read_dir(MEMORY)? {
        let state = entry?.path().join("state");
        if state.exists() && read(&state)?.trim() == "offline" {
            write_file(&state, "online_movable")?;
        }
    }
    ensure!(Path::new("/sys/bus/dax/drivers/kmem/dax0.0").exists(), "the kmem driver did not take dax0.0");
    Ok(())
}

/// Being unbound already is fine.
fn unbind(driver: &str, device: &str) {
    let _ = write_file(format!("{driver}/unbind"), device);
}

/// Waits until a file of a device is there.
pub(super) fn wait_for(path: &str) -> Result<()> {
    for _ in 0..100 {
        if Path::new(path).exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{path} did not appear")
}
