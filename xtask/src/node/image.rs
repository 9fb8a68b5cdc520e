//! What a guest that is a Kubernetes node boots into: the initramfs of every guest, and after it an archive with
//! containerd, the kubelet, the images of pods, and what its cluster is known by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use thermocline_tests::node::{IMAGES, PAUSE_IMAGE, WORKLOAD_IMAGE};

use super::packages;
use crate::guest_image::{Profile, build_binaries};
use crate::image::{self, File, Image};
use crate::kube::Made;
use crate::static_build::read_static;

/// Programs of ours that are the only file of an image of the tests, with its name.
const TEST_IMAGES: [(&str, &str); 2] =
    [("thermocline-pause", PAUSE_IMAGE), ("thermocline-workload", WORKLOAD_IMAGE)];

/// Path and content of what every node has: programs, and the archives of images.
pub(super) fn files(cache: &Path, servers: &Made) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let kubelet = servers.servers.join("kubelet");
    let mut files = packages::files(cache, &kubelet)?;
    files.push(("/bin/kubelet".into(), std::fs::read(&kubelet).context("kubelet")?));
    files.extend(images()?);
    Ok(files)
}

/// The archive of every image that the node is to have.
fn images() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let binaries = build_binaries(Profile::Guest, true)?;
    let mut files = Vec::new();
    for (program, name) in TEST_IMAGES {
        let content = read_static(&binaries.join(program))?;
        let image = Image {
            name: name.to_owned(),
            files: BTreeMap::from([(program.to_owned(), File { mode: 0o755, content })]),
            entrypoint: format!("/{program}"),
            user: "0:0",
            labels: BTreeMap::new(),
            architecture: "amd64",
            created: 0,
        };
        files.push((Path::new(IMAGES).join(format!("{program}.tar")), image.archive()?.bytes));
    }
    files.push((Path::new(IMAGES).join("agent.tar"), image::agent(&binaries)?));
    Ok(files)
}
