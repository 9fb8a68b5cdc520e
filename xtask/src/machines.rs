//! `--machine NAME|FILE` and `--kernel`, as every task has them that boots a guest.

use std::path::Path;

use thermocline_tests::machine::{Kind, kinds};
use thermocline_tests::scenario::{Kernel, Machine};

/// Which guest.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct MachineArgs {
    /// The machine: hmat (a slow node by the firmware's word), kmem (an NVDIMM as memory), another of tests/machines, or a file like those
    #[arg(long, value_name = "NAME|FILE", default_value = "hmat", value_parser = kind)]
    machine: &'static Kind,
    /// 6.1, 6.12 or 7.2 (or whatever newer kernel Debian sid has by now). Otherwise one that the machine is tested on
    #[arg(long)]
    kernel: Option<Kernel>,
}

impl MachineArgs {
    /// What they are where nobody says anything.
    pub(crate) fn usual() -> Self {
        Self { machine: &kinds()[0], kernel: None }
    }

    /// The machine with the kernel that was asked for, or with this one, or with the newest that it is tested on.
    pub(crate) fn or(self, usual: Kernel) -> Machine {
        let kernels = &self.machine.kernels;
        let newest = kernels.last().copied().unwrap_or(usual);
        let kernel = self.kernel.unwrap_or(if kernels.contains(&usual) { usual } else { newest });
        Machine { kernel, kind: self.machine }
    }
}

/// The machine of that name, or of that file.
///
/// # Errors
/// In words, with the place in the file.
fn kind(word: &str) -> Result<&'static Kind, String> {
    if let Some(kind) = Kind::named(word) {
        return Ok(kind);
    }
    let path = Path::new(word);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let names: Vec<_> = kinds().iter().map(|kind| kind.name.as_str()).collect();
        format!("neither a machine ({}) nor a file that can be read: {error}", names.join(", "))
    })?;
    // It becomes a word of the kernel's command line and the name of a log.
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().chars().map(plain).collect::<String>();
    let kind = Kind::parse(&name, &text).map_err(|error| format!("{word}:{error}"))?;
    // One for each `--machine` of a run.
    Ok(Box::leak(Box::new(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_name_or_its_file() {
        assert_eq!(kind("kmem").unwrap().name, "kmem");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my own.yaml");
        std::fs::write(&path, "about: x\nnodes:\n  - { id: 0, kind: dram, size: 1Gi, cpus: 1 }\n").unwrap();
        assert_eq!(kind(path.to_str().unwrap()).unwrap().name, "my-own");
        std::fs::write(&path, "about: x\nnodes:\n  - { id: 0, kind: dram, size: 1Gi, cpus: 1, rust: 1 }\n")
            .unwrap();
        let said = kind(path.to_str().unwrap()).unwrap_err();
        assert!(said.starts_with(&format!("{}:3:", path.display())) && said.contains("rust"), "{said}");
        let said = kind("knem").unwrap_err();
        assert!(said.contains("neither a machine (hmat, kmem, ") && said.contains("nor a file"), "{said}");
    }

    #[test]
    fn the_kernel_is_the_one_asked_for_or_one_that_the_machine_is_tested_on() {
        let kernel = |name, kernel| {
            MachineArgs { machine: Kind::named(name).unwrap(), kernel }.or(Kernel::V6_12).kernel
        };
        assert_eq!(MachineArgs::usual().or(Kernel::V7_2).to_string(), "7.2 hmat");
        assert_eq!(kernel("hmat", None), Kernel::V6_12);
        assert_eq!(kernel("secure-boot", None), Kernel::V7_2);
        assert_eq!(kernel("secure-boot", Some(Kernel::V6_12)), Kernel::V6_12);
    }
}
