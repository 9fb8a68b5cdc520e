//! An image in one archive, as the OCI's image layout lays it out: <https://github.com/opencontainers/image-spec>, version 1.1.
//!
//! `ctr images import`, `podman load` and `skopeo copy oci-archive:` take it. The same input makes the same bytes: entries
//! are sorted, belong to root and have one modification time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What an image is made of.
pub(crate) struct Image {
    /// Registry, repository and tag, as in `ghcr.io/thermocline/thermocline-agent:0.1.0`.
    pub(crate) name: String,
    /// Its files by their paths in the image, without the leading slash.
    pub(crate) files: BTreeMap<String, File>,
    /// The program that a container runs.
    pub(crate) entrypoint: String,
    /// Numeric, as `65532:65532`: without an `/etc/passwd` no runtime could look up a name.
    pub(crate) user: &'static str,
    /// Labels of the configuration and annotations of the manifest.
    pub(crate) labels: BTreeMap<&'static str, String>,
    /// What its programs run on, as `amd64`.
    pub(crate) architecture: &'static str,
    /// Seconds since 1970: the time of creation and of every file.
    pub(crate) created: u64,
}

/// A file of an image.
pub(crate) struct File {
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

/// The archive of an image.
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    /// Digest of the manifest: what a registry knows the image by.
    pub(crate) digest: String,
}

/// Of a manifest of other manifests.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The archive of images of one name for several architectures: an index of them, of which whoever pulls takes his own.
pub(crate) fn archive_of_all(images: &[Image]) -> Result<Archive> {
    let first = images.first().context("no image")?;
    let mut blobs = Blobs::default();
    let manifests = images.iter().map(|image| image.manifest(&mut blobs)).collect::<Result<Vec<_>>>()?;
    let index = blobs.json(INDEX, &index(&manifests, &first.labels))?;
    finish(blobs, index, first)
}

fn index(manifests: &[Value], annotations: &BTreeMap<&'static str, String>) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations })
}

/// The archive of what `named` describes, under the name of the image.
fn finish(blobs: Blobs, mut named: Value, image: &Image) -> Result<Archive> {
    let (_, tag) = image.name.rsplit_once(':').with_context(|| format!("no tag in {}", image.name))?;
    let digest = named["digest"].as_str().unwrap_or_default().to_owned();
    // containerd names the image by the first, other tools by the second.
    named["annotations"] =
        json!({ "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag });
    let mut files = blobs.files;
    files.insert("oci-layout".to_owned(), serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?);
    files.insert("index.json".to_owned(), serde_json::to_vec(&index(&[named], &BTreeMap::new()))?);
    let files = files.iter().map(|(path, content)| (path.as_str(), 0o644, content.as_slice()));
    Ok(Archive { bytes: tar(files, image.created)?, digest })
}

impl Image {
    /// The archive, in one layer.
    pub(crate) fn archive(&self) -> Result<Archive> {
        let mut blobs = Blobs::default();
        let manifest = self.manifest(&mut blobs)?;
        finish(blobs, manifest, self)
    }

    /// Adds what the image is made of; returns the descriptor of its manifest.
    fn manifest(&self, blobs: &mut Blobs) -> Result<Value> {
        let layer = self.layer()?;
        let config = blobs.json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "created": self.created_text()?,
                "architecture": self.architecture,
                "os": "linux",
                "config": { "User": self.user, "Entrypoint": [self.entrypoint], "WorkingDir": "/", "Labels": self.labels },
                "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
                "history": [{ "created": self.created_text()?, "created_by": "cargo xtask image" }],
            }),
        )?;
        let layer = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&layer)?);
        let mut manifest = blobs.json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": [layer],
                "annotations": self.labels,
            }),
        )?;
        manifest["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        Ok(manifest)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let files = self.files.iter().map(|(path, file)| (path.as_str(), file.mode, file.content.as_slice()));
        tar(files, self.created)
    }

    fn created_text(&self) -> Result<String> {
        Ok(jiff::Timestamp::from_second(self.created.try_into()?)?.to_string())
    }
}

/// Content by its digest.
#[derive(Default)]
struct Blobs {
    files: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Adds the content; returns its descriptor.
    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = digest(&content);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": content.len() });
        self.files.insert(format!("blobs/{}", digest.replace(':', "/")), content);
        descriptor
    }

    fn json(&mut self, media_type: &str, value: &Value) -> Result<Value> {
        Ok(self.add(media_type, serde_json::to_vec(value)?))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A tar archive of the files, which are sorted by path, and of the directories they are in.
pub(super) fn tar<'a>(
    files: impl Iterator<Item = (&'a str, u32, &'a [u8])>,
    modified: u64,
) -> Result<Vec<u8>> {
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(modified);
        header.set_size(size as u64);
        header
    };
    let mut archive = tar::Builder::new(Vec::new());
    let mut directories = BTreeSet::new();
    for (path, mode, content) in files {
        let mut parents: Vec<_> = Path::new(path).ancestors().skip(1).collect();
        // The last is the root itself.
        parents.pop();
        for parent in parents.into_iter().rev() {
            if directories.insert(parent.to_owned()) {
                let mut header = header(tar::EntryType::Directory, 0o755, 0);
                archive.append_data(&mut header, parent.join(""), &[][..])?;
            }
        }
        archive.append_data(&mut header(tar::EntryType::Regular, mode, content.len()), path, content)?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use serde_json::{Value, json};

    use super::{Archive, File, Image, archive_of_all, digest};

    fn image(architecture: &'static str) -> Image {
        let file = |mode, content: &[u8]| File { mode, content: content.to_vec() };
        Image {
            name: "registry.example/pause:1.2".to_owned(),
            files: BTreeMap::from([
                ("pause".to_owned(), file(0o755, b"program")),
                ("usr/share/sbom/pause.cdx.json".to_owned(), file(0o644, b"{}")),
            ]),
            entrypoint: "/pause".to_owned(),
            user: "65532:65532",
            labels: BTreeMap::from([("org.opencontainers.image.version", "1.2".to_owned())]),
            architecture,
            created: 1_700_000_000,
        }
    }

    fn archive() -> Archive {
        image("amd64").archive().unwrap()
    }

    /// Path, mode, modification time and content of each entry.
    fn entries(tar: &[u8]) -> Vec<(String, u32, u64, Vec<u8>)> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
                let (mode, modified) = (header.mode().unwrap(), header.mtime().unwrap());
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (path, mode, modified, content)
            })
            .collect()
    }

    #[test]
    fn the_same_input_makes_the_same_bytes() {
        let (first, second) = (archive(), archive());
        assert!(first.bytes == second.bytes);
        assert_eq!(first.digest, second.digest);
    }

    #[test]
    fn every_descriptor_leads_to_its_content() {
        let archive = archive();
        let files: BTreeMap<String, Vec<u8>> =
            entries(&archive.bytes).into_iter().map(|(path, _, _, content)| (path, content)).collect();
        let read = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
        let follow = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap();
            let content = &files[&format!("blobs/{}", name.replace(':', "/"))];
            assert_eq!(digest(content), name);
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };

        assert_eq!(read("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
        let index = read("index.json");
        let described = &index["manifests"][0];
        assert_eq!(described["digest"], archive.digest);
        assert_eq!(described["annotations"]["io.containerd.image.name"], "registry.example/pause:1.2");
        assert_eq!(described["annotations"]["org.opencontainers.image.ref.name"], "1.2");

        let manifest: Value = serde_json::from_slice(&follow(described)).unwrap();
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        let mut layer = Vec::new();
        GzDecoder::new(&follow(&manifest["layers"][0])[..]).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/pause"]));

        let layer = entries(&layer);
        let shown: Vec<_> =
            layer.iter().map(|(path, mode, modified, _)| (path.as_str(), *mode, *modified)).collect();
        let at = 1_700_000_000;
        assert_eq!(
            shown,
            [
                ("pause", 0o755, at),
                ("usr/", 0o755, at),
                ("usr/share/", 0o755, at),
                ("usr/share/sbom/", 0o755, at),
                ("usr/share/sbom/pause.cdx.json", 0o644, at),
            ]
        );
        assert_eq!(layer[0].3, b"program");
    }

    #[test]
    fn an_archive_for_several_architectures_is_one_name_for_one_index_of_all() {
        let archive = archive_of_all(&[image("amd64"), image("arm64")]).unwrap();
        let files: BTreeMap<String, Vec<u8>> =
            entries(&archive.bytes).into_iter().map(|(path, _, _, content)| (path, content)).collect();
        let follow = |descriptor: &Value| -> Value {
            let name = descriptor["digest"].as_str().unwrap();
            serde_json::from_slice(&files[&format!("blobs/{}", name.replace(':', "/"))]).unwrap()
        };
        let top: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(top["manifests"].as_array().map(Vec::len), Some(1));
        let named = &top["manifests"][0];
        assert_eq!(named["digest"], archive.digest);
        assert_eq!(named["annotations"]["io.containerd.image.name"], "registry.example/pause:1.2");
        let architectures: Vec<Value> = follow(named)["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|manifest| {
                let config = follow(&follow(manifest)["config"]);
                assert_eq!(manifest["platform"]["architecture"], config["architecture"]);
                config["architecture"].clone()
            })
            .collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
    }
}
