//! One Debian suite, read through a private apt configuration: the machine's own is left alone and no root is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{say, tools};

/// The archive's keys as the installed `debian-archive-keyring` has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite with its package lists fetched.
pub(crate) struct Suite {
    name: String,
    /// Where apt keeps this suite's source line, lists and cache.
    state: PathBuf,
}

/// What is installed on this machine.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";

impl Suite {
    /// Fetches the package lists of `name` into `state`, from the mirror that this machine itself uses.
    pub(crate) fn open(name: &str, state: &Path) -> Result<Self> {
        Self::open_as(name, state, &["deb"])
    }

    /// The same with its source packages.
    pub(crate) fn open_with_sources(name: &str, state: &Path) -> Result<Self> {
        Self::open_as(name, state, &["deb", "deb-src"])
    }

    fn open_as(name: &str, state: &Path, kinds: &[&str]) -> Result<Self> {
        let suite = Self { name: name.to_owned(), state: state.to_owned() };
        for dir in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(state.join(dir))?;
        }
        let _apt = tools::apt();
        let mirror = mirror()?;
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install debian-archive-keyring");
        let lines: Vec<_> = kinds
            .iter()
            .map(|kind| format!("{kind} [arch=amd64 signed-by={KEYRING}] {mirror} {name} main\n"))
            .collect();
        std::fs::write(state.join("sources.list"), lines.concat())?;
        say!("reading the package lists of Debian {name} from {mirror}");
        let output = suite.apt("apt-get").args(["-q", "update"]).output().context("cannot run apt-get")?;
        // apt-get update ends with 0 on some failed downloads, so the lists are looked at, too.
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success() && !error.contains("Failed to fetch"),
            "cannot read the package lists of {name} from {mirror}: no network, or the mirror lacks the suite.\n{error}"
        );
        Ok(suite)
    }

    /// The suite that this machine runs.
    pub(crate) fn of_this_machine(cache: &Path) -> Result<Self> {
        let name = codename()?;
        Self::open(&name, &cache.join("apt").join(&name))
    }

    /// Its code name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The version of a package.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let output = self.apt("apt-cache").args(["--no-all-versions", "show", package]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version.with_context(|| format!("Debian {} has no {package}", self.name))?.to_owned())
    }

    /// Names of packages that match the extended regular expression.
    pub(crate) fn search(&self, names: &str) -> Result<Vec<String>> {
        let output = self.apt("apt-cache").args(["search", "--names-only", names]).output()?;
        ensure!(output.status.success(), "apt-cache search: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Downloads a package into `dir` and unpacks it into `root` (never installs it).
    pub(crate) fn unpack(&self, package: &str, dir: &Path, root: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::create_dir_all(root)?;
        say!("downloading {package} of Debian {}", self.name);
        let mut download = self.apt("apt-get");
        // _apt cannot write to a directory of ours; without its sandbox apt says so in a warning only.
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(dir);
        let output = download.output()?;
        ensure!(
            output.status.success(),
            "cannot download {package} of {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let prefix = format!("{package}_");
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let status = Command::new("dpkg").arg("-x").arg(entry.path()).arg(root).status()?;
                ensure!(status.success(), "dpkg -x {} ended with {status}", entry.path().display());
                std::fs::remove_file(entry.path())?;
                return Ok(());
            }
        }
        bail!("apt-get download {package} left no file {prefix}*.deb in {}", dir.display())
    }

    /// Downloads a package and what of its dependencies is not installed on this machine into `dir`, and unpacks all of it to `dir/root`.
    /// What is installed of the package's own source counts as absent: of another version, it could stand in the way.
    pub(crate) fn unpack_with_dependencies(&self, package: &str, dir: &Path) -> Result<()> {
        let _ = std::fs::remove_dir_all(dir);
        let (archives, root) = (dir.join("archives"), dir.join("root"));
        std::fs::create_dir_all(archives.join("partial"))?;
        std::fs::create_dir_all(&root)?;
        let source = self.source(package)?;
        let status = std::fs::read_to_string(DPKG_STATUS).context(DPKG_STATUS)?;
        std::fs::write(dir.join("status"), without_source(&status, &source))?;
        say!("downloading {package} of Debian {} with what it needs; nothing is installed", self.name);
        let set = |key: &str, path: &str| format!("{key}={}", dir.join(path).display());
        let mut download = self.apt("apt-get");
        download
            .args([
                "-o",
                &set("Dir::State::status", "status"),
                "-o",
                &set("Dir::Cache::archives", "archives"),
            ])
            .args(["-o", "Debug::NoLocking=1", "-q", "-y", "--download-only", "--no-remove"])
            .args(["--no-install-recommends", "install", package]);
        let output = download.output()?;
        ensure!(
            output.status.success(),
            "cannot download {package} of {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        for entry in std::fs::read_dir(&archives)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let status = Command::new("dpkg").arg("-x").arg(&path).arg(&root).status()?;
                ensure!(status.success(), "dpkg -x {} ended with {status}", path.display());
            }
        }
        std::fs::remove_dir_all(&archives)?;
        Ok(())
    }

    /// The source that a package is built from.
    fn source(&self, package: &str) -> Result<String> {
        let output = self.apt("apt-cache").args(["--no-all-versions", "show", package]).output()?;
        ensure!(output.status.success(), "Debian {} has no {package}", self.name);
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(source_of(&text).unwrap_or(package).to_owned())
    }

    /// Downloads a source package into `dir` and unpacks it to `tree`, Debian's patches applied.
    pub(crate) fn unpack_source(&self, package: &str, dir: &Path, tree: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        say!("downloading the source package {package} of Debian {}", self.name);
        let mut download = self.apt("apt-get");
        download.args(["-q", "source", "--download-only", package]).current_dir(dir);
        let output = download.output()?;
        ensure!(
            output.status.success(),
            "cannot download the source package {package} of {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let mut files = std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
        let description = files
            .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
            .with_context(|| format!("apt-get source {package} left no *.dsc in {}", dir.display()))?;
        // apt has checked what it downloaded against the signed lists.
        let output =
            Command::new("dpkg-source").args(["--no-check", "-x"]).arg(&description).arg(tree).output()?;
        ensure!(
            output.status.success(),
            "dpkg-source -x {}: {}",
            description.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let set = |key: &str, value: &Path| format!("{key}={}", value.display());
        command
            .args(["-o", &set("Dir::Etc::SourceList", &self.state.join("sources.list"))])
            .args(["-o", "Dir::Etc::SourceParts=/dev/null"])
            .args(["-o", &set("Dir::State::Lists", &self.state.join("lists"))])
            .args(["-o", &set("Dir::Cache", &self.state.join("cache"))])
            // What this machine has installed, maybe newer than any of the suite, is not what is asked for.
            .args(["-o", "Dir::State::status=/dev/null"])
            .args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"])
            .env("LC_ALL", "C");
        command
    }
}

/// Where this machine gets Debian from: apt reads its own configuration, whatever form that has.
fn mirror() -> Result<String> {
    let output =
        Command::new("apt-get").args(["update", "--print-uris"]).env("LC_ALL", "C").output().context(
            "cannot run apt-get: the guest kernels come from Debian packages, so this needs a Debian machine",
        )?;
    let text = String::from_utf8_lossy(&output.stdout);
    mirror_of(&text, &codename()?).context(
        "apt's configuration names no Debian mirror for this machine's release (looked for .../dists/RELEASE/InRelease)",
    )
}

fn mirror_of(print_uris: &str, codename: &str) -> Option<String> {
    let suffixes = [codename, "stable", "oldstable", "testing", "unstable", "sid"]
        .map(|suite| [format!("dists/{suite}/InRelease"), format!("dists/{suite}/Release")]);
    let uris: Vec<_> =
        print_uris.lines().filter_map(|line| line.strip_prefix('\'')?.split('\'').next()).collect();
    suffixes
        .iter()
        .flatten()
        .find_map(|suffix| uris.iter().find_map(|uri| uri.strip_suffix(suffix.as_str())))
        .map(str::to_owned)
}

/// What a package's description says its source is, without a version.
fn source_of(description: &str) -> Option<&str> {
    let source = description.lines().find_map(|line| line.strip_prefix("Source: "))?;
    source.split_whitespace().next()
}

/// Descriptions of installed packages, but for those of one source.
fn without_source(status: &str, source: &str) -> String {
    let is_other = |description: &&str| source_of(description) != Some(source);
    let others: Vec<&str> = status.split("\n\n").filter(is_other).collect();
    others.join("\n\n")
}

fn codename() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    ensure!(
        value("ID").is_some_and(|id| id.trim_matches('"') == "debian"),
        "the guest kernels are downloaded from Debian's archive with this machine's apt, and this machine is not Debian"
    );
    Ok(value("VERSION_CODENAME").unwrap_or("sid").trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{mirror_of, without_source};

    #[test]
    fn the_mirror_is_the_one_of_the_release_itself() {
        let uris = "'http://mirror.test/security/dists/bookworm-security/InRelease' a 0 \n\
                    'http://mirror.test/debian/dists/bookworm/InRelease' b 0 \n\
                    'http://other.test/dists/tool/InRelease' c 0 \n";
        assert_eq!(mirror_of(uris, "bookworm").as_deref(), Some("http://mirror.test/debian/"));
    }

    #[test]
    fn what_is_installed_of_the_same_source_counts_as_absent() {
        let status =
            "Package: qemu-utils\nSource: qemu (1:10)\n\nPackage: libaio1\nSource: libaio\n\nPackage: sed\n";
        let others = "Package: libaio1\nSource: libaio\n\nPackage: sed\n";
        assert_eq!(without_source(status, "qemu"), others);
    }

    #[test]
    fn no_mirror_is_none() {
        assert_eq!(mirror_of("'http://other.test/dists/tool/InRelease' c 0 \n", "bookworm"), None);
    }
}
