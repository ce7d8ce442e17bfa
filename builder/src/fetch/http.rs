//! A file on a web server.
//!
//! Two records are kept beside those of steps: by the address, which version it had and
//! what that was; by the content's digest, the blob that holds it. So an unchanged file
//! costs one request, and one whose `--checksum` is known costs none.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use oci::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};
use store::StepRecord;
use store::remote::Get;

use super::{Fetcher, without_password};
use crate::error::{Error, IoContext as _, Result};
use crate::event::Event;
use crate::key::Key;

/// The largest file: above any that people add, below what fills a disk unnoticed.
const MAX_BYTES: u64 = 32 << 30;

/// A file as it is on the server now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// The SHA-256 of its content.
    pub digest: Digest,
    /// When it was changed last, in seconds since 1970, if the server says so.
    pub last_modified: Option<i64>,
    #[serde(default)]
    etag: Option<String>,
}

impl Fetcher<'_> {
    /// Learns what an address leads to now; it is downloaded if that is something new.
    ///
    /// # Errors
    /// Fails when the server cannot be asked, and when the content is not what `checksum`
    /// promises.
    pub fn resolve_http(&self, url: &str, checksum: Option<&Digest>) -> Result<Download> {
        if let Some(checksum) = checksum
            && let Some(known) = self.known_content(checksum)?
        {
            return Ok(known);
        }
        let memo = memo_key(url);
        let record = self.lease.store().steps().get(self.lease, &memo)?;
        let known: Option<Download> =
            record.and_then(|record| serde_json::from_value(record.extra).ok());
        // What a checksum is asked for has to come again: the known version was another.
        let etag =
            if checksum.is_some() { None } else { known.as_ref().and_then(|k| k.etag.clone()) };
        let name = format!("[internal] load {}", without_password(url));
        let found = self.shown(name, |step| self.download(url, etag.as_deref(), step))?;
        let Some(found) = found.or(known) else {
            unreachable!("only a known version can be unchanged");
        };
        if let Some(expected) = checksum {
            self.verify(url, &found, expected)?;
        }
        Ok(found)
    }

    /// Returns the content, at its beginning.
    ///
    /// # Errors
    /// Fails when it has to be downloaded again, and has become another meanwhile.
    pub fn open_http(&self, url: &str, file: &Download) -> Result<File> {
        if self.known_content(&file.digest)?.is_none() {
            let name = format!("[internal] load {}", without_password(url));
            let found = self.shown(name, |step| self.download(url, None, step))?;
            let actual = found.map(|found| found.digest);
            if actual != Some(file.digest) {
                return Err(mismatch(url, actual.unwrap_or(file.digest), &file.digest));
            }
        }
        Ok(self.lease.store().blobs().open(&file.digest)?.file)
    }

    /// Downloads a file and writes down what it is; `None` when it is the version of `etag`.
    fn download(&self, url: &str, etag: Option<&str>, step: usize) -> Result<Option<Download>> {
        self.cancel.check()?;
        let client = self.client();
        let canceller = Arc::clone(&client);
        let _guard = self.cancel.on_stop(move || canceller.cancel());
        let what = super::file_name(url);
        let progress = |current, total| {
            (self.events)(Event::Transfer { step, what: what.clone(), current, total });
        };
        let get = Get { url, etag, max_bytes: MAX_BYTES, progress: &progress };
        let got = client.get(self.lease, &get, &|_| {}).map_err(|source| {
            // Whoever stopped the build knows why.
            self.cancel.check().err().unwrap_or_else(|| Error::Download {
                url: without_password(url),
                source: Box::new(source),
            })
        })?;
        let Some(body) = got.body else { return Ok(None) };
        let last_modified = got.last_modified.and_then(|time| i64::try_from(time).ok());
        let found = Download { digest: body.digest, last_modified, etag: got.etag };
        self.remember(&memo_key(url), Vec::new(), &found)?;
        self.keep_content(&body.digest, &found)?;
        Ok(Some(found))
    }

    /// Returns what is known of content by any of its digests, if the blob is here.
    fn known_content(&self, digest: &Digest) -> Result<Option<Download>> {
        let record = self.lease.store().steps().get(self.lease, &content_key(digest))?;
        Ok(record.and_then(|record| serde_json::from_value(record.extra).ok()))
    }

    fn keep_content(&self, name: &Digest, of: &Download) -> Result<()> {
        self.remember(&content_key(name), vec![of.digest], of)
    }

    fn remember(&self, key: &Digest, blobs: Vec<Digest>, download: &Download) -> Result<()> {
        let extra = serde_json::to_value(download).unwrap_or_default();
        let record = StepRecord { blobs, ..StepRecord::note(extra) };
        Ok(self.lease.store().steps().put(self.lease, key, &record)?)
    }

    /// Compares with a checksum of any algorithm.
    fn verify(&self, url: &str, found: &Download, expected: &Digest) -> Result<()> {
        if expected.algorithm() == Algorithm::Sha256 {
            return match found.digest == *expected {
                true => Ok(()),
                false => Err(mismatch(url, found.digest, expected)),
            };
        }
        let path = self.lease.store().root().blob(&found.digest);
        let mut blob = self.lease.store().blobs().open(&found.digest)?;
        let mut hasher = Hasher::new(expected.algorithm());
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = blob.read(&mut buffer).doing("read", &path)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        let actual = hasher.finish();
        if actual != *expected {
            return Err(mismatch(url, actual, expected));
        }
        self.keep_content(expected, found)
    }
}

fn mismatch(url: &str, actual: Digest, expected: &Digest) -> Error {
    let (what, actual) = (without_password(url), actual.to_string());
    Error::Checksum { what, actual, expected: expected.to_string() }
}

fn memo_key(url: &str) -> Digest {
    let mut key = Key::new("http");
    key.field("url", url);
    key.finish()
}

fn content_key(digest: &Digest) -> Digest {
    let mut key = Key::new("http-content");
    key.field("digest", &digest.to_string());
    key.finish()
}
