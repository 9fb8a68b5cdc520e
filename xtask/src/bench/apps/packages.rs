//! Programs and libraries of Debian for the applications, unpacked, never installed. Of one release, so that everybody measures the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use thermocline_tests::bench::App;

use crate::suite::Suite;

const SUITE: &str = "bookworm";
/// What more than one application is linked with.
const LIBRARIES: &[&str] = &["libc6", "libgcc-s1", "libssl3", "libstdc++6", "zlib1g"];

/// An application's packages.
struct Needs {
    app: &'static str,
    /// The first has the version that is told.
    packages: &'static [&'static str],
    programs: &'static [&'static str],
}

const NEEDS: &[Needs] = &[
    Needs {
        app: "redis",
        packages: &[
            "redis-server",
            "redis-tools",
            "libatomic1",
            "libcap2",
            "libgcrypt20",
            "libgpg-error0",
            "libjemalloc2",
            "liblz4-1",
            "liblzf1",
            "liblzma5",
            "libsystemd0",
            "libzstd1",
        ],
        programs: &["usr/bin/redis-server"],
    },
    Needs {
        app: "memcached",
        packages: &["memcached", "libevent-2.1-7", "libsasl2-2"],
        programs: &["usr/bin/memcached"],
    },
    Needs { app: "nginx", packages: &["nginx", "libcrypt1", "libpcre2-8-0"], programs: &["usr/sbin/nginx"] },
];

/// Where packages have libraries, with `usr` before it or without.
const LIBRARY_DIR: &str = "lib/x86_64-linux-gnu";
const LINKER: &str = "lib64/ld-linux-x86-64.so.2";
/// Written last: a directory that has it is complete. A package and its version a line.
const VERSIONS: &str = "versions";

/// Packages, unpacked.
pub(super) struct Unpacked {
    root: PathBuf,
    versions: String,
}

impl Unpacked {
    /// From the cache, downloaded first where it has not what is needed today.
    pub(super) fn ensure(cache: &Path) -> Result<Self> {
        let root = cache.join("apps");
        let packages: Vec<&str> =
            LIBRARIES.iter().chain(NEEDS.iter().flat_map(|needs| needs.packages)).copied().collect();
        let versions = std::fs::read_to_string(root.join(VERSIONS)).unwrap_or_default();
        let there = versions.lines().filter_map(|line| line.split(' ').next());
        if there.eq(packages.iter().copied()) {
            return Ok(Self { root, versions });
        }
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        let suite = Suite::open(SUITE, &cache.join("apt").join(SUITE))?;
        let work = cache.join("unpack/apps");
        let mut versions = String::new();
        for package in packages {
            suite.unpack(package, &work, &root)?;
            let _ = writeln!(versions, "{package} {}", suite.version(package)?);
        }
        std::fs::write(root.join(VERSIONS), &versions)?;
        Ok(Self { root, versions })
    }

    /// Name and Debian's version of each application.
    pub(super) fn versions(&self, apps: &[&App]) -> Result<String> {
        let version = |app: &&App| {
            let package = needs(app)?.packages[0];
            let line = self.versions.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix(' '));
            Ok(format!("{package} {}", line.unwrap_or_default()))
        };
        Ok(apps.iter().map(version).collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// Path in the guest and content of all that these applications need there.
    pub(super) fn files(&self, apps: &[&App]) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = vec![self.file(Path::new(LINKER))?];
        for app in apps {
            for program in needs(app)?.programs {
                files.push(self.file(Path::new(program))?);
            }
        }
        for dir in [PathBuf::from(LIBRARY_DIR), Path::new("usr").join(LIBRARY_DIR)] {
            for name in libraries(&self.root.join(&dir))? {
                files.push(self.file(&dir.join(name))?);
            }
        }
        Ok(files)
    }

    /// A file by its path in the packages; a link becomes what it leads to.
    fn file(&self, path: &Path) -> Result<(PathBuf, Vec<u8>)> {
        let mut at = path.to_owned();
        for _ in 0..8 {
            let full = self.root.join(&at);
            if !full.is_symlink() {
                let content = std::fs::read(&full)
                    .with_context(|| format!("{}: Debian has changed shape", full.display()))?;
                return Ok((Path::new("/").join(path), content));
            }
            let target = std::fs::read_link(&full)?;
            // One from the root is from that of the packages.
            at = match target.strip_prefix("/") {
                Ok(below) => below.to_owned(),
                Err(_) => at.parent().unwrap_or(Path::new("")).join(target),
            };
        }
        bail!("{} leads to nothing", path.display())
    }
}

/// Names of a directory's libraries, without those that a link of another name leads to: programs ask for the link.
fn libraries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_library = |path: &&PathBuf| path.to_string_lossy().contains(".so") && !path.is_dir();
    let targets: Vec<PathBuf> = paths.iter().filter_map(|path| std::fs::read_link(path).ok()).collect();
    let names = paths.iter().filter(is_library).filter_map(|path| path.file_name().map(PathBuf::from));
    Ok(names.filter(|name| !targets.contains(name)).collect())
}

fn needs(app: &App) -> Result<&'static Needs> {
    let needs = NEEDS.iter().find(|needs| needs.app == app.name);
    needs.with_context(|| format!("nobody said what packages {} needs", app.name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use thermocline_tests::bench::APPS;

    use super::*;

    #[test]
    fn every_application_has_its_packages() {
        assert!(APPS.iter().all(|app| needs(app).is_ok()) && NEEDS.len() == APPS.len());
    }

    #[test]
    fn a_program_that_is_a_link_is_what_it_leads_to_and_a_library_has_the_name_that_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lib");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("liba.so.1.2"), "a").unwrap();
        symlink("liba.so.1.2", dir.join("liba.so.1")).unwrap();
        symlink("/lib/liba.so.1", root.path().join("program")).unwrap();
        assert_eq!(libraries(&dir).unwrap(), [Path::new("liba.so.1")]);
        let unpacked = Unpacked { root: root.path().to_owned(), versions: String::new() };
        assert_eq!(unpacked.file(Path::new("program")).unwrap(), ("/program".into(), b"a".to_vec()));
    }
}
