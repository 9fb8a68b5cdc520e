//! The bill of materials of a binary, as `CycloneDX` 1.5: <https://cyclonedx.org/docs/1.5/json/>.
//!
//! It lists what is linked in: the crates, Rust's standard library and glibc. Tools of the build are not in it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::guest_image::root;
use crate::static_build::Arch;

/// The bill of materials of a package of the workspace.
///
/// `created` is in seconds since 1970.
pub(crate) fn cyclonedx(package: &str, created: u64, arch: Arch) -> Result<Value> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", arch.target()].map(str::to_owned))
        .exec()?;
    let linked = linked(package, arch)?;
    let is_linked =
        |package: &Package| linked.contains(&(package.name.to_string(), package.version.to_string()));
    let of = |found: &Package| found.name == package;
    let subject =
        metadata.packages.iter().find(|found| of(found)).with_context(|| format!("no {package}"))?;
    let mut components: Vec<Value> = metadata
        .packages
        .iter()
        .filter(|found| is_linked(found) && !of(found))
        .map(|found| component(found, "library"))
        .collect();
    // A crate that the tree has and the metadata lacks would be left out silently.
    ensure!(components.len() + 1 == linked.len(), "cargo tree and cargo metadata disagree about {package}");
    components.push(json!({
        "type": "library", "bom-ref": "std", "name": "std", "version": rustc_version()?,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    components.push(json!({
        "type": "library", "bom-ref": "glibc", "name": "glibc", "version": glibc_version()?,
        "licenses": [{ "license": { "id": "LGPL-2.1-or-later" } }],
    }));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": jiff::Timestamp::from_second(created.try_into()?)?.to_string(),
            "component": component(subject, "application"),
        },
        "components": components,
        "dependencies": dependencies(&metadata, is_linked),
    }))
}

/// Name and version of every crate that ends up in the binary.
///
/// `cargo metadata` alone would resolve features for the whole workspace at once, and add what only tests and tasks use.
fn linked(package: &str, arch: Arch) -> Result<BTreeSet<(String, String)>> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    let (name_and_version, target) = ("{p}", arch.target());
    let tree = cmd!(
        sh,
        "cargo tree --quiet --locked --package {package} --target {target} --edges normal,no-proc-macro --prefix none --format {name_and_version}"
    )
    .quiet()
    .read()?;
    tree.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let version =
                words.next().and_then(|word| word.strip_prefix('v')).with_context(|| line.to_owned())?;
            Ok((name.to_owned(), version.to_owned()))
        })
        .collect()
}

fn component(package: &Package, kind: &str) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version.to_string(),
        "purl": purl(package),
    });
    if let Some(description) = &package.description {
        component["description"] = json!(description.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if let Some(license) = &package.license {
        // Before SPDX expressions a slash meant a choice.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.to_string().replace('+', "%2B"))
}

/// Who depends on whom, among what is linked in.
fn dependencies(metadata: &Metadata, is_linked: impl Fn(&Package) -> bool) -> Vec<Value> {
    let Some(resolve) = &metadata.resolve else { return Vec::new() };
    resolve
        .nodes
        .iter()
        .filter(|node| is_linked(&metadata[&node.id]))
        .map(|node| {
            let depends_on: BTreeSet<String> = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal))
                .map(|dep| &metadata[&dep.pkg])
                .filter(|package| is_linked(package))
                .map(purl)
                .collect();
            json!({ "ref": purl(&metadata[&node.id]), "dependsOn": depends_on })
        })
        .collect()
}

fn rustc_version() -> Result<String> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    let text = cmd!(sh, "rustc --version").quiet().read()?;
    Ok(text.split(' ').nth(1).with_context(|| text.clone())?.to_owned())
}

/// Of the machine that builds, whose `libc.a` is linked in.
fn glibc_version() -> Result<String> {
    let sh = Shell::new()?;
    let text = cmd!(sh, "getconf GNU_LIBC_VERSION").quiet().read()?;
    Ok(text.strip_prefix("glibc ").with_context(|| text.clone())?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Arch, cyclonedx};

    #[test]
    fn a_bill_lists_what_is_linked_in_with_its_licence_and_nothing_else() {
        let bill = cyclonedx("thermocline-agent", 0, Arch::Amd64).unwrap();
        let components = bill["components"].as_array().unwrap();
        let find = |name: &str| components.iter().find(|component| component["name"] == name);
        assert_eq!(bill["metadata"]["component"]["name"], "thermocline-agent");
        assert_eq!(find("tracing").unwrap()["licenses"][0]["expression"], "MIT");
        assert_eq!(find("tiering").unwrap()["licenses"][0]["expression"], "Apache-2.0");
        for linked in ["serde", "rustix", "std", "glibc"] {
            assert!(find(linked).is_some(), "{linked}");
        }
        // A macro, a test's tool, a task's tool.
        for other in ["serde_derive", "expect-test", "flate2"] {
            assert!(find(other).is_none(), "{other}");
        }
        for component in components {
            assert!(component["licenses"].is_array(), "{component}");
        }
        let edges = bill["dependencies"].as_array().unwrap();
        assert!(edges.iter().any(|edge| {
            edge["ref"].as_str().unwrap().starts_with("pkg:cargo/thermocline-agent@")
                && edge["dependsOn"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|on| on.as_str().unwrap().starts_with("pkg:cargo/tiering@"))
        }));
    }
}
