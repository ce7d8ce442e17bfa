//! What says something about an image: signatures, SBOMs and the like, which name it as subject.
//!
//! distribution-spec, "Listing Referrers". A registry that has no such list keeps it as an index
//! under a tag that is made of the image's digest, `sha256-<hex>`, which clients maintain. The store
//! has the same index under the same tag, so that referrers are held, listed and pushed like images.

use std::collections::BTreeSet;

use bytes::Bytes;
use oci::{Descriptor, Digest, Document, Index, MediaType, Reference, Tag};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, Response, StatusCode, Url};

use super::documents::Fetched;
use super::download::Journey;
use super::error::{Error, Result};
use super::transport::{Call, protocol};
use crate::store::Store;

/// How many pages a list of referrers may have.
const MAX_PAGES: usize = 100;

/// How many referrers of one image travel with it, those of its referrers included. A signature
/// for each night of a few years fits.
pub(super) const MAX_REFERRERS: usize = 2_000;

/// What registries answer that have no list of referrers, or do not like the question.
const UNSUPPORTED: [StatusCode; 4] = [
    StatusCode::NOT_FOUND,
    StatusCode::BAD_REQUEST,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_IMPLEMENTED,
];

/// Returns the tag under which the referrers of a manifest are listed where there is no other list.
///
/// distribution-spec, "Referrers Tag Schema".
pub(crate) fn referrers_tag(subject: &Digest) -> Tag {
    let hex: String = subject.hex().chars().take(64).collect();
    format!("{}-{hex}", subject.algorithm()).parse().expect("a digest makes a tag")
}

impl Journey<'_> {
    /// Lists what refers to a manifest of the repository.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let what = format!("the referrers of {subject}");
        let mut url = self.host.url(&format!("{}/referrers/{subject}", self.repository));
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let understood = [&[StatusCode::OK][..], &UNSUPPORTED].concat();
            let index = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
            let call = Call {
                host: self.host,
                what: &what,
                method: Method::GET,
                url: url.clone(),
                headers: HeaderMap::from_iter([(ACCEPT, index)]),
                scope: self.scope,
                understood: &understood,
            };
            let Some((bytes, next)) = self.page(&call).await? else {
                return Ok(self.tagged_referrers(subject).await?.manifests);
            };
            let host = || self.host.name.clone();
            let index = Index::parse(&bytes).map_err(|source| Error::Document {
                host: host(),
                what: what.clone(),
                source,
            })?;
            found.extend(index.manifests);
            if found.len() > MAX_REFERRERS {
                return Err(protocol(self.host, &format!("{what} are more than {MAX_REFERRERS}")));
            }
            match next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(protocol(self.host, &format!("{what} have more than {MAX_PAGES} pages")))
    }

    /// Fetches a page of a list, and the address of the next; `None` where there is no such list.
    async fn page(&self, call: &Call<'_>) -> Result<Option<(Vec<u8>, Option<Url>)>> {
        let mut patience = self.transport.patience();
        loop {
            match self.page_once(call).await {
                Ok(page) => return Ok(page),
                Err(failure) => {
                    self.transport.pause(&mut patience, failure, call, self.sink).await?;
                }
            }
        }
    }

    async fn page_once(
        &self,
        call: &Call<'_>,
    ) -> Result<Option<(Vec<u8>, Option<Url>)>, super::retry::Failure> {
        let mut response = self.transport.exchange(call, None).await?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let next = match next_page(&response) {
            Some(link) => Some(self.host.resolve(response.url(), &link)?),
            None => None,
        };
        if next.as_ref().is_some_and(|next| !self.host.is_home(next)) {
            return Err(protocol(self.host, "its list goes on at another host").into());
        }
        Ok(Some((self.bounded(&mut response, call).await?, next)))
    }

    /// Returns the list that clients maintain, which is empty where there is none.
    async fn tagged_referrers(&self, subject: &Digest) -> Result<Index> {
        match self.fetch(referrers_tag(subject).as_str(), None, None).await {
            Ok(Fetched { document: Document::Index(index), .. }) => Ok(index),
            // Somebody's image that only looks like one.
            Ok(Fetched { document: Document::Manifest(_), .. }) | Err(Error::NotFound { .. }) => {
                Ok(Index::new(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a manifest that was put to the list that clients maintain of its subject's referrers.
    pub(super) async fn list_as_referrer(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<()> {
        let Ok(document) = Document::parse(bytes, Some(&descriptor.media_type)) else {
            return Ok(());
        };
        let Some(subject) = document.subject().map(|subject| subject.digest) else {
            return Ok(());
        };
        let mut index = self.tagged_referrers(&subject).await?;
        if index.manifests.iter().any(|known| known.digest == descriptor.digest) {
            return Ok(());
        }
        index.manifests.push(entry(descriptor, &document));
        let bytes = index.to_bytes();
        let digest = Digest::sha256(&bytes);
        let list = Descriptor::new(MediaType::OCI_INDEX, digest, bytes.len() as u64);
        let tag = referrers_tag(&subject);
        // It has no subject itself, so this ends here.
        Box::pin(self.put_manifest(tag.as_str(), &list, Bytes::from(bytes))).await
    }

    /// Downloads what refers to a manifest, and what refers to that, and lists it in the store under
    /// the tag that `name`'s repository has for it. Tells how many there are.
    pub(super) async fn pull_referrers(&self, name: &Reference, root: &Digest) -> Result<usize> {
        let (mut queue, mut seen) = (vec![*root], BTreeSet::new());
        while let Some(subject) = queue.pop() {
            let listed = self.referrers(&subject).await?;
            let mut entries = Vec::new();
            for referrer in listed {
                if !seen.insert(referrer.digest) {
                    continue;
                }
                if seen.len() > MAX_REFERRERS {
                    let reason = format!("{root} has more than {MAX_REFERRERS} referrers");
                    return Err(protocol(self.host, &reason));
                }
                let digest = referrer.digest;
                let fetched = self.fetch(&digest.to_string(), Some(digest), None).await?;
                for blob in fetched.document.blobs() {
                    self.blob(blob).await?;
                }
                self.keep(&fetched)?;
                entries.push(entry(&fetched.descriptor, &fetched.document));
                queue.push(digest);
            }
            if entries.is_empty() {
                continue;
            }
            let bytes = Index::new(entries).to_bytes();
            let stored = self.lease.put(&bytes)?;
            let list = Descriptor::new(MediaType::OCI_INDEX, stored.digest, stored.size);
            let name = name.without_digest().with_tag(referrers_tag(&subject));
            self.lease.store().images().set(self.lease, &name, &list)?;
        }
        Ok(seen.len())
    }
}

/// Returns the descriptor of a referrer in a list: distribution-spec, "Listing Referrers".
fn entry(descriptor: &Descriptor, document: &Document) -> Descriptor {
    let (media_type, digest, size) =
        (descriptor.media_type.clone(), descriptor.digest, descriptor.size);
    let mut entry = Descriptor::new(media_type, digest, size);
    match document {
        Document::Manifest(manifest) => {
            let kind = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type);
            entry.artifact_type = Some(kind.clone());
            entry.annotations.clone_from(&manifest.annotations);
        }
        Document::Index(index) => {
            entry.artifact_type.clone_from(&index.artifact_type);
            entry.annotations.clone_from(&index.annotations);
        }
    }
    entry
}

/// Returns where a list goes on: `Link: <address>; rel="next"` (RFC 8288).
fn next_page(response: &Response) -> Option<String> {
    let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|value| value.split(',')).find_map(next_link)
}

fn next_link(link: &str) -> Option<String> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        matches!(parameter.trim().split_once('='), Some(("rel", value)) if value.trim_matches('"') == "next")
    });
    is_next.then(|| address.to_owned())
}

impl Store {
    /// Lists what the store has that refers to a manifest.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn referrers(&self, subject: &Digest) -> crate::Result<Vec<Descriptor>> {
        let tag = referrers_tag(subject);
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for listed in self.images().list()? {
            if listed.reference.is_none_or(|name| name.tag() != Some(&tag)) {
                continue;
            }
            if let Ok(Document::Index(index)) = self.document(&listed.descriptor) {
                let new = index.manifests.into_iter().filter(|entry| seen.insert(entry.digest));
                found.extend(new);
            }
        }
        Ok(found)
    }
}

/// Whether a name is that of a list of referrers.
#[must_use]
pub fn is_referrers_tag(tag: &Tag) -> bool {
    tag.as_str().split_once('-').is_some_and(|(algorithm, hex)| {
        matches!(algorithm, "sha256" | "sha512")
            && hex.len() == 64
            && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_lists_are_made_of_digests() {
        let tag = referrers_tag(&Digest::sha256(b"x"));
        assert_eq!(tag.as_str(), format!("sha256-{}", Digest::sha256(b"x").hex()));
        // A tag has at most 128 characters.
        let long = referrers_tag(&Digest::sha512(b"x"));
        assert_eq!(long.as_str(), format!("sha512-{}", &Digest::sha512(b"x").hex()[..64]));
        assert!(is_referrers_tag(&tag) && is_referrers_tag(&long));
        for other in ["latest", "sha256-abc", "sha1-x", "v1-beta"] {
            assert!(!is_referrers_tag(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn links_to_the_next_page_are_found() {
        let next = Some("/v2/a/referrers/x?last=1".to_owned());
        assert_eq!(next_link(r#"</v2/a/referrers/x?last=1>; rel="next""#), next);
        assert_eq!(next_link("</v2/a/referrers/x?last=1>;rel=next"), next);
        for other in [r#"</x>; rel="prev""#, "</x>", "/x; rel=next", ""] {
            assert_eq!(next_link(other), None);
        }
    }
}
