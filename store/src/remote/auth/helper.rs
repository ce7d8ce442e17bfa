//! Credential helpers: programs named `docker-credential-…` that keep passwords in a keychain.
//!
//! The protocol is that of docker-credential-helpers: an action as the only argument, JSON or a
//! server's address on standard input, JSON or a message on standard output.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::{Credential, Secret};
use crate::remote::error::{Error, Result};

/// A keychain may ask its user something, who may need a moment.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Credentials are small; this much would be no credential.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// The user name that says the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What helpers print, and exit with an error, where they have nothing.
const NOT_FOUND: &str = "credentials not found";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper for what it has for a server; `None` if it has nothing.
pub(super) fn get(
    name: &str,
    directory: Option<&Path>,
    server: &str,
) -> Result<Option<Credential>> {
    let output = match run(name, directory, "get", server.as_bytes()) {
        Ok(output) => output,
        Err(Error::Helper { reason, .. }) if reason.contains(NOT_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    let entry: Entry = serde_json::from_slice(&output).map_err(|error| Error::Helper {
        program: program(name),
        // The text itself may hold the password.
        reason: format!("its answer is not understood, at column {}", error.column()),
    })?;
    Ok(match (entry.username.as_str(), entry.secret.as_str()) {
        (_, "") => None,
        (TOKEN_USER, token) => Some(Credential::IdentityToken(Secret::new(token))),
        (username, password) => Some(Credential::password(username, password)),
    })
}

/// Gives a helper something to keep.
pub(super) fn store(
    name: &str,
    directory: Option<&Path>,
    server: &str,
    credential: &Credential,
) -> Result<()> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) | Credential::AccessToken(token) => (TOKEN_USER, token),
    };
    let entry = Entry {
        server_url: server.to_owned(),
        username: username.to_owned(),
        secret: secret.reveal().to_owned(),
    };
    let input = serde_json::to_vec(&entry).expect("three strings are always JSON");
    run(name, directory, "store", &input).map(drop)
}

/// Makes a helper forget; that it never knew is fine.
pub(super) fn erase(name: &str, directory: Option<&Path>, server: &str) -> Result<()> {
    match run(name, directory, "erase", server.as_bytes()) {
        Err(Error::Helper { reason, .. }) if reason.contains(NOT_FOUND) => Ok(()),
        result => result.map(drop),
    }
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Runs a helper and returns what it printed.
fn run(name: &str, directory: Option<&Path>, action: &str, input: &[u8]) -> Result<Vec<u8>> {
    let program = program(name);
    let failed = |reason: String| Error::Helper { program: program.clone(), reason };
    if name.is_empty() || name.contains('/') {
        // A name with a slash would start any program of the file's choice.
        return Err(failed("its name is no plain word".to_owned()));
    }
    let near = directory.map(|directory| directory.join(&program)).filter(|path| path.is_file());
    let mut child = Command::new(near.as_deref().unwrap_or(Path::new(&program)))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("it cannot be started: {error}")))?;
    let written = child.stdin.take().expect("stdin is piped").write_all(input);
    let output = output_in_time(&mut child);
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let output = output.map_err(failed)?;
    if !status.success() {
        // On failure, what it prints is the reason.
        let reason = String::from_utf8_lossy(&output).trim().to_owned();
        let reason = if reason.is_empty() { status.to_string() } else { reason };
        return Err(failed(reason));
    }
    match written {
        // It knew the answer without reading the question.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(output),
        written => written.map(|()| output).map_err(|error| failed(error.to_string())),
    }
}

/// Reads everything a child prints, and kills it if that takes too long.
fn output_in_time(child: &mut Child) -> Result<Vec<u8>, String> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = Vec::new();
        let result = stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).map(|_| output);
        // Nobody listens any more if the time is over.
        let _unheard = sender.send(result);
    });
    match receiver.recv_timeout(TIMEOUT) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => {
            // It may have ended in this moment; then there is nothing to kill.
            let _ended = child.kill();
            Err(format!("it does not answer within {} s", TIMEOUT.as_secs()))
        }
    }
}
