//! Manifests and indexes of a registry: fetched and verified, and put there.

use std::io::Write as _;

use bytes::Bytes;
use oci::{
    Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES, MediaType, Platform, Reference,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};

use super::download::Journey;
use super::error::{Error, Result};
use super::retry::Failure;
use super::transport::{Call, protocol};
use crate::error::IoContext as _;

/// How a registry says that it lists a manifest among the referrers of its subject by itself.
const SUBJECT: &str = "oci-subject";

/// How many indexes may lead to each other before a manifest.
pub(super) const MAX_INDEX_DEPTH: usize = 4;

/// A document of a registry: its bytes are what its descriptor says.
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

impl Journey<'_> {
    /// Fetches what a name stands for.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => self.fetch(&digest.to_string(), Some(*digest), None).await,
            (None, Some(tag)) => self.fetch(tag.as_str(), None, None).await,
            (None, None) => unreachable!("a reference has a tag or a digest"),
        }
    }

    /// Follows indexes to the manifest for a platform; returns the indexes on the way as well.
    pub(super) async fn image(
        &self,
        root: Fetched,
        platform: &Platform,
    ) -> Result<(Vec<Fetched>, Fetched)> {
        let (mut indexes, mut current) = (Vec::new(), root);
        while let Document::Index(index) = &current.document {
            if indexes.len() >= MAX_INDEX_DEPTH {
                return Err(protocol(self.host, "its indexes lead to further indexes without end"));
            }
            let entry = index.select(platform).ok_or_else(|| unavailable(index, platform))?.clone();
            indexes.push(current);
            let name = entry.digest.to_string();
            current = self.fetch(&name, Some(entry.digest), Some(&entry)).await?;
            current.descriptor = entry;
        }
        Ok((indexes, current))
    }

    /// Fetches a manifest or index by tag or digest, and verifies it.
    pub(super) async fn fetch(
        &self,
        name: &str,
        digest: Option<Digest>,
        entry: Option<&Descriptor>,
    ) -> Result<Fetched> {
        let what = format!("manifest {name} of {}", self.repository);
        let (bytes, stated) = match self.stored(digest)? {
            Some(bytes) => (bytes, entry.map(|entry| entry.media_type.clone())),
            None => self.get(name, &what).await?,
        };
        let actual = match digest {
            Some(digest) => Digest::of(digest.algorithm(), &bytes),
            None => Digest::sha256(&bytes),
        };
        let host = || self.host.name.clone();
        if digest.is_some_and(|digest| digest != actual) {
            return Err(Error::Corrupt { host: host(), what, actual });
        }
        if let Some(entry) = entry
            && entry.size != bytes.len() as u64
        {
            let reason = format!("{what} has {} bytes, its index says {}", bytes.len(), entry.size);
            return Err(protocol(self.host, &reason));
        }
        let stated = entry.map(|entry| entry.media_type.clone()).or(stated);
        let document = Document::parse(&bytes, stated.as_ref())
            .map_err(|source| Error::Document { host: host(), what, source })?;
        let descriptor = Descriptor::new(document.media_type(), actual, bytes.len() as u64);
        Ok(Fetched { descriptor, bytes, document })
    }

    /// Returns a document that the store has. It is pinned, so that it stays.
    fn stored(&self, digest: Option<Digest>) -> Result<Option<Vec<u8>>> {
        let Some(digest) = digest else { return Ok(None) };
        self.lease.pin(&digest)?;
        match self.lease.store().blobs().contains(&digest)? {
            true => Ok(Some(self.lease.store().blobs().read(&digest, MAX_MANIFEST_BYTES as u64)?)),
            false => Ok(None),
        }
    }

    /// Downloads a document of limited size into memory.
    async fn get(&self, name: &str, what: &str) -> Result<(Vec<u8>, Option<MediaType>)> {
        let accept = MediaType::MANIFESTS.map(|media_type| media_type.to_string()).join(", ");
        let accept = HeaderValue::try_from(accept).expect("media types are a header");
        let call = Call {
            host: self.host,
            what,
            method: Method::GET,
            url: self.host.url(&format!("{}/manifests/{name}", self.repository)),
            headers: HeaderMap::from_iter([(ACCEPT, accept)]),
            scope: self.scope,
            understood: &[StatusCode::OK],
        };
        let mut patience = self.transport.patience();
        loop {
            match self.get_once(&call).await {
                Ok(found) => return Ok(found),
                Err(failure) => {
                    self.transport.pause(&mut patience, failure, &call, self.sink).await?;
                }
            }
        }
    }

    async fn get_once(&self, call: &Call<'_>) -> Result<(Vec<u8>, Option<MediaType>), Failure> {
        let mut response = self.transport.exchange(call, None).await?;
        let media_type = content_type(&response);
        let bytes = self.bounded(&mut response, call).await?;
        let promised = response.headers().get("docker-content-digest");
        let promised = promised.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        if let Some(promised) = promised {
            let actual = Digest::of(promised.algorithm(), &bytes);
            if actual != promised {
                let (host, what) = (self.host.name.clone(), call.what.to_owned());
                return Err(Error::Corrupt { host, what, actual }.into());
            }
        }
        Ok((bytes, media_type))
    }

    /// Reads an answer of limited size into memory.
    pub(super) async fn bounded(
        &self,
        response: &mut Response,
        call: &Call<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.transport.piece(response, call).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_MANIFEST_BYTES {
                let (size, limit) = (bytes.len(), MAX_MANIFEST_BYTES);
                let source = oci::Error::TooLarge { what: "manifest", size, limit };
                let (host, what) = (self.host.name.clone(), call.what.to_owned());
                return Err(Error::Document { host, what, source }.into());
            }
        }
        Ok(bytes)
    }

    /// Puts a document into the store, byte for byte as it came.
    pub(super) fn keep(&self, fetched: &Fetched) -> Result<()> {
        let (digest, size) = (fetched.descriptor.digest, fetched.descriptor.size);
        self.lease.pin(&digest)?;
        if self.lease.store().blobs().contains(&digest)? {
            return Ok(());
        }
        let mut ingest = self.lease.ingest_with(digest.algorithm())?;
        let path = self.lease.store().root().blob(&digest);
        ingest.write_all(&fetched.bytes).doing("write", path)?;
        ingest.commit(Some((digest, size)))?;
        Ok(())
    }

    /// Puts a manifest or index under a tag or digest; where it is about another one, it is listed
    /// among that one's referrers.
    pub(super) async fn put_manifest(
        &self,
        name: &str,
        descriptor: &Descriptor,
        bytes: Bytes,
    ) -> Result<()> {
        let Self { transport, host, repository, scope, sink, .. } = *self;
        let what = format!("manifest {name} of {repository}");
        let media_type = HeaderValue::try_from(descriptor.media_type.as_str())
            .expect("a media type is a header");
        let call = Call {
            host,
            what: &what,
            method: Method::PUT,
            url: host.url(&format!("{repository}/manifests/{name}")),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
            scope,
            understood: &[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED],
        };
        let response = transport.call(&call, Some(bytes.clone()), sink).await?;
        let kept = response.headers().get("docker-content-digest");
        let kept = kept.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match kept {
            Some(kept) if kept != Digest::of(kept.algorithm(), &bytes) => {
                return Err(Error::Corrupt { host: host.name.clone(), what, actual: kept });
            }
            _ => {}
        }
        match response.headers().contains_key(SUBJECT) {
            true => Ok(()),
            false => self.list_as_referrer(descriptor, &bytes).await,
        }
    }
}

fn content_type(response: &Response) -> Option<MediaType> {
    let value = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    MediaType::from_content_type(value).ok()
}

fn unavailable(index: &Index, wanted: &Platform) -> Error {
    let known: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
    let available =
        if known.is_empty() { "no platform at all".to_owned() } else { known.join(", ") };
    let wanted = Box::new(wanted.clone());
    crate::Error::PlatformUnavailable { wanted, available }.into()
}
