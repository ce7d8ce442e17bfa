//! The configuration file: TOML, every word of it known, or the program does not
//! start.
//!
//! A flag or a variable of the environment comes before the file. What says who
//! may do what, the certificate, and the rules for content are read again when
//! they change (`watch`); addresses, storage and log stay until a restart.

pub(crate) mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::{self, Access, AccessConfig};
use crate::content::{ImmutableTags, Options};
use crate::storage_args::StorageArgs;
use crate::tls::{self, TlsConfig};

/// The settings of a registry. Paths are relative to the file's directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Address and port to listen on, like `0.0.0.0:5000`.
    pub listen: Option<String>,
    /// How long requests may take to end when the registry is stopped, in seconds.
    pub drain_seconds: Option<u64>,
    /// Accept no change at all.
    pub read_only: bool,
    /// Accept manifests whose layers or children are not there.
    pub allow_missing: bool,
    /// Refuse to delete tags, manifests and blobs.
    pub no_delete: bool,
    /// Tags that can be made, but neither moved nor deleted.
    pub immutable_tags: Vec<ImmutableTags>,
    /// Where images are kept.
    pub storage: StorageArgs,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The certificate; plain HTTP when not given.
    pub tls: Option<TlsConfig>,
    /// Numbers for Prometheus; none when not given.
    pub metrics: Option<MetricsConfig>,
    /// Who may do what; everybody may do everything when not given.
    pub access: Option<AccessConfig>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LogConfig {
    /// How lines are written.
    pub format: Option<LogFormat>,
    /// Which messages, like `debug` or `registry=debug`.
    pub filter: Option<String>,
    /// Whether each request leaves a line.
    pub access: Option<bool>,
    /// Whether each change and each refusal leaves a line that says whose it was;
    /// the default is yes where there is access control.
    pub audit: Option<bool>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per message.
    Text,
    /// One JSON object per message.
    Json,
}

/// Numbers for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MetricsConfig {
    /// Address and port of their own, like `127.0.0.1:5001`.
    pub listen: String,
}

/// What a configuration means, after all files were read that it names.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) options: Options,
    pub(crate) access: Option<Access>,
    pub(crate) tls: Option<rustls::ServerConfig>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read; and with line, column and the line itself, when a
    /// word of it cannot be understood.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = String::from_utf8(access::read(path)?)
            .with_context(|| format!("{} is not UTF-8", path.display()))?;
        Self::parse(&text).map_err(|error| anyhow!("cannot use {}\n{error}", path.display()))
    }

    /// Parses a file's text.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Reads the files that the configuration names. `secret` is random.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn resolve(&self, directory: &Path, secret: &[u8; 32]) -> anyhow::Result<Loaded> {
        let access = match &self.access {
            Some(config) => Some(Access::load(config, directory, secret)?),
            None => None,
        };
        let tls = match &self.tls {
            Some(config) => Some(tls::load(config, directory).context("[tls]")?),
            None => None,
        };
        let options = Options {
            allow_missing: self.allow_missing,
            allow_delete: !self.no_delete,
            read_only: self.read_only,
            immutable_tags: self.immutable_tags.clone(),
        };
        Ok(Loaded { options, access, tls })
    }

    /// Returns the files that the configuration names.
    fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let Some(access) = &self.access {
            files.extend(access.users_file.clone());
            files.extend(access.tokens.key_file.clone());
            // URLs are no files; looking for one finds nothing and never will.
            files.extend(access.issuers.iter().map(|issuer| PathBuf::from(&issuer.keys)));
        }
        if let Some(TlsConfig { certificate, key }) = &self.tls {
            files.extend([certificate.clone(), key.clone()]);
        }
        files.iter().map(|file| directory.join(file)).collect()
    }

    /// Returns whether what stays until a restart is the same.
    fn starts_like(&self, other: &Self) -> bool {
        let parts = |config: &Self| {
            (
                config.listen.clone(),
                config.drain_seconds,
                config.storage.clone(),
                config.log.clone(),
                config.metrics.clone(),
                // A port speaks either TLS or not.
                config.tls.is_some(),
            )
        };
        parts(self) == parts(other)
    }
}

/// Returns the directory to which the paths in a file are relative.
pub(crate) fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// Returns the JSON schema of the file, for editors and checks.
pub fn schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_understood() {
        let config = Config::parse(
            r#"
            listen = "0.0.0.0:5000"
            drain-seconds = 20
            no-delete = true

            [[immutable-tags]]
            repositories = ["library/**"]
            tags = ["v*"]
            except = ["v*-rc*"]

            [storage]
            url = "s3://bucket/prefix"
            endpoint = "https://store.example"

            [log]
            format = "json"
            audit = true

            [tls]
            certificate = "tls.crt"
            key = "tls.key"

            [metrics]
            listen = "127.0.0.1:5001"

            [access]
            users-file = "users"
            policies = [
                { users = ["@anyone"], repositories = ["**"], actions = ["pull"] },
            ]

            [access.tokens]
            service = "registry.example"

            [[access.issuers]]
            issuer = "https://ci.example"
            keys = "https://ci.example/jwks"
            "#,
        )
        .unwrap();
        assert_eq!(config.listen.as_deref(), Some("0.0.0.0:5000"));
        assert_eq!(config.immutable_tags.len(), 1);
        let files = config.files(Path::new("/etc/r"));
        let expected = ["users", "https://ci.example/jwks", "tls.crt", "tls.key"];
        assert_eq!(files, expected.map(|file| Path::new("/etc/r").join(file)));
    }

    #[test]
    fn what_is_not_understood_is_shown_with_its_place() {
        for (text, line, column, word) in [
            ("lisen = \"a\"", 1, 1, "unknown field `lisen`"),
            ("[access]\npolicys = []", 2, 1, "unknown field `policys`"),
            ("listen = 5000", 1, 10, "invalid type: integer"),
            (
                "[access]\npolicies = [\n  { users = [\"a b\"], repositories = [\"**\"], actions = [] },\n]",
                3,
                13,
                "is no user's name",
            ),
            (
                "[[immutable-tags]]\nrepositories = [\"A/**\"]\ntags = [\"*\"]",
                2,
                16,
                "is no pattern of repositories",
            ),
            ("[tls]\ncertificate = \"a\"", 1, 1, "missing field `key`"),
            ("[log\n", 1, 5, "unclosed table"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            let place = format!("line {line}, column {column}");
            assert!(error.contains(&place), "{place} is not in\n{error}");
            assert!(error.contains(word), "{word} is not in\n{error}");
        }
    }

    #[test]
    fn only_what_can_change_may_change() {
        let parse = |text: &str| Config::parse(text).unwrap();
        let before = parse("listen = \"a:1\"\nread-only = true");
        assert!(before.starts_like(&parse("listen = \"a:1\"")));
        assert!(!before.starts_like(&parse("listen = \"a:2\"")));
        assert!(!before.starts_like(&parse("listen = \"a:1\"\n[storage]\nroot = \"/srv\"")));
    }

    /// The schema has every section, so that an editor knows it.
    #[test]
    fn the_schema_describes_all_sections() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "access",
                "allow-missing",
                "drain-seconds",
                "immutable-tags",
                "listen",
                "log",
                "metrics",
                "no-delete",
                "read-only",
                "storage",
                "tls",
            ]
        );
        assert_eq!(schema["additionalProperties"], false);
    }
}
