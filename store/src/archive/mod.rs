//! Images as files: `save` and `load`.
//!
//! ```text
//! oci-layout                 image-spec, image-layout.md
//! index.json                 one descriptor per image and name
//! manifest.json              the same for docker: config, names, layers
//! blobs/sha256/<hex>         manifests, configs and layers as they are in the store
//! ```
//!
//! As a directory, the same is an OCI layout ([`Layout`]). One tar is both an OCI archive and a docker archive, as docker writes them since version 25:
//! `docker load`, `podman load`, `skopeo copy oci-archive:` and `docker-archive:` take it. What they
//! write, in either form and also compressed, can be loaded.

mod contents;
mod docker;
mod layout;
mod load;
mod rootfs;
mod save;
#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use load::{Listed, Loaded};
pub use save::ArchiveFormat;

/// The file that marks an OCI layout, and all it says.
const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The list of images for OCI tools.
const INDEX_FILE: &str = "index.json";

/// The list of images for docker.
const MANIFEST_FILE: &str = "manifest.json";

/// The whole name of an image, as docker and podman write and read it.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// The tag, or with other tools the whole name (image-spec, annotations.md).
const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
