//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.
//!
//! They are files of ours in the container's directory, bound over whatever
//! the image has at their place: nothing is ever written through a path that
//! an image controls.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbox::{Mount, MountKind};

use super::config::Config;
use super::error::{IoContext as _, Result};
use super::options::NetworkMode;

/// The largest file of the host's that is copied into a container.
const MAX_HOST_FILE_BYTES: u64 = 1 << 20;

/// Our files, each with its place inside.
const PLACES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// Writes the files for a new container and returns how they are mounted,
/// leaving out those at whose place the user mounts something else.
///
/// # Errors
///
/// When a file cannot be written.
pub fn make(dir: &Path, config: &Config) -> Result<Vec<Mount>> {
    let mut mounts = Vec::with_capacity(PLACES.len());
    for (name, place) in PLACES {
        if config.mounts.iter().any(|mount| mount.target() == Path::new(place)) {
            continue;
        }
        let contents = match name {
            "hosts" => hosts(config),
            "hostname" => format!("{}\n", config.hostname).into_bytes(),
            _ => host_file(Path::new("/etc/resolv.conf"), config.network),
        };
        let path = dir.join(name);
        fs::write(&path, contents)
            // Every user inside may read them, whatever the caller's umask.
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .doing("write", &path)?;
        mounts.push(Mount {
            target: place.into(),
            kind: MountKind::Bind { source: path, readonly: config.read_only, recursive: false },
        });
    }
    Ok(mounts)
}

/// Returns the names a container knows without asking anyone: on the host's
/// network those the host knows, and its own.
fn hosts(config: &Config) -> Vec<u8> {
    let mut text = host_file(Path::new("/etc/hosts"), config.network);
    if text.is_empty() {
        text.extend_from_slice(
            b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        );
    } else if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("127.0.1.1\t{}\n", config.hostname).as_bytes());
    text
}

/// Reads a file of the host for a container on its network. A host without
/// the file, or with one nobody may read, has none to give.
fn host_file(path: &Path, network: NetworkMode) -> Vec<u8> {
    use io::Read as _;
    let mut bytes = Vec::new();
    if network == NetworkMode::Host
        && let Ok(file) = fs::File::open(path)
        && let Err(error) = file.take(MAX_HOST_FILE_BYTES).read_to_end(&mut bytes)
    {
        tracing::debug!(path = %path.display(), %error, "the host's file cannot be read");
    }
    bytes
}
