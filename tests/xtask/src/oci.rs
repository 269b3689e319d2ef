//! Small container images without a container engine: an OCI image layout in one tar, as `ctr images import` takes it.
//! Source: OCI image specification 1.1, `image-layout.md`, `manifest.md`, `config.md`. Layers are plain tar, not compressed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::cache::{hex, sorted_entries};
use crate::error::{Context, Result};
use crate::json;
use crate::tar;

/// An image before it is written.
pub struct Image<'a> {
    /// The full name under which containerd will know it: `docker.io/library/busybox:1`.
    pub name: &'a str,
    /// Layers, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub env: &'a [&'a str],
    /// Program and arguments when the user gives none.
    pub command: &'a [&'a str],
}

impl Image<'_> {
    /// The image as an OCI layout in a tar.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut blobs = Blobs::default();
        let layers: Vec<Blob> = self.layers.iter().map(|layer| blobs.add(layer.clone())).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| json::string(&layer.digest)).collect();
        let config = blobs.add(
            format!(
                r#"{{"architecture":"amd64","os":"linux","config":{{"Env":{},"Cmd":{}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
                json_strings(self.env),
                json_strings(self.command),
                diff_ids.join(",")
            )
            .into_bytes(),
        );
        let layers: Vec<String> = layers
            .iter()
            .map(|layer| layer.descriptor("application/vnd.oci.image.layer.v1.tar", ""))
            .collect();
        let manifest = blobs.add(
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
                config.descriptor("application/vnd.oci.image.config.v1+json", ""),
                layers.join(",")
            )
            .into_bytes(),
        );
        let name = format!(r#","annotations":{{"io.containerd.image.name":{}}}"#, json::string(self.name));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            manifest.descriptor("application/vnd.oci.image.manifest.v1+json", &name)
        );
        blobs.into_layout(&index)
    }
}

/// The content-addressed part of a layout.
#[derive(Default)]
struct Blobs(Vec<(String, Vec<u8>)>);

struct Blob {
    digest: String,
    bytes: usize,
}

impl Blobs {
    fn add(&mut self, content: Vec<u8>) -> Blob {
        let sum = hex(&Sha256::digest(&content));
        let blob = Blob { digest: format!("sha256:{sum}"), bytes: content.len() };
        if !self.0.iter().any(|(known, _)| *known == sum) {
            self.0.push((sum, content));
        }
        blob
    }

    fn into_layout(self, index: &str) -> Result<Vec<u8>> {
        let mut archive = tar::Archive::default();
        archive.add("oci-layout", 0o644, tar::Node::File(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        archive.add("index.json", 0o644, tar::Node::File(index.as_bytes()))?;
        for dir in ["blobs", "blobs/sha256"] {
            archive.add(dir, 0o755, tar::Node::Dir)?;
        }
        for (sum, content) in &self.0 {
            archive.add(&format!("blobs/sha256/{sum}"), 0o644, tar::Node::File(content))?;
        }
        Ok(archive.finish())
    }
}

impl Blob {
    fn descriptor(&self, media_type: &str, more: &str) -> String {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more},"platform":{{"architecture":"amd64","os":"linux"}}}}"#,
            self.digest, self.bytes
        )
    }
}

fn json_strings(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| json::string(item)).collect();
    format!("[{}]", items.join(","))
}

/// A layer with everything below `dir`. Devices and sockets are left out.
pub fn layer_of(dir: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::default();
    add_tree(&mut archive, dir, dir)?;
    Ok(archive.finish())
}

fn add_tree(archive: &mut tar::Archive, base: &Path, dir: &Path) -> Result<()> {
    for path in sorted_entries(dir)? {
        let meta = fs::symlink_metadata(&path).context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            let to = fs::read_link(&path).context(|| format!("cannot read {}", path.display()))?;
            archive.add(&name, 0o777, tar::Node::Link(&to.to_string_lossy()))?;
        } else if meta.is_dir() {
            archive.add(&name, mode, tar::Node::Dir)?;
            add_tree(archive, base, &path)?;
        } else if meta.is_file() {
            let content = fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
            archive.add(&name, mode, tar::Node::File(&content))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layers_are_stored_once_and_named_by_their_sha256() {
        let image =
            Image { name: "x:1", layers: vec![b"abc".to_vec(), b"abc".to_vec()], env: &[], command: &[] };
        let tar = image.to_tar().expect("short names");
        // SHA-256 of "abc": FIPS 180-2, appendix B.1.
        let name = b"blobs/sha256/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(tar.windows(name.len()).filter(|window| window == name).count(), 1);
    }
}
