//! Which endpoint a path means.

use hyper::Method;
use oci::{Digest, Repository};

use super::error::{ApiError, ErrorCode};
use super::query::percent_decode;
use crate::content::{Error, ManifestReference};
use crate::storage::{MAX_REPOSITORY_BYTES, UploadId};

/// The longest repository name, in bytes. Clients limit `host/name` to 255, and
/// the shortest host with its slash takes five; the storage needs the rest of a
/// file name for its own marks.
const MAX_NAME_BYTES: usize = MAX_REPOSITORY_BYTES;

/// An endpoint with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Base,
    /// `/healthz`, `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/token`
    Token,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Repository, UploadId),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Repository, ManifestReference),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest),
}

impl Route {
    /// Parses a path, from the right: a name may contain `blobs`, `uploads` and
    /// all other words of the API.
    pub(super) fn parse(method: &Method, path: &str) -> Result<Self, ApiError> {
        match path {
            "/v2/" | "/v2" => return Ok(Self::Base),
            "/v2/_catalog" | "/v2/_catalog/" => return Ok(Self::Catalog),
            "/healthz" | "/livez" => return Ok(Self::Live),
            "/readyz" => return Ok(Self::Ready),
            "/token" => return Ok(Self::Token),
            _ => {}
        }
        let nothing = || ApiError::not_found(format!("there is nothing at {path}"));
        let path = path.strip_prefix("/v2/").ok_or_else(nothing)?;
        let decoded;
        let path = match path.contains('%') {
            // Digests may come as sha256%3A…; a slash that is hidden is no slash.
            true => {
                decoded = percent_decode(path)
                    .filter(|text| text.matches('/').count() == path.matches('/').count());
                decoded.as_deref().ok_or_else(nothing)?
            }
            false => path,
        };
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let mut parts = trimmed.rsplitn(4, '/');
        let (last, before) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let before_that = parts.next().unwrap_or("");
        let name = |suffix: usize| {
            repository(trimmed.get(..trimmed.len().saturating_sub(suffix)).unwrap_or(""))
        };
        // The lengths count the slash before each part.
        let two = last.len() + before.len() + 2;
        let three = two + before_that.len() + 1;
        match (before_that, before, last) {
            (_, "tags", "list") => Ok(Self::Tags(name(two)?)),
            (_, "blobs", "uploads") => Ok(Self::Uploads(name(two)?)),
            (_, "blobs", digest) => Ok(Self::Blob(name(two)?, self::digest(digest)?)),
            (_, "referrers", digest) => Ok(Self::Referrers(name(two)?, self::digest(digest)?)),
            (_, "manifests", reference) => {
                let name = name(two)?;
                let reference = self::reference(method, &name, reference)?;
                Ok(Self::Manifest(name, reference))
            }
            ("blobs", "uploads", id) => {
                let name = name(three)?;
                let unknown =
                    |_| Error::UploadUnknown { id: id.to_owned(), repository: name.clone() };
                Ok(Self::Upload(name.clone(), id.parse().map_err(unknown)?))
            }
            _ => Err(nothing()),
        }
    }

    /// Returns the methods of the endpoint, as `Allow` lists them.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Live | Self::Ready | Self::Catalog => "GET, HEAD",
            Self::Tags(_) | Self::Referrers(..) => "GET, HEAD",
            Self::Token => "GET, POST",
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
        }
    }
}

/// Parses a repository's name.
pub(super) fn repository(text: &str) -> Result<Repository, ApiError> {
    if text.len() > MAX_NAME_BYTES {
        return Err(ApiError::new(
            ErrorCode::NameInvalid,
            format!("the repository name has {} bytes, the limit is {MAX_NAME_BYTES}", text.len()),
        ));
    }
    text.parse()
        .map_err(|error: oci::Error| ApiError::new(ErrorCode::NameInvalid, error.to_string()))
}

/// Parses a digest.
pub(super) fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error: oci::Error| ApiError::new(ErrorCode::DigestInvalid, error.to_string()))
}

fn reference(
    method: &Method,
    repository: &Repository,
    text: &str,
) -> Result<ManifestReference, ApiError> {
    text.parse().map_err(|error: oci::Error| {
        if text.contains(':') {
            ApiError::new(ErrorCode::DigestInvalid, error.to_string())
        } else if matches!(*method, Method::GET | Method::HEAD) {
            // No tag of that name can exist.
            let message = format!("manifest {text} is not in {repository}");
            ApiError::new(ErrorCode::ManifestUnknown, message)
        } else {
            ApiError::new(ErrorCode::ManifestInvalid, error.to_string())
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Result<Route, ApiError> {
        Route::parse(&Method::GET, path)
    }

    #[test]
    fn names_are_parsed_from_the_right() {
        let digest = Digest::sha256(b"");
        let id = UploadId::from_random([7; 16]);
        for name in [
            "a",
            "a/b",
            "blobs",
            "uploads",
            "manifests",
            "tags",
            "list",
            "referrers",
            "tags/list",
            "blobs/uploads",
            "a/blobs/uploads",
            "a/manifests/latest",
            "a/tags/list",
            "v2",
            "a/referrers",
            "manifests/manifests",
            "blobs/uploads/blobs/uploads",
        ] {
            let repository: Repository = name.parse().unwrap();
            let cases = [
                ("tags/list".to_owned(), Route::Tags(repository.clone())),
                (format!("blobs/{digest}"), Route::Blob(repository.clone(), digest)),
                ("blobs/uploads".to_owned(), Route::Uploads(repository.clone())),
                ("blobs/uploads/".to_owned(), Route::Uploads(repository.clone())),
                (format!("blobs/uploads/{id}"), Route::Upload(repository.clone(), id)),
                (format!("referrers/{digest}"), Route::Referrers(repository.clone(), digest)),
                (
                    format!("manifests/{digest}"),
                    Route::Manifest(repository.clone(), ManifestReference::Digest(digest)),
                ),
                (
                    "manifests/uploads".to_owned(),
                    Route::Manifest(
                        repository.clone(),
                        ManifestReference::Tag("uploads".parse().unwrap()),
                    ),
                ),
            ];
            for (rest, route) in cases {
                assert_eq!(get(&format!("/v2/{name}/{rest}")).unwrap(), route, "{name} {rest}");
            }
        }
    }

    #[test]
    fn hostile_paths_reach_nothing() {
        for path in [
            "/",
            "/v2/x",
            "/v2//tags/list",
            "/v2/tags/list",
            "/v2/../tags/list",
            "/v2/a/../tags/list",
            "/v2/A/tags/list",
            "/v2/a%2fb/tags/list",
            "/v2/a%2F..%2Fb/tags/list",
            "/v2/a%00/tags/list",
            "/v2/a!t/tags/list",
            "/v2/a:b/tags/list",
            "/v2/a/blobs/sha256:abc",
            "/v2/a/blobs/../../etc",
            "/v2/a/blobs/sha256%3Azz",
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/blobs/uploads/..",
            "/v2/a/blobs/uploads/session",
            "/v2/a/manifests/",
            "/v2/a/manifests/-x",
            "/v2/a/manifests/..",
            "/v2/a/manifests/sha256:ab",
            "/v2/é/tags/list",
            "/v2/a/manifests/%ff",
            "/v1/a/tags/list",
            "//v2/",
            "/v2/a/blobs",
            "/v2/%/tags/list",
        ] {
            let error = get(path).expect_err(path);
            assert!(error.status().is_client_error(), "{path}");
        }
        let long = format!("/v2/{}/tags/list", "a".repeat(251));
        assert!(get(&long).is_err());
        assert!(get(&long.replacen('a', "", 1)).is_ok());
    }

    #[test]
    fn encoded_colons_are_understood() {
        let digest = Digest::sha256(b"");
        let path = format!("/v2/a/blobs/{digest}").replace(':', "%3A");
        assert_eq!(get(&path).unwrap(), Route::Blob("a".parse().unwrap(), digest));
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/v2)?(/[a-z%2f./:!-]{0,9}|/blobs|/uploads|/manifests|/tags|/list){0,7}/?") {
            if let Err(error) = get(&path) {
                prop_assert!(error.status().is_client_error());
            }
        }
    }
}
