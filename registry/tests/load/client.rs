//! A client that comes back after every failure, and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use oci::Digest;
use reqwest::header::{CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::random::Random;
use crate::support::{OCI_MANIFEST, client, manifest, noise, with_query};

/// Short names: see `servers`.
const REPOSITORIES: [&str; 3] = ["a", "b", "c/d"];

/// How many layers there are: few, so that images share some and collectors have to decide.
const LAYERS: u64 = 12;

/// How long a registry may stay away.
const PATIENCE: Duration = Duration::from_secs(120);

struct Image {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

/// Pushes, pulls and deletes images under names that nobody else uses.
pub(crate) struct Client {
    number: u64,
    url: String,
    http: reqwest::Client,
    random: Random,
    /// What must be there, by repository and tag.
    present: BTreeMap<(&'static str, String), Image>,
    /// What must not.
    absent: BTreeSet<(&'static str, String)>,
    pub(crate) pushed: usize,
    pub(crate) deleted: usize,
}

impl Client {
    pub(crate) fn new(number: u64, url: String, random: Random) -> Self {
        Self {
            number,
            url,
            http: client(),
            random,
            present: BTreeMap::new(),
            absent: BTreeSet::new(),
            pushed: 0,
            deleted: 0,
        }
    }

    /// Works for a while; what was begun is ended.
    pub(crate) async fn work(mut self, duration: Duration) -> Self {
        let begun = Instant::now();
        while begun.elapsed() < duration || self.pushed == 0 || self.deleted == 0 {
            match self.random.below(10) {
                0..6 => self.push().await,
                6..8 => self.pull().await,
                _ => self.delete().await,
            }
        }
        self
    }

    async fn push(&mut self) {
        let repository = REPOSITORIES[usize::try_from(self.random.below(3)).unwrap()];
        let tag = format!("t{}-{}", self.number, self.pushed);
        let config = format!("{{\"image\":\"{tag}\"}}").into_bytes();
        let seed = self.random.below(LAYERS);
        let size = if seed == 0 { 9 << 20 } else { 1000 + seed * 150_000 };
        let layer = noise(usize::try_from(size).unwrap(), seed);
        let manifest = manifest(&config, &layer).to_string().into_bytes();
        let blobs = vec![config, layer];
        let path = format!("/v2/{repository}/manifests/{tag}");
        let begun = Instant::now();
        'again: loop {
            for blob in &blobs {
                self.push_blob(repository, blob).await;
            }
            loop {
                assert!(begun.elapsed() < PATIENCE, "{path} cannot be pushed");
                let request = self.http.put(format!("{}{path}", self.url));
                let request = request.header(CONTENT_TYPE, OCI_MANIFEST).body(manifest.clone());
                match self.send(request).await {
                    Some(answer) if answer.status() == StatusCode::CREATED => break 'again,
                    // The push took longer than the collector waits: a layer is gone.
                    Some(answer) if answer.status() == StatusCode::NOT_FOUND => continue 'again,
                    Some(answer) => panic!("{path}: {}", answer.status()),
                    None => {}
                }
            }
        }
        self.present.insert((repository, tag), Image { manifest, blobs });
        self.pushed += 1;
    }

    /// Pushes a blob in pieces, going on where the registry says it stands.
    async fn push_blob(&mut self, repository: &str, bytes: &[u8]) {
        let digest = Digest::sha256(bytes);
        let blob = format!("{}/v2/{repository}/blobs/{digest}", self.url);
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{blob} cannot be pushed");
            // A quarter of the clients never ask before they push.
            if self.random.below(4) != 0
                && let Some(answer) = self.send(self.http.head(&blob)).await
                && answer.status() == StatusCode::OK
            {
                return;
            }
            if self.upload(repository, bytes, &digest).await.is_some() {
                return;
            }
        }
    }

    /// Returns whether the registry said that it has the blob.
    async fn upload(&mut self, repository: &str, bytes: &[u8], digest: &Digest) -> Option<()> {
        let begin = self.http.post(format!("{}/v2/{repository}/blobs/uploads/", self.url));
        let begun = self.send(begin).await?;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = format!("{}{}", self.url, begun.headers()[LOCATION].to_str().unwrap());
        let mut sent = 0;
        while sent < bytes.len() {
            let length = 1 + usize::try_from(self.random.below(6 << 20)).unwrap();
            let end = bytes.len().min(sent + length);
            let chunk = self
                .http
                .patch(&location)
                .header("Content-Range", format!("{sent}-{}", end - 1))
                .body(bytes[sent..end].to_vec());
            sent = match self.send(chunk).await {
                Some(answer) if answer.status() == StatusCode::ACCEPTED => end,
                // Whoever was killed in the middle has left as much as this.
                _ => {
                    let status = self.send(self.http.get(&location)).await?;
                    (status.status() == StatusCode::NO_CONTENT).then_some(())?;
                    let range = status.headers()[RANGE].to_str().unwrap();
                    let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
                    if last == 0 { 0 } else { last + 1 }
                }
            };
        }
        let close = self.http.put(with_query(&location, &format!("digest={digest}")));
        (self.send(close).await?.status() == StatusCode::CREATED).then_some(())
    }

    /// Reads an image back from wherever requests lead.
    async fn pull(&mut self) {
        let count = self.present.len() as u64;
        if count == 0 {
            return;
        }
        let index = usize::try_from(self.random.below(count)).unwrap();
        let (repository, tag) = self.present.keys().nth(index).unwrap().clone();
        self.check_image(&self.url.clone(), repository, &tag).await;
    }

    async fn delete(&mut self) {
        let Some(((repository, tag), image)) = self.present.pop_first() else { return };
        let digest = Digest::sha256(&image.manifest);
        let url = format!("{}/v2/{repository}/manifests/{digest}", self.url);
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{url} cannot be deleted");
            match self.send(self.http.delete(&url)).await.map(|answer| answer.status()) {
                // Who was killed may have done it.
                Some(StatusCode::ACCEPTED | StatusCode::NOT_FOUND) => break,
                Some(status) => panic!("{url}: {status}"),
                None => {}
            }
        }
        self.absent.insert((repository, tag));
        self.deleted += 1;
    }

    /// Sends a request; `None` where nobody answered, or somebody who could not.
    async fn send(&self, request: RequestBuilder) -> Option<Response> {
        let answer = request.timeout(Duration::from_secs(20)).send().await.ok();
        let answer = answer.filter(|answer| {
            let status = answer.status();
            !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
        });
        if answer.is_none() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        answer
    }

    /// Gets what must be there.
    async fn get(&self, url: &str) -> Vec<u8> {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{url} cannot be read");
            let Some(answer) = self.send(self.http.get(url)).await else { continue };
            assert_eq!(answer.status(), StatusCode::OK, "{url}");
            // A body may break off.
            if let Ok(bytes) = answer.bytes().await {
                return bytes.to_vec();
            }
        }
    }

    async fn check_image(&self, url: &str, repository: &'static str, tag: &str) {
        let image = &self.present[&(repository, tag.to_owned())];
        let base = format!("{url}/v2/{repository}");
        assert!(self.get(&format!("{base}/manifests/{tag}")).await == image.manifest, "{tag}");
        for blob in &image.blobs {
            let digest = Digest::sha256(blob);
            assert!(self.get(&format!("{base}/blobs/{digest}")).await == *blob, "{digest}");
        }
    }

    /// Checks all that this client knows.
    pub(crate) async fn check(&self, url: &str) {
        for (repository, tag) in self.present.keys() {
            self.check_image(url, repository, tag).await;
        }
        let mut mine = BTreeSet::new();
        for repository in REPOSITORIES {
            let tags = self.get(&format!("{url}/v2/{repository}/tags/list")).await;
            let tags: Value = serde_json::from_slice(&tags).unwrap();
            let prefix = format!("t{}-", self.number);
            let tags = tags["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
            let tags = tags.filter(|tag| tag.starts_with(&prefix));
            mine.extend(tags.map(|tag| (repository, tag.to_owned())));
        }
        assert!(mine.iter().eq(self.present.keys()), "{mine:?} is listed");
        assert!(mine.is_disjoint(&self.absent));
    }
}
