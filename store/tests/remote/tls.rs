//! Registries with certificates of their own.
//!
//! `certificates/` holds an authority, and a server's certificate for `localhost` and `127.0.0.1`
//! with its key. They protect nothing, and last until 2126.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use store::remote::{Client, ClientOptions, Error};

use crate::registry::Registry;
use crate::{Local, amd64, ignore, options, packed, put_image};

const CA: &str = include_str!("certificates/ca.crt");
const CERTIFICATE: &str = include_str!("certificates/server.crt");
const KEY: &str = include_str!("certificates/server.key");

/// Puts TLS in front of a registry, until the test ends, and returns the new host.
fn with_tls(registry: &Registry) -> String {
    let certificates = CertificateDer::pem_slice_iter(CERTIFICATE.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.map(Result::unwrap).collect(), key)
        .unwrap();
    let (config, target) = (Arc::new(config), registry.server.host());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            let target = target.clone();
            thread::spawn(move || drop(forward(stream, &target)));
        }
    });
    format!("localhost:{port}")
}

/// Passes on requests without bodies, one after the other.
fn forward(
    mut stream: BufReader<StreamOwned<ServerConnection, TcpStream>>,
    target: &str,
) -> std::io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut plain = TcpStream::connect(target)?;
        plain.write_all(head.as_bytes())?;
        let mut plain = BufReader::new(plain);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            plain.read_line(&mut answer)?;
        }
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        plain.read_exact(&mut body)?;
        stream.get_mut().write_all(&[answer.as_bytes(), &body].concat())?;
        stream.get_mut().flush()?;
    }
}

fn pull(options: ClientOptions, host: &str) -> Result<(), Error> {
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let name = format!("{host}/app:1").parse().unwrap();
    Client::new(options).pull(&lease, &name, &packed(), &ignore).map(drop)
}

#[test]
fn private_authorities_are_trusted_where_they_are_named() {
    let registry = Registry::start();
    put_image(&registry, &amd64(), &[b"layer"]);
    let host = with_tls(&registry);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("certs.d").join(&host);
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("ca.crt"), CA).unwrap();

    let certs_directories = vec![directory.path().join("certs.d")];
    pull(ClientOptions { certs_directories, ..options() }, &host).unwrap();
    let ca_files = vec![own.join("ca.crt")];
    pull(ClientOptions { ca_files, ..options() }, &host).unwrap();
    let insecure_hosts = vec![host.clone()];
    pull(ClientOptions { insecure_hosts, ..options() }, &host).unwrap();

    let error = pull(options(), &host).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::Setup { .. }), "{error:?}");
    // A machine without any certificates fails earlier, with another message.
    if let Error::Unreachable { reason, .. } = &error {
        assert!(reason.contains("UnknownIssuer"), "{error}");
    }
}

#[test]
fn unusable_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.crt");
    let options = ClientOptions { ca_files: vec![missing.clone()], ..options() };
    let error = pull(options, "registry.example").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", missing.display()));
}
