//! Containers with names, logs, volumes and exit statuses.
//!
//! ```text
//! request ─ settle ─► config ─ describe ─► sandbox::Spec ─ launch ─► process
//!            ▲ image                ▲ layers, files, volumes
//! ```

pub mod attach;
pub mod commit;
pub mod config;
pub mod containers;
pub mod copy;
pub mod diff;
pub mod exec;
pub mod export;
pub mod files;
pub mod health;
pub mod id;
pub mod image;
pub mod launch;
pub mod log;
pub mod moment;
pub mod name;
pub mod network;
pub mod options;
pub mod ownership;
pub mod pause;
pub mod process;
pub mod pump;
pub mod request;
pub mod restart;
pub mod root;
pub mod session;
pub mod signals;
pub mod spec;
pub mod state;
pub mod stop;
pub mod terminal;
pub mod timestamp;
pub mod top;
pub mod transfer;
pub mod update;
pub mod usage;
pub mod volume;

mod cgroup;
mod connect;
mod error;
mod stubs;
mod tree;

use std::path::Path;

use store::Store;

pub use error::{Error, Result};

use containers::Containers;
use network::Networks;
use timestamp::Timestamp;
use volume::Volumes;

/// Everything about containers in one state directory.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    containers: Containers,
    networks: Networks,
    volumes: Volumes,
    clock: fn() -> Timestamp,
}

impl Engine {
    /// Opens the state directory, which is made if it is not there. `clock`
    /// tells the time.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, or belongs to a newer version.
    pub fn open(root: &Path, clock: fn() -> Timestamp) -> Result<Self> {
        let store = Store::open(root)?;
        let containers = Containers::new(store.root().path());
        let networks = Networks::new(store.root().path(), containers.clone());
        let volumes = Volumes::new(store.root().path(), containers.clone());
        Ok(Self { store, containers, networks, volumes, clock })
    }

    /// Returns the images and layers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the containers.
    pub fn containers(&self) -> &Containers {
        &self.containers
    }

    /// Returns the networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Returns the volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Removes containers that killed programs have left although they were to
    /// go, cheaply enough for every command.
    pub fn tidy(&self) {
        if let Err(error) = self.containers.sweep() {
            tracing::warn!(%error, "what killed programs have left was not removed");
        }
    }

    /// Removes what killed programs have left, also of containers that stay. What cannot be removed now is
    /// left for the next time: nobody asked for it.
    pub fn sweep(&self) {
        self.tidy();
        if let Err(error) = cgroup::sweep() {
            tracing::warn!(%error, "control groups of killed programs were not removed");
        }
        if let Err(error) = self.volumes.sweep() {
            tracing::warn!(%error, "parts of volumes that killed programs have left were not removed");
        }
        if let Err(error) = self.networks.sweep() {
            tracing::warn!(%error, "ports of killed programs are still published");
        }
    }
}
