//! How a store is reached: a URL and options become something that can be asked.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::{Method, Signer};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreScheme};
use url::Url;

use super::super::Result;
use super::objects;

/// How long a signed address counts. It has to begin within this time, not to end; clients that
/// go on after a broken connection ask us again.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What a bucket's store can do.
pub(super) trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// Which blobs clients fetch from the bucket themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where clients reach the store, if not where we do.
    pub endpoint: Option<Url>,
    /// Blobs of at least this size, in bytes.
    pub from_bytes: u64,
}

/// Signs addresses under which clients fetch objects.
#[derive(Debug)]
pub(super) struct Redirects {
    signer: Arc<dyn Signer>,
    pub(super) from_bytes: u64,
}

impl Redirects {
    /// Prepares for what `redirect` asks; `None` where the store has no addresses.
    pub(super) fn new(
        redirect: &Redirect,
        url: &Url,
        mut options: Vec<(String, String)>,
    ) -> Result<Option<Self>> {
        if let Some(endpoint) = &redirect.endpoint {
            let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
            options.retain(|(name, _)| !is_endpoint(name));
            options.push(("aws_endpoint".to_owned(), endpoint));
        }
        let from_bytes = redirect.from_bytes;
        Ok(signer(url, &options)?.map(|signer| Self { signer, from_bytes }))
    }

    /// Returns an address under which anybody reads the object `key` for a while.
    pub(super) async fn sign(&self, key: &str) -> Result<Url> {
        let path = super::path(key)?;
        let signed = self.signer.signed_url(Method::GET, &path, ADDRESS_LIFETIME).await;
        signed.map_err(|source| objects::fail("sign", key, source))
    }
}

/// Whether an option says where the store is.
fn is_endpoint(name: &str) -> bool {
    ["aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3", "endpoint", "endpoint_url"]
        .contains(&&*name.to_ascii_lowercase())
}

/// Builds a store from a URL and those options that it knows.
macro_rules! build {
    ($builder:ty, $url:expr, $options:expr) => {
        $options
            .iter()
            .fold(<$builder>::new().with_url($url.as_str()), |builder, (name, value)| {
                match name.to_ascii_lowercase().parse() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                }
            })
            .build()
    };
}

/// Returns the store at `url`.
pub(super) fn store(url: &Url, options: &[(String, String)]) -> Result<Arc<dyn Store>> {
    let connect = || -> std::result::Result<Arc<dyn Store>, StoreError> {
        let (scheme, prefix) = scheme(url)?;
        Ok(match scheme {
            ObjectStoreScheme::Memory => below(InMemory::new(), prefix),
            ObjectStoreScheme::AmazonS3 => below(build!(AmazonS3Builder, url, options)?, prefix),
            ObjectStoreScheme::GoogleCloudStorage => {
                below(build!(GoogleCloudStorageBuilder, url, options)?, prefix)
            }
            ObjectStoreScheme::MicrosoftAzure => {
                below(build!(MicrosoftAzureBuilder, url, options)?, prefix)
            }
            _ => return Err(no_bucket()),
        })
    };
    connect().map_err(|source| objects::fail("use", url.as_str(), source))
}

/// Returns who signs addresses of the store at `url`; nobody for one in memory.
fn signer(url: &Url, options: &[(String, String)]) -> Result<Option<Arc<dyn Signer>>> {
    let connect = || -> std::result::Result<Option<Arc<dyn Signer>>, StoreError> {
        let (scheme, prefix) = scheme(url)?;
        Ok(Some(match scheme {
            ObjectStoreScheme::AmazonS3 => {
                Arc::new(PrefixStore::new(build!(AmazonS3Builder, url, options)?, prefix))
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                Arc::new(PrefixStore::new(build!(GoogleCloudStorageBuilder, url, options)?, prefix))
            }
            ObjectStoreScheme::MicrosoftAzure => {
                Arc::new(PrefixStore::new(build!(MicrosoftAzureBuilder, url, options)?, prefix))
            }
            _ => return Ok(None),
        }))
    };
    connect().map_err(|source| objects::fail("sign for", url.as_str(), source))
}

fn scheme(url: &Url) -> std::result::Result<(ObjectStoreScheme, Path), StoreError> {
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    Ok((scheme, Path::parse(path)?))
}

fn below(store: impl Store, prefix: Path) -> Arc<dyn Store> {
    Arc::new(PrefixStore::new(store, prefix))
}

fn no_bucket() -> StoreError {
    StoreError::Generic { store: "bucket", source: "this is no bucket of a known kind".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_signed_for_where_clients_reach_the_store() {
        // As the program does when it starts; another test may have been first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let url: Url = "s3://images/some/prefix".parse().unwrap();
        let options = [
            ("aws_endpoint", "http://127.0.0.1:9000"),
            ("aws_region", "eu-west-1"),
            ("aws_access_key_id", "me"),
            ("aws_secret_access_key", "secret"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for (endpoint, expected) in [
            (Some("https://cdn.example/"), "https://cdn.example/images/some/prefix/seg/u/n?"),
            (None, "http://127.0.0.1:9000/images/some/prefix/seg/u/n?"),
        ] {
            let endpoint = endpoint.map(|text| text.parse().unwrap());
            let redirect = Redirect { endpoint, from_bytes: 1 };
            let redirects = Redirects::new(&redirect, &url, options.clone()).unwrap().unwrap();
            let signed = redirects.sign("seg/u/n").await.unwrap();
            assert!(signed.as_str().starts_with(expected), "{signed}");
            let query: std::collections::BTreeMap<_, _> = signed.query_pairs().collect();
            assert_eq!(query["X-Amz-Expires"], "900");
            assert!(query["X-Amz-Credential"].starts_with("me/"), "{signed}");
            assert!(!signed.as_str().contains("secret"));
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for url in ["http://example.com/x", "file:///tmp/x"] {
            assert!(store(&url.parse().unwrap(), &[]).is_err(), "{url}");
        }
        let memory = "memory:///".parse().unwrap();
        let redirect = Redirect { endpoint: None, from_bytes: 0 };
        assert!(Redirects::new(&redirect, &memory, Vec::new()).unwrap().is_none());
    }
}
