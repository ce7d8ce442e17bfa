//! What can go wrong between an image and a running container.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use super::id::ContainerId;
use super::name::Name;
use super::network::Subnet;
use super::options::{Protocol, VolumeName};

/// The result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the engine, as a situation a caller may treat differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing in the state directory has this name or id.
    #[error("no such container: {text}")]
    ContainerUnknown {
        /// What the user typed.
        text: String,
    },
    /// An id prefix that several containers share.
    #[error("{text} is the beginning of {count} container ids")]
    ContainerAmbiguous {
        /// What the user typed.
        text: String,
        /// How many containers it matches.
        count: usize,
    },
    /// Another container has the name.
    #[error("the name \"{name}\" is already in use by container {}", holder.short())]
    NameInUse {
        /// The name asked for.
        name: Name,
        /// The container that has it.
        holder: ContainerId,
    },
    /// The operation needs a running container.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a running container, which this one will be again.
    #[error("container {container} is restarting")]
    Restarting {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a container that goes on.
    #[error("container {container} is paused")]
    Paused {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a paused container.
    #[error("container {container} is not paused")]
    NotPaused {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a container that has ended.
    #[error("container {container} is running")]
    StillRunning {
        /// The container as the user named it.
        container: String,
    },
    /// No network has this name or id.
    #[error("no such network: {name}")]
    NetworkUnknown {
        /// What the user typed.
        name: String,
    },
    /// A network has the name, or it is a word of its own.
    #[error("there is a network \"{name}\" already")]
    NetworkExists {
        /// The name asked for.
        name: Name,
    },
    /// A container runs in the network.
    #[error("network {name} is in use by container {container}")]
    NetworkInUse {
        /// The network.
        name: Name,
        /// One of its containers.
        container: String,
    },
    /// No volume has this name.
    #[error("no such volume: {name}")]
    VolumeUnknown {
        /// What the user typed.
        name: String,
    },
    /// A container refers to the volume.
    #[error("volume {name} is in use by container {container}")]
    VolumeInUse {
        /// The volume.
        name: VolumeName,
        /// One of its containers, which need not run.
        container: Name,
    },
    /// A part of a volume is to be mounted that is not there.
    #[error("cannot mount {} of volume {name}", subpath.display())]
    VolumeSubpath {
        /// The volume.
        name: VolumeName,
        /// The path from its top.
        subpath: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The image's files could not be copied into a volume.
    #[error("cannot copy {} of the image into a volume", from.display())]
    Copy {
        /// Where in the image.
        from: PathBuf,
        /// What could not be read or made.
        source: Box<store::layers::LayerError>,
    },
    /// Every address of the network is taken.
    #[error("network {name} has no address left in {subnet}")]
    NetworkFull {
        /// The network.
        name: Name,
        /// Its addresses.
        subnet: Subnet,
    },
    /// The addresses for a network lead elsewhere.
    #[error("{subnet} cannot be a network: this machine has a route to {other}")]
    SubnetInUse {
        /// The addresses asked for.
        subnet: Subnet,
        /// What they share addresses with.
        other: Subnet,
    },
    /// A container has the address.
    #[error("the address {address} is in use by another container")]
    AddressInUse {
        /// The address asked for.
        address: Ipv4Addr,
    },
    /// Somebody has the port of the host.
    #[error(
        "cannot publish a port at {host_ip}:{}/{protocol}: {}", range(*ports),
        match holder {
            Some(holder) => format!("container {holder} has it"),
            None => "another program has it".to_owned(),
        }
    )]
    PortInUse {
        /// The address of the host; all of them if it is 0.0.0.0.
        host_ip: Ipv4Addr,
        /// The first and the last port that it could have been.
        ports: (u16, u16),
        /// What they belong to.
        protocol: Protocol,
        /// The container that has it.
        holder: Option<String>,
    },
    /// The system does not let a port of the host be taken.
    #[error("cannot publish a port at {address}/{protocol}")]
    PortRefused {
        /// The address and the port.
        address: SocketAddrV4,
        /// What it belongs to.
        protocol: Protocol,
        /// The system's reason.
        source: io::Error,
    },
    /// The container whose network is to be shared does not run.
    #[error("container {container}, whose network is to be shared, is not running")]
    NetworkOfNone {
        /// The container as the user named it.
        container: String,
    },
    /// The container is to be held still and cannot be.
    #[error("cannot hold container {container} still")]
    CannotHold {
        /// The container.
        container: String,
        /// Why not.
        source: Box<Error>,
    },
    /// The container did not go away although it was killed.
    #[error("container {container} did not end within {seconds} s of SIGKILL")]
    Unkillable {
        /// The container as the user named it.
        container: String,
        /// How long was waited.
        seconds: u64,
    },
    /// No local image has this name and it may not be fetched.
    #[error("no such image: {reference}")]
    ImageUnknown {
        /// What the user typed.
        reference: String,
    },
    /// An image reference that does not parse.
    #[error("invalid image reference \"{reference}\"")]
    ImageReference {
        /// What the user typed.
        reference: String,
        /// What the grammar objects to.
        source: oci::Error,
    },
    /// Fetching the image failed.
    #[error("cannot pull {reference}")]
    Pull {
        /// The image in its full form.
        reference: String,
        /// What the registry or the way to it refused.
        source: store::remote::Error,
    },
    /// Neither the image nor the user names a program.
    #[error("no command given, and image {reference} has none of its own")]
    NoCommand {
        /// The image as the user named it.
        reference: String,
    },
    /// A value that the options or the image carry cannot be used.
    #[error("{what}")]
    Invalid {
        /// The complete sentence: what, which value, why.
        what: String,
    },
    /// A state file says something this version cannot understand.
    #[error("{} is not a container state this version understands", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The parser's objection.
        source: serde_json::Error,
    },
    /// A container was written by a newer version.
    #[error("{} has format {found}; this version reads {supported}", path.display())]
    StateVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The container's process could not be started or joined.
    #[error(transparent)]
    Sandbox(sandbox::Error),
    /// The image store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The operating system refused an operation on a path.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused an operation that has no path.
    #[error("cannot {action}")]
    System {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Writes one port, or a range of them.
fn range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Attaches "did what, to which path" to an [`io::Error`].
pub(crate) trait IoContext<T> {
    /// Names the operation and its path.
    fn doing(self, action: &'static str, path: &Path) -> Result<T>;
    /// Names an operation that concerns no path.
    fn trying(self, action: &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }

    fn trying(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::System { action, source: source.into() })
    }
}
