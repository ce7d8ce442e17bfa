//! A registry in memory that does what the specification asks, except where a test interferes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use oci::{Descriptor, Digest, MediaType, Reference};

use crate::server::{Reply, Request, Server};

/// What the registry has.
#[derive(Default)]
pub(crate) struct State {
    /// By repository and digest.
    pub(crate) blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and tag or digest.
    pub(crate) manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    next_upload: usize,
}

type Interfere = dyn Fn(&mut Request, &mut State) -> Option<Reply> + Send + Sync;

/// A registry on a port of this machine.
pub(crate) struct Registry {
    pub(crate) server: Server,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::interfered(|_, _| None)
    }

    /// Starts a registry that asks `interfere` first; its answer, if there is one, goes out.
    pub(crate) fn interfered(
        interfere: impl Fn(&mut Request, &mut State) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, interfere): (_, Box<Interfere>) = (Arc::clone(&state), Box::new(interfere));
        let server = Server::start(move |request| {
            let mut state = shared.lock().unwrap();
            interfere(request, &mut state).unwrap_or_else(|| state.answer(request))
        });
        Self { server, state }
    }

    /// Returns the name of an image in this registry.
    pub(crate) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.server.host()).parse().unwrap()
    }

    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::sha256(bytes);
        let key = (repository.to_owned(), digest.to_string());
        self.state.lock().unwrap().blobs.insert(key, bytes.to_vec());
        Descriptor::new(MediaType::OCI_LAYER_GZIP, digest, bytes.len() as u64)
    }

    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Descriptor {
        let digest = Digest::sha256(bytes);
        let mut state = self.state.lock().unwrap();
        for name in [tag, &digest.to_string()] {
            let content = (media_type.to_string(), bytes.to_vec());
            state.manifests.insert((repository.to_owned(), name.to_owned()), content);
        }
        Descriptor::new(media_type.clone(), digest, bytes.len() as u64)
    }

    pub(crate) fn manifest(&self, repository: &str, name: &str) -> Vec<u8> {
        let key = (repository.to_owned(), name.to_owned());
        self.state.lock().unwrap().manifests[&key].1.clone()
    }

    pub(crate) fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let key = (repository.to_owned(), digest.to_string());
        self.state.lock().unwrap().blobs.contains_key(&key)
    }
}

impl State {
    pub(crate) fn answer(&mut self, request: &mut Request) -> Reply {
        let path = request.path.clone();
        let Some(rest) = path.strip_prefix("/v2/") else { return Reply::new(404) };
        if rest.is_empty() {
            return Reply::new(200);
        }
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return self.upload(request, repository, id);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return self.blob(request, repository, digest);
        }
        match rest.split_once("/manifests/") {
            Some((repository, name)) => self.manifest(request, repository, name),
            None => Reply::new(404),
        }
    }

    fn blob(&self, request: &Request, repository: &str, digest: &str) -> Reply {
        let Some(blob) = self.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
            let body = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#;
            return Reply::new(404).body(body);
        };
        let Some(range) = request.header("range") else { return Reply::new(200).body(&blob[..]) };
        let start = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
        let (start, total) = (start.parse::<usize>().unwrap(), blob.len());
        if start >= total {
            return Reply::new(416);
        }
        let range = format!("bytes {start}-{}/{total}", total - 1);
        Reply::new(206).header("content-range", range).body(&blob[start..])
    }

    fn manifest(&mut self, request: &mut Request, repository: &str, name: &str) -> Reply {
        if request.method == "PUT" {
            let bytes = request.body(usize::MAX);
            let media_type = request.header("content-type").unwrap().to_owned();
            let digest = Digest::sha256(&bytes).to_string();
            for name in [name, &digest] {
                let key = (repository.to_owned(), name.to_owned());
                self.manifests.insert(key, (media_type.clone(), bytes.clone()));
            }
            return Reply::new(201).header("docker-content-digest", digest);
        }
        match self.manifests.get(&(repository.to_owned(), name.to_owned())) {
            Some((media_type, bytes)) => Reply::new(200)
                .header("content-type", media_type)
                .header("docker-content-digest", Digest::sha256(bytes))
                .body(&bytes[..]),
            None => Reply::new(404)
                .body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
        }
    }

    fn upload(&mut self, request: &mut Request, repository: &str, id: &str) -> Reply {
        if request.method == "POST" {
            return self.begin(request, repository);
        }
        let location = format!("/v2/{repository}/blobs/uploads/{id}");
        if !self.uploads.contains_key(id) {
            return Reply::new(404)
                .body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}"#);
        }
        let body = request.body(usize::MAX);
        let Some(upload) = self.uploads.get_mut(id) else { unreachable!() };
        if let Some(range) = request.header("content-range")
            && range.split_once('-').unwrap().0 != upload.len().to_string()
        {
            return Reply::new(416);
        }
        upload.extend(body);
        let range = format!("0-{}", upload.len().saturating_sub(1));
        match request.method.as_str() {
            "PATCH" => Reply::new(202).header("location", location).header("range", range),
            "GET" => Reply::new(204).header("location", location).header("range", range),
            "PUT" => {
                let digest = request.query("digest").unwrap().to_owned();
                let bytes = self.uploads.remove(id).unwrap();
                if Digest::sha256(&bytes).to_string() != digest {
                    let body = r#"{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}"#;
                    return Reply::new(400).body(body);
                }
                self.blobs.insert((repository.to_owned(), digest), bytes);
                Reply::new(201)
            }
            _ => Reply::new(405),
        }
    }

    fn begin(&mut self, request: &Request, repository: &str) -> Reply {
        if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from"))
            && let Some(blob) = self.blobs.get(&(from.to_owned(), digest.to_owned()))
        {
            let key = (repository.to_owned(), digest.to_owned());
            let blob = blob.clone();
            self.blobs.insert(key, blob);
            return Reply::new(201);
        }
        self.next_upload += 1;
        let id = format!("u{}", self.next_upload);
        self.uploads.insert(id.clone(), Vec::new());
        Reply::new(202).header("location", format!("/v2/{repository}/blobs/uploads/{id}"))
    }

    /// Takes only so much of an upload's body, as if the line broke there.
    pub(crate) fn receive_part(&mut self, request: &mut Request, limit: usize) {
        let part = request.body(limit);
        let id = request.path.rsplit('/').next().unwrap();
        self.uploads.get_mut(id).unwrap().extend(part);
    }

    pub(crate) fn lose_uploads(&mut self) {
        self.uploads.clear();
    }
}
