//! Which scheme, certificates and proxy a host wants.
//!
//! A host of this machine, or one that is allowed to be insecure, is asked over plain HTTP first,
//! unless there are certificates for it; one that does not speak HTTP on that port gets TLS. All
//! others get TLS only.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use oci::{Reference, Repository};
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, ClientBuilder, Identity, NoProxy, Proxy, StatusCode, Url};

use super::auth::{Credential, HostAuth, Scope};
use super::error::{Error, Result, TIMED_OUT, innermost};
use super::options::ClientOptions;

/// How much of an HTTP/2 answer may be on its way: a gigabit over 100 ms needs 12 MiB.
const HTTP2_WINDOW_BYTES: u32 = 16 << 20;

/// A host that takes longer to accept a connection is as good as down.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(20);

/// What never goes through a proxy.
const OWN_ADDRESSES: &str = "localhost,127.0.0.0/8,::1";

/// All the hosts a client knows, and how to reach each.
#[derive(Debug)]
pub(super) struct Hosts {
    options: ClientOptions,
    plain: OnceLock<Client>,
    /// TLS clients, by the host whose certificates they have; the empty name for no special ones.
    tls: Mutex<BTreeMap<String, Client>>,
    bases: Mutex<BTreeMap<String, Arc<Base>>>,
    known: Mutex<BTreeMap<String, Arc<Host>>>,
}

/// One registry, seen from one repository.
#[derive(Debug)]
pub(super) struct Host {
    /// The host and port.
    pub(super) name: String,
    /// Who we are there.
    pub(super) auth: HostAuth,
    base: Arc<Base>,
}

/// The address of a registry.
#[derive(Debug)]
struct Base {
    url: Url,
    has_answered: AtomicBool,
    /// What the first answer demanded, if it was asked for to find out the scheme.
    challenge: Option<HeaderMap>,
}

impl Host {
    /// Returns an address below the root of the registry's API.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.url.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// Returns the address that an answer points to, relative to the address that was asked.
    ///
    /// Behind a proxy that ends TLS, registries point to themselves by `http`: it is corrected.
    pub(super) fn resolve(&self, asked: &Url, location: &str) -> Result<Url> {
        let mut url = asked.join(location).map_err(|error| Error::Protocol {
            host: self.name.clone(),
            reason: format!("it points to {location:?}: {error}"),
        })?;
        let base = &self.base.url;
        if base.scheme() == "https"
            && url.scheme() == "http"
            && (url.host_str(), url.port()) == (base.host_str(), base.port())
        {
            // Cannot fail between these two schemes.
            let _always_ok = url.set_scheme("https");
        }
        Ok(url)
    }

    /// Whether an address is at this host, so that credentials may go there.
    pub(super) fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.base.url.origin()
    }

    pub(super) fn has_answered(&self) -> bool {
        self.base.has_answered.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) {
        self.base.has_answered.store(true, Ordering::Relaxed);
    }
}

impl Hosts {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self {
            options,
            plain: OnceLock::new(),
            tls: Mutex::default(),
            bases: Mutex::default(),
            known: Mutex::default(),
        }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Returns the registry of a reference, with the credentials for its repository.
    pub(super) async fn of(&self, reference: &Reference) -> Result<Arc<Host>> {
        let (registry, api_host) = (reference.registry(), reference.api_host());
        let key = format!("{api_host}/{}", reference.repository());
        if let Some(host) = lock(&self.known).get(&key) {
            return Ok(Arc::clone(host));
        }
        let base = self.base(api_host).await?;
        let credential = self.credential(registry, reference.repository()).await?;
        let host = Self::host(api_host, base, credential).await;
        Ok(Arc::clone(lock(&self.known).entry(key).or_insert(host)))
    }

    /// Returns a registry, to be tried with the given credential.
    pub(super) async fn with_credential(
        &self,
        api_host: &str,
        credential: Option<Credential>,
    ) -> Result<Arc<Host>> {
        let base = self.base(api_host).await?;
        Ok(Self::host(api_host, base, credential).await)
    }

    async fn host(name: &str, base: Arc<Base>, credential: Option<Credential>) -> Arc<Host> {
        let auth = HostAuth::new(name, credential);
        if let Some(headers) = &base.challenge {
            // Whether there is an answer to it shows with the first request.
            let _ = auth.challenged(headers, None, &Scope::default()).await;
        }
        Arc::new(Host { name: name.to_owned(), auth, base })
    }

    /// Returns the first credential that the files have. Helpers may take their time, so this
    /// happens on a thread of its own.
    async fn credential(
        &self,
        registry: &str,
        repository: &Repository,
    ) -> Result<Option<Credential>> {
        let files = self.options.auth_files.clone();
        if files.is_empty() {
            return Ok(None);
        }
        let helpers = self.options.helper_directory.clone();
        let (registry, repository) = (registry.to_owned(), repository.to_string());
        tokio::task::spawn_blocking(move || {
            let find = |file: &super::auth::AuthFile| {
                file.credential(&registry, Some(&repository), helpers.as_deref()).transpose()
            };
            files.iter().find_map(find).transpose()
        })
        .await
        .expect("reading credentials does not panic")
    }

    /// Returns the client to reach an address with.
    pub(super) fn client(&self, url: &Url) -> Result<Client> {
        if url.scheme() == "http" {
            return self.plain_client();
        }
        let host = host_and_port(url);
        let is_special = self.is_insecure(&host) || !self.certificates(&host).is_empty();
        let key = if is_special { host } else { String::new() };
        if let Some(client) = lock(&self.tls).get(&key) {
            return Ok(client.clone());
        }
        let client = self.tls_client(&key)?;
        Ok(lock(&self.tls).entry(key).or_insert(client).clone())
    }

    /// Whether an address may be spoken to without TLS.
    pub(super) fn is_plain_allowed(&self, url: &Url) -> bool {
        let host = host_and_port(url);
        is_loopback(&host) || self.is_insecure(&host)
    }

    fn is_insecure(&self, host: &str) -> bool {
        let name = without_port(host);
        self.options.insecure_hosts.iter().any(|allowed| allowed == host || allowed == name)
    }

    /// Finds out how to reach a registry.
    async fn base(&self, api_host: &str) -> Result<Arc<Base>> {
        if let Some(base) = lock(&self.bases).get(api_host) {
            return Ok(Arc::clone(base));
        }
        let address = |scheme: &str| {
            Url::parse(&format!("{scheme}://{api_host}")).map_err(|error| Error::Unreachable {
                host: api_host.to_owned(),
                reason: error.to_string(),
            })
        };
        let may_be_plain = (is_loopback(api_host) || self.is_insecure(api_host))
            && self.certificates(api_host).is_empty();
        let base = match may_be_plain {
            true => match self.probe(address("http")?).await? {
                Some(base) => base,
                None => Base::new(address("https")?),
            },
            false => Base::new(address("https")?),
        };
        Ok(Arc::clone(lock(&self.bases).entry(api_host.to_owned()).or_insert(Arc::new(base))))
    }

    /// Asks for the API's root over plain HTTP; `None` if the host seems to want TLS.
    async fn probe(&self, url: Url) -> Result<Option<Base>> {
        let mut root = url.clone();
        root.set_path("/v2/");
        let request = self.plain_client()?.get(root).send();
        let Ok(answer) = tokio::time::timeout(self.options.timeout, request).await else {
            let (host, reason) = (host_and_port(&url), TIMED_OUT.to_owned());
            return Err(Error::Unreachable { host, reason });
        };
        match answer {
            // What servers say to plain HTTP on a TLS port.
            Ok(answer) if answer.status() == StatusCode::BAD_REQUEST => Ok(None),
            Ok(answer) => {
                let is_refused = answer.status() == StatusCode::UNAUTHORIZED;
                let challenge = is_refused.then(|| answer.headers().clone());
                let base = Base { challenge, ..Base::new(url) };
                base.has_answered.store(true, Ordering::Relaxed);
                Ok(Some(base))
            }
            Err(error) if error.is_connect() || error.is_timeout() => {
                Err(Error::Unreachable { host: host_and_port(&url), reason: innermost(&error) })
            }
            Err(_) => Ok(None),
        }
    }

    fn plain_client(&self) -> Result<Client> {
        if let Some(client) = self.plain.get() {
            return Ok(client.clone());
        }
        // Without any certificates, none are loaded; it never gets an `https` address.
        let client = self.builder()?.tls_certs_only([]).build().map_err(|e| setup("HTTP", &e))?;
        Ok(self.plain.get_or_init(|| client).clone())
    }

    fn tls_client(&self, host: &str) -> Result<Client> {
        let mut extra = Vec::new();
        let mut identity = None;
        for path in &self.options.ca_files {
            extra.extend(certificates(path)?);
        }
        for path in self.certificates(host) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => extra.extend(certificates(&path)?),
                _ => identity = Some(client_identity(&path)?),
            }
        }
        let prepare = || -> Result<ClientBuilder> {
            let builder = self.builder()?;
            Ok(match identity.clone() {
                Some(identity) => builder.identity(identity),
                None => builder,
            })
        };
        if self.is_insecure(host) {
            let builder = prepare()?.tls_certs_only([]).tls_danger_accept_invalid_certs(true);
            return builder.build().map_err(|error| setup("TLS", &error));
        }
        match prepare()?.tls_certs_merge(extra.clone()).build() {
            // A machine without certificates of its own may still have those it was given.
            Err(_) if !extra.is_empty() => prepare()?.tls_certs_only(extra).build(),
            result => result,
        }
        .map_err(|error| setup("TLS (are the system's ca-certificates installed?)", &error))
    }

    /// Returns what every client has in common.
    fn builder(&self) -> Result<ClientBuilder> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Whoever came first is as good.
            let _other = rustls::crypto::ring::default_provider().install_default();
        }
        let options = &self.options;
        let mut builder = Client::builder()
            .user_agent(&options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.timeout.min(MAX_CONNECT_TIME))
            .http2_initial_stream_window_size(HTTP2_WINDOW_BYTES / 4)
            .http2_initial_connection_window_size(HTTP2_WINDOW_BYTES)
            .no_proxy();
        let proxies = &options.proxies;
        let direct = match &proxies.no_proxy {
            Some(list) => format!("{OWN_ADDRESSES},{list}"),
            None => OWN_ADDRESSES.to_owned(),
        };
        let address = |of: &Option<String>| of.clone().filter(|address| !address.is_empty());
        let made = [
            address(&proxies.http).map(Proxy::http),
            address(&proxies.https).map(Proxy::https),
            address(&proxies.all).map(Proxy::all),
        ];
        for proxy in made.into_iter().flatten() {
            let proxy = proxy.map_err(|error| setup("a proxy", &error))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
        }
        Ok(builder)
    }

    /// Returns the certificate files for a host alone, in the order of their names.
    fn certificates(&self, host: &str) -> Vec<PathBuf> {
        let is_wanted = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "crt" || extension == "cert")
        };
        let mut files: Vec<PathBuf> = self
            .options
            .certs_directories
            .iter()
            .filter(|_| !host.is_empty())
            .filter_map(|directory| fs::read_dir(directory.join(host)).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(is_wanted)
            .collect();
        files.sort();
        files
    }
}

impl Base {
    fn new(url: Url) -> Self {
        Self { url, has_answered: AtomicBool::new(false), challenge: None }
    }
}

/// Whether a host (with or without port) is this machine.
fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .and_then(|name| name.parse::<Ipv6Addr>().ok())
            .is_some_and(|address| address.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let pem = fs::read(path).map_err(failed)?;
    Certificate::from_pem_bundle(&pem).map_err(|error| failed(std::io::Error::other(error)))
}

/// Reads a certificate of ours and the key beside it.
fn client_identity(certificate: &Path) -> Result<Identity> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| Error::File {
            action: "read",
            path: path.to_owned(),
            source,
        })
    };
    let mut pem = read(&certificate.with_extension("key"))?;
    pem.push(b'\n');
    pem.extend(read(certificate)?);
    Identity::from_pem(&pem).map_err(|error| Error::File {
        action: "read",
        path: certificate.to_owned(),
        source: std::io::Error::other(error),
    })
}

fn setup(what: &str, error: &reqwest::Error) -> Error {
    Error::Setup { what: what.to_owned(), reason: innermost(error) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_recognised() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
            "[::1]",
            "a.localhost:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "docker.io",
            "localhost.evil.com",
            "128.0.0.1",
            "[2001:db8::1]:5000",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn other_hosts_get_tls_unless_allowed() {
        let hosts = Hosts::new(ClientOptions {
            insecure_hosts: vec!["insecure.example".to_owned(), "one.example:5000".to_owned()],
            ..ClientOptions::default()
        });
        let base = hosts.base("registry.example:5000").await.unwrap();
        assert_eq!(base.url.as_str(), "https://registry.example:5000/");
        let plain = |text: &str| hosts.is_plain_allowed(&Url::parse(text).unwrap());
        assert!(plain("http://localhost:1/token"));
        assert!(plain("http://insecure.example:1234/"));
        assert!(plain("http://one.example:5000/"));
        assert!(!plain("http://one.example:5001/"));
        assert!(!plain("http://registry.example/"));
    }

    #[test]
    fn addresses_behind_a_tls_proxy_are_corrected() {
        let host = |base: &str| Host {
            name: "h".to_owned(),
            auth: HostAuth::new("h", None),
            base: Arc::new(Base::new(Url::parse(base).unwrap())),
        };
        let asked = Url::parse("https://h/v2/a/blobs/uploads/").unwrap();
        let resolved =
            |location: &str| host("https://h").resolve(&asked, location).unwrap().to_string();
        assert_eq!(resolved("http://h/v2/x?y=1"), "https://h/v2/x?y=1");
        assert_eq!(resolved("/v2/x"), "https://h/v2/x");
        assert_eq!(resolved("u1"), "https://h/v2/a/blobs/uploads/u1");
        assert_eq!(resolved("http://other/x"), "http://other/x");
        assert_eq!(resolved("http://h:81/x"), "http://h:81/x");
        assert!(host("https://h").is_home(&Url::parse("https://h:443/x").unwrap()));
        assert!(!host("https://h").is_home(&Url::parse("http://h/x").unwrap()));
        assert!(!host("https://h").is_home(&Url::parse("https://h:444/x").unwrap()));
        assert!(host("https://h").resolve(&asked, "http://[").is_err());
    }
}
