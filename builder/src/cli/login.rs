//! `rbuild login` and `rbuild logout`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use store::remote::Credential;

use super::registry::RegistryArgs;

/// The registry that is meant when none is named.
const DEFAULT_REGISTRY: &str = "docker.io";
/// A password or token longer than this is a mistake.
const MAX_PASSWORD_BYTES: u64 = 1 << 20;

/// Log in to a registry
///
/// The credentials are checked with the registry and kept in docker's config.json, or with
/// the credential helper that it names.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    reach: RegistryArgs,
    /// Host of the registry
    #[arg(default_value = DEFAULT_REGISTRY)]
    registry: String,
}

pub(super) fn login(args: &LoginArgs) -> anyhow::Result<()> {
    let username = match &args.username {
        Some(username) => username.clone(),
        None => bail!("say who logs in with --username"),
    };
    if !args.password_stdin && std::io::stdin().is_terminal() {
        bail!("the password is read from stdin: use --password-stdin and a pipe or a file");
    }
    let mut password = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES)
        .read_to_string(&mut password)
        .context("cannot read the password from stdin")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("the password on stdin is empty");
    }
    let credential = Credential::password(&username, password);
    args.reach
        .client_of(&[&args.registry])
        .login(&args.registry, &credential, &|_event| {})
        .with_context(|| format!("cannot log in to {}", args.registry))?;
    args.reach
        .file()?
        .store(&args.registry, &credential, None)
        .with_context(|| format!("cannot keep the credentials for {}", args.registry))?;
    writeln!(std::io::stdout(), "Login Succeeded")?;
    Ok(())
}

/// Log out of a registry
#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    reach: RegistryArgs,
    /// Host of the registry
    #[arg(default_value = DEFAULT_REGISTRY)]
    registry: String,
}

pub(super) fn logout(args: &LogoutArgs) -> anyhow::Result<()> {
    let registry = &args.registry;
    let found = args
        .reach
        .file()?
        .remove(registry, None)
        .with_context(|| format!("cannot remove the credentials for {registry}"))?;
    let text = if found { "Removing login credentials for" } else { "Not logged in to" };
    writeln!(std::io::stdout(), "{text} {registry}")?;
    Ok(())
}
