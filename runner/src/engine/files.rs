//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.
//!
//! They are files of ours in the container's directory, bound over whatever
//! the image has at their place: nothing is ever written through a path that
//! an image controls.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox::{Mount, MountKind};

use super::config::Config;
use super::error::{IoContext as _, Result};
use super::network::{Endpoint, resolv_conf};
use super::options::{HostAddress, NetworkMode};

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
        match name {
            "hosts" => write_hosts(dir, config, None)?,
            "hostname" => write(&dir.join(name), format!("{}\n", config.hostname).as_bytes())?,
            // What is wrong with it is said when the container starts.
            _ => {
                let (text, _) = resolv_conf(&config.network, &config.place.resolver);
                write(&dir.join(name), text.as_bytes())?;
            }
        }
        mounts.push(Mount {
            target: place.into(),
            kind: MountKind::Bind {
                source: source(dir, config, name),
                readonly: config.read_only,
                recursive: false,
            },
        });
    }
    Ok(mounts)
}

/// Returns which file a container sees: where it shares a network, those that
/// speak of the network are the other container's.
fn source(dir: &Path, config: &Config, name: &str) -> PathBuf {
    match &config.network {
        NetworkMode::Container(other) if name != "hostname" => dir.with_file_name(other).join(name),
        _ => dir.join(name),
    }
}

/// Writes the names a container knows without asking anyone: on the host's
/// network those the host knows; its own; and those it was given. `endpoint` is
/// its place in a network, once it is known.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write_hosts(dir: &Path, config: &Config, endpoint: Option<&Endpoint>) -> Result<()> {
    let mut text = match config.network {
        NetworkMode::Host => host_file(Path::new("/etc/hosts")),
        _ => Vec::new(),
    };
    if text.is_empty() {
        text.extend_from_slice(
            b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        );
    } else if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let own = endpoint.map_or_else(|| "127.0.1.1".to_owned(), |it| it.address.to_string());
    text.extend_from_slice(format!("{own}\t{}\n", config.hostname).as_bytes());
    for host in &config.place.hosts {
        let address = match host.address {
            HostAddress::Ip(address) => address.to_string(),
            HostAddress::Gateway => {
                endpoint.map_or_else(|| "127.0.0.1".to_owned(), |it| it.gateway.to_string())
            }
        };
        text.extend_from_slice(format!("{address}\t{}\n", host.name).as_bytes());
    }
    write(&dir.join("hosts"), &text)
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents)
        // Every user inside may read them, whatever the caller's umask.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .doing("write", path)
}

/// Reads a file of the host. A host without the file, or with one nobody may
/// read, has none to give.
fn host_file(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path)
        && let Err(error) = file.take(MAX_HOST_FILE_BYTES).read_to_end(&mut bytes)
    {
        tracing::debug!(path = %path.display(), %error, "the host's file cannot be read");
    }
    bytes
}
