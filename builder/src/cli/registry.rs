//! What every command that talks to registries lets its user say.

use std::path::PathBuf;

use oci::{Digest, Reference};
use store::remote::{AuthFile, Client};

use super::environment;

/// How to reach registries.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RegistryArgs {
    /// Allow plain HTTP and unverified certificates
    #[arg(long)]
    insecure: bool,
    /// File with credentials [default: docker's and podman's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl RegistryArgs {
    /// Returns a client for the registries of these names.
    pub(super) fn client(&self, names: &[&Reference]) -> Client {
        let registries: Vec<&str> = names.iter().map(|name| name.registry()).collect();
        self.client_of(&registries)
    }

    /// Returns a client for these registries.
    pub(super) fn client_of(&self, registries: &[&str]) -> Client {
        let registries = registries.iter().map(|name| (*name).to_owned());
        let insecure = if self.insecure { registries.collect() } else { Vec::new() };
        let files = match &self.authfile {
            Some(path) => vec![AuthFile::new(path.clone())],
            None => environment::auth_files(),
        };
        environment::client_with(insecure, files)
    }

    /// Returns the file that credentials are written to.
    pub(super) fn file(&self) -> anyhow::Result<AuthFile> {
        let path = self.authfile.clone().or_else(environment::docker_config);
        let path = path.ok_or_else(|| anyhow::anyhow!("neither DOCKER_CONFIG nor HOME is set"))?;
        Ok(AuthFile::new(path))
    }
}

/// Returns a repository in docker's short form, without tag and digest.
pub(super) fn familiar_repository(name: &Reference) -> String {
    let familiar = name.familiar();
    let short = familiar.split('@').next().unwrap_or_default();
    let tag = name.tag().map_or_else(String::new, |tag| format!(":{tag}"));
    short.strip_suffix(&tag).unwrap_or(short).to_owned()
}

/// Returns the name to deploy by: a repository and the digest of what is in it.
pub(super) fn by_digest(name: &Reference, digest: &Digest) -> String {
    format!("{}@{digest}", familiar_repository(name))
}
