//! The agent's Debian package, by dpkg's own `dpkg-deb` (docs/decisions/release.md).

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::AGENT;
use crate::image::{File, Source, VERSION};
use crate::static_build::Arch;
use crate::tools;

/// The user's, once it is there: an upgrade leaves it.
const CONFFILES: &str = "/etc/thermocline/agent.yaml\n";

/// Nothing is started: a host's cgroups have to be named first.
const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade of a running agent: it puts everything back and begins anew.
    systemctl try-restart thermocline-agent.service
fi
";

/// An agent that stops puts everything back; what a killed one left is put back here, while there is still a binary.
const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ]; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now thermocline-agent.service || true
    fi
    thermocline-agent restore || true
fi
";

const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ \"$1\" = purge ]; then
    rm -rf /etc/thermocline
fi
";

fn control(arch: Arch, installed_bytes: usize) -> String {
    format!(
        "Package: {AGENT}\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: The Thermocline authors <noreply@thermocline.io>\n\
         Installed-Size: {}\nSection: admin\nPriority: optional\nHomepage: {}\nDescription: keeps cold memory of cgroups on slow \
         memory nodes\n Moves what nobody accesses in a cgroup from DRAM to PMEM or CXL memory, and back\n what is accessed again, \
         within the policy of each cgroup. Undoes everything when\n it stops. Observes until a policy says otherwise.\n",
        arch.name(),
        installed_bytes.div_ceil(1024),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

/// Writes the package of these files into the directory; returns its path.
pub(super) fn build(
    files: &BTreeMap<String, File>,
    source: &Source,
    arch: Arch,
    dir: &Path,
) -> Result<PathBuf> {
    tools::ensure(&[&tools::DPKG_DEB])?;
    let tree = tempfile::tempdir()?;
    let write = |path: &str, mode: u32, content: &[u8]| -> Result<()> {
        let path = tree.path().join(path);
        let parent = path.parent().context("a path without a directory")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(())
    };
    for (path, file) in files {
        write(path, file.mode, &file.content)?;
    }
    let bytes = files.values().map(|file| file.content.len()).sum();
    write("DEBIAN/control", 0o644, control(arch, bytes).as_bytes())?;
    write("DEBIAN/conffiles", 0o644, CONFFILES.as_bytes())?;
    for (name, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        write(&format!("DEBIAN/{name}"), 0o755, text.as_bytes())?;
    }
    let sh = Shell::new()?;
    // Directories are made with this process's umask, which is not the package's business.
    let root = tree.path();
    cmd!(sh, "chmod -R u=rwX,go=rX {root}").quiet().run()?;
    // Times are the source's, so that the same source makes the same package.
    sh.set_var("SOURCE_DATE_EPOCH", source.created.to_string());
    let path = dir.join(format!("{AGENT}_{VERSION}_{}.deb", arch.name()));
    cmd!(sh, "dpkg-deb --root-owner-group --build {root} {path}").quiet().ignore_stdout().run()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;
    use crate::release::agent_files;

    #[test]
    fn the_package_has_the_agent_its_unit_and_its_configuration_and_starts_nothing() {
        if Command::new("dpkg-deb").arg("--version").output().is_err() {
            // Past the capture of the test's output: it must be seen.
            let _ =
                writeln!(std::io::stderr(), "NOT RUN: the contents of the .deb: there is no dpkg-deb here");
            return;
        }
        let texts = BTreeMap::from([("usr/share/man/man8/thermocline-agent.8", b".TH x".to_vec())]);
        let files = agent_files(b"#!/bin/sh\n".to_vec(), &texts).unwrap();
        let source = Source { revision: "abc".to_owned(), created: 1_700_000_000 };
        let dir = tempfile::tempdir().unwrap();
        let path = build(&files, &source, Arch::Arm64, dir.path()).unwrap();
        assert!(path.ends_with("thermocline-agent_0.1.0_arm64.deb"), "{}", path.display());
        let says = |option: &str| {
            let output = Command::new("dpkg-deb").arg(option).arg(&path).env("TZ", "UTC").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let contents = says("--contents");
        for (mode, file) in [
            ("-rwxr-xr-x root/root", "./usr/bin/thermocline-agent"),
            ("-rw-r--r-- root/root", "./usr/lib/systemd/system/thermocline-agent.service"),
            ("-rw-r--r-- root/root", "./etc/thermocline/agent.yaml"),
            ("-rw-r--r-- root/root", "./usr/share/man/man8/thermocline-agent.8"),
            ("-rw-r--r-- root/root", "./usr/share/doc/thermocline-agent/copyright"),
            ("drwxr-xr-x root/root", "./usr/bin/"),
        ] {
            let line = contents.lines().find(|line| line.ends_with(&format!(" {file}")));
            let line = line.unwrap_or_else(|| panic!("{file} is not in {contents}"));
            assert!(line.starts_with(mode) && line.contains("2023-11-14"), "{line}");
        }
        let field = says("--field");
        for line in ["Package: thermocline-agent", "Version: 0.1.0", "Architecture: arm64"] {
            assert!(field.lines().any(|found| found == line), "{field}");
        }
        // What the unit runs is in the package, and where.
        let unit =
            String::from_utf8(files["usr/lib/systemd/system/thermocline-agent.service"].content.clone())
                .unwrap();
        for line in
            unit.lines().filter(|line| line.starts_with("ExecStart") || line.starts_with("ExecStopPost"))
        {
            let program = line.split('=').nth(1).and_then(|command| command.split(' ').next()).unwrap();
            assert!(files.contains_key(program.trim_start_matches('/')), "{line}");
        }
        let unpacked = dir.path().join("control");
        let status = Command::new("dpkg-deb").arg("--control").arg(&path).arg(&unpacked).status().unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read_to_string(unpacked.join("conffiles")).unwrap(), CONFFILES);
        for script in ["postinst", "prerm", "postrm"] {
            let text = std::fs::read_to_string(unpacked.join(script)).unwrap();
            assert!(Command::new("sh").arg("-n").arg(unpacked.join(script)).status().unwrap().success());
            for starts in ["systemctl start", "systemctl enable"] {
                assert!(!text.contains(starts), "{script}");
            }
        }
        // The same source makes the same package.
        let first = std::fs::read(&path).unwrap();
        build(&files, &source, Arch::Arm64, dir.path()).unwrap();
        assert!(first == std::fs::read(&path).unwrap());
    }
}
