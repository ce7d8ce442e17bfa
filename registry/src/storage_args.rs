//! Where images are kept: the part of the command line, and of the configuration
//! file, that says so.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use crate::storage::{Bucket, Redirect, UploadId};

/// The region that stores without regions expect in signatures.
const DEFAULT_REGION: &str = "us-east-1";

/// Below this, a second request takes longer than the blob.
const DEFAULT_REDIRECT_FROM: u64 = 1 << 20;

/// Where images are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StorageArgs {
    /// Directory that holds the images; several processes may share one
    ///
    /// The default is /var/lib/rregistry for root, else rregistry in $XDG_DATA_HOME
    /// (~/.local/share).
    #[arg(long, value_name = "DIR", env = "RREGISTRY_ROOT", conflicts_with = "storage")]
    root: Option<PathBuf>,

    /// Bucket that holds the images, like s3://bucket/prefix, gs://… or az://…
    ///
    /// Credentials come from the variables that the clouds' own tools read: AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION…, GOOGLE_…, AZURE_….
    #[arg(long, value_name = "URL", env = "RREGISTRY_STORAGE")]
    #[serde(rename = "url")]
    storage: Option<Url>,

    /// Where an S3 store is reached that is not Amazon's; plain HTTP only on loopback
    #[arg(long, value_name = "URL", env = "RREGISTRY_STORAGE_ENDPOINT", requires = "storage")]
    #[serde(rename = "endpoint")]
    storage_endpoint: Option<Url>,

    /// The region of an S3 store
    #[arg(long, value_name = "REGION", env = "RREGISTRY_STORAGE_REGION", requires = "storage")]
    #[serde(rename = "region")]
    storage_region: Option<String>,

    /// Put the bucket into the host's name (bucket.host) rather than the path
    #[arg(long, requires = "storage")]
    #[serde(rename = "virtual-hosted")]
    storage_virtual_hosted: bool,

    /// Let clients fetch large blobs from the bucket themselves, by addresses that count for a
    /// quarter of an hour
    #[arg(long, env = "RREGISTRY_STORAGE_REDIRECT", requires = "storage")]
    #[serde(rename = "redirect")]
    storage_redirect: bool,

    /// Where clients reach the S3 store, if not where the registry does
    #[arg(
        long,
        value_name = "URL",
        env = "RREGISTRY_STORAGE_REDIRECT_ENDPOINT",
        requires = "storage_redirect"
    )]
    #[serde(rename = "redirect-endpoint")]
    storage_redirect_endpoint: Option<Url>,

    /// How large a blob is, in bytes, that clients fetch themselves [default: 1048576]
    #[arg(
        long,
        value_name = "BYTES",
        env = "RREGISTRY_STORAGE_REDIRECT_FROM",
        requires = "storage_redirect"
    )]
    #[serde(rename = "redirect-from")]
    storage_redirect_from: Option<u64>,
}

/// Where images are kept, with all defaults filled in.
pub(crate) enum Place {
    /// In a directory.
    Directory(PathBuf),
    Bucket(BucketPlace),
}

/// Which bucket, and how it is reached.
#[derive(Clone)]
pub(crate) struct BucketPlace {
    pub(crate) url: Url,
    options: Vec<(String, String)>,
    redirect: Option<Redirect>,
}

impl StorageArgs {
    /// Returns these settings if they say where, or else those of a file in
    /// `directory`.
    pub(crate) fn or(self, file: &Self, directory: &Path) -> Self {
        if self.root.is_some() || self.storage.is_some() {
            return self;
        }
        let root = file.root.as_ref().map(|root| directory.join(root));
        Self { root, ..file.clone() }
    }

    /// Returns where images are kept; `environment` is where credentials are.
    pub(crate) fn place(
        &self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Place> {
        if self.root.is_some() && self.storage.is_some() {
            bail!("[storage]: images are kept below `root` or at `url`, not both");
        }
        let Some(url) = &self.storage else {
            let root = self.root.clone().map_or_else(default_root, Ok)?;
            return Ok(Place::Directory(root));
        };
        let mut options = vec![("aws_region".to_owned(), DEFAULT_REGION.to_owned())];
        options.extend(environment.filter(|(name, _)| is_for_stores(name)));
        let mut set = |name: &str, value: &str| options.push((name.to_owned(), value.to_owned()));
        set("aws_virtual_hosted_style_request", &self.storage_virtual_hosted.to_string());
        if let Some(region) = &self.storage_region {
            set("aws_region", region);
        }
        if let Some(endpoint) = &self.storage_endpoint {
            require_encryption(endpoint)?;
            if endpoint.scheme() == "http" {
                set("aws_allow_http", "true");
            }
            set("aws_endpoint", endpoint.as_str().trim_end_matches('/'));
        }
        Ok(Place::Bucket(BucketPlace { url: url.clone(), options, redirect: self.redirect()? }))
    }

    fn redirect(&self) -> anyhow::Result<Option<Redirect>> {
        if !self.storage_redirect {
            return Ok(None);
        }
        let endpoint = self.storage_redirect_endpoint.clone();
        endpoint.iter().try_for_each(require_encryption)?;
        let from_bytes = self.storage_redirect_from.unwrap_or(DEFAULT_REDIRECT_FROM);
        Ok(Some(Redirect { endpoint, from_bytes }))
    }
}

/// Refuses an address where images would go over a network in the clear.
fn require_encryption(endpoint: &Url) -> anyhow::Result<()> {
    if endpoint.scheme() == "http" && !is_loopback(endpoint) {
        bail!("{endpoint} would be sent images without encryption: use https");
    }
    Ok(())
}

/// Opens a bucket and logs what its store does not promise.
pub(crate) async fn open_bucket(place: BucketPlace) -> anyhow::Result<Bucket> {
    use std::io::Read as _;
    // One that somebody else has installed (in tests) is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut nonce = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut nonce))
        .context("cannot read /dev/urandom")?;
    let BucketPlace { url, options, redirect } = place;
    let bucket = Bucket::open(&url, options, redirect, UploadId::from_random(nonce))
        .await
        .with_context(|| format!("cannot use {url} as storage"))?;
    let promises = bucket.promises();
    if !promises.put_if_absent || !promises.put_if_unchanged {
        tracing::warn!(
            promises.put_if_absent,
            promises.put_if_unchanged,
            "the store ignores conditions of writes: see registry-storage.md for what that means"
        );
    }
    Ok(bucket)
}

/// Whether a variable is one that a cloud's own tools read.
fn is_for_stores(name: &str) -> bool {
    ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Returns where images are kept when nobody says.
fn default_root() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/rregistry"));
    }
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
        .context("neither XDG_DATA_HOME nor HOME is set: say where with --root")?;
    Ok(data.join("rregistry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str) -> anyhow::Result<Vec<(String, String)>> {
        let arguments = StorageArgs {
            storage: Some("s3://bucket/prefix".parse().unwrap()),
            storage_endpoint: Some(endpoint.parse().unwrap()),
            ..StorageArgs::default()
        };
        let environment = [("AWS_ACCESS_KEY_ID", "me"), ("PATH", "/bin")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        match arguments.place(environment.into_iter())? {
            Place::Bucket(place) => Ok(place.options),
            Place::Directory(root) => panic!("{} is no bucket", root.display()),
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for endpoint in ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"] {
            let options = options(endpoint).unwrap();
            assert!(options.contains(&("aws_allow_http".to_owned(), "true".to_owned())));
        }
        for endpoint in ["http://10.0.0.1:9000", "http://localhost.example:9000"] {
            assert!(options(endpoint).is_err(), "{endpoint} was accepted");
        }
        let options = options("https://store.example").unwrap();
        assert!(options.iter().all(|(name, _)| name != "aws_allow_http"));
    }

    #[test]
    fn only_variables_for_stores_are_passed_on() {
        let options = options("https://store.example").unwrap();
        assert!(options.contains(&("AWS_ACCESS_KEY_ID".to_owned(), "me".to_owned())));
        assert!(options.iter().all(|(name, _)| name != "PATH"));
    }
}
