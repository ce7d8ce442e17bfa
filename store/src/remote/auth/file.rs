//! Files with credentials: docker's `config.json` and podman's `auth.json`.
//!
//! ```json
//! {
//!   "auths": {"https://index.docker.io/v1/": {"auth": "<base64 of user:password>"},
//!             "quay.io/team": {"identitytoken": "…"}},
//!   "credHelpers": {"gcr.io": "gcloud"},
//!   "credsStore": "secretservice"
//! }
//! ```
//!
//! Docker's keys are hosts or addresses; podman's may go on with a part of the repository, and the
//! longest that fits wins.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::helper;
use super::secret::{Credential, Secret};
use crate::remote::error::{Error, Result};

/// The name under which docker keeps the credentials for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The registry name of Docker Hub, and the hosts that mean the same.
const HUB: &str = oci::DEFAULT_REGISTRY;
const HUB_HOSTS: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];

/// The largest file that is read, in bytes; real ones have a few hundred.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One file with credentials, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFile {
    path: PathBuf,
}

impl AuthFile {
    /// Names a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the file has for a registry, asking the helpers it names.
    ///
    /// `registry` is a host as it stands in references, such as `docker.io`; `repository` chooses
    /// among entries for parts of the registry. `helpers` is searched for helpers first.
    ///
    /// # Errors
    ///
    /// If the file exists but is not what it should be, or a helper fails.
    pub fn credential(
        &self,
        registry: &str,
        repository: Option<&str>,
        helpers: Option<&Path>,
    ) -> Result<Option<Credential>> {
        let config = self.read()?;
        if let Some(helper) = helper_for(&config, registry) {
            return helper::get(helper, helpers, &server(registry));
        }
        if let Some(helper) = text(&config, "credsStore")
            && let Some(found) = helper::get(helper, helpers, &server(registry))?
        {
            return Ok(Some(found));
        }
        self.written(&config, registry, repository)
    }

    /// Writes a credential down, or gives it to the helper that the file names.
    ///
    /// The file is replaced atomically, is readable for its owner only, and keeps everything else
    /// it has.
    ///
    /// # Errors
    ///
    /// If the file is not what it should be or cannot be written, or a helper fails.
    pub fn store(
        &self,
        registry: &str,
        credential: &Credential,
        helpers: Option<&Path>,
    ) -> Result<()> {
        let mut config = self.read()?;
        let server = server(registry);
        let helper = helper_for(&config, registry).or_else(|| text(&config, "credsStore"));
        let entry = if let Some(helper) = helper {
            helper::store(helper, helpers, &server, credential)?;
            // Docker leaves an empty entry behind, by which it lists where one is logged in.
            json!({})
        } else {
            match credential {
                Credential::Password { username, password } => {
                    let pair = STANDARD.encode(format!("{username}:{}", password.reveal()));
                    json!({ "auth": pair })
                }
                Credential::IdentityToken(token) => {
                    let no_password = STANDARD.encode("<token>:");
                    json!({ "auth": no_password, "identitytoken": token.reveal() })
                }
                Credential::AccessToken(token) => json!({ "registrytoken": token.reveal() }),
            }
        };
        let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(auths) = auths else { return Err(self.not_understood("auths")) };
        auths.retain(|key, _| registry_of(key) != registry || *key == server);
        auths.insert(server, entry);
        self.write(&config)
    }

    /// Removes what the file or its helper has for a registry, telling whether there was anything.
    ///
    /// # Errors
    ///
    /// If the file is not what it should be or cannot be written, or a helper fails.
    pub fn remove(&self, registry: &str, helpers: Option<&Path>) -> Result<bool> {
        let mut config = self.read()?;
        let helper = helper_for(&config, registry).or_else(|| text(&config, "credsStore"));
        let mut found = false;
        if let Some(helper) = helper {
            let server = server(registry);
            found = helper::get(helper, helpers, &server)?.is_some();
            if found {
                helper::erase(helper, helpers, &server)?;
            }
        }
        if let Some(Value::Object(auths)) = config.get_mut("auths") {
            let before = auths.len();
            auths.retain(|key, _| registry_of(key) != registry);
            if auths.len() < before {
                self.write(&config)?;
                found = true;
            }
        }
        Ok(found)
    }

    fn written(
        &self,
        config: &Map<String, Value>,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<Credential>> {
        let Some(Value::Object(auths)) = config.get("auths") else { return Ok(None) };
        let name = match repository {
            Some(repository) => format!("{registry}/{repository}"),
            None => registry.to_owned(),
        };
        let best = auths
            .iter()
            .map(|(key, entry)| (normal(key), entry))
            .filter(|(key, entry)| is_prefix(key, &name) && *entry != &json!({}))
            .max_by_key(|(key, _)| key.len());
        let Some((_, entry)) = best else { return Ok(None) };
        let field = |name: &str| entry.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        if let Some(token) = field("registrytoken") {
            return Ok(Some(Credential::AccessToken(Secret::new(token))));
        }
        if let Some(token) = field("identitytoken") {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        if let Some(pair) = field("auth") {
            let decoded =
                STANDARD.decode(pair).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or_else(|| self.not_understood("auth"))?;
            let (username, password) =
                decoded.split_once(':').ok_or_else(|| self.not_understood("auth"))?;
            // Docker pads with zero bytes.
            return Ok(Some(Credential::password(username, password.trim_matches('\0'))));
        }
        Ok(field("username")
            .zip(field("password"))
            .map(|(username, password)| Credential::password(username, password)))
    }

    /// Reads the file; one that does not exist is empty.
    fn read(&self) -> Result<Map<String, Value>> {
        let bytes = match fs::File::open(&self.path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE_BYTES), &mut bytes)
                    .map_err(|source| self.failed("read", source))?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(source) => return Err(self.failed("read", source)),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&bytes).map_err(|error| self.failed("read", error.into()))
    }

    fn write(&self, config: &Map<String, Value>) -> Result<()> {
        // A link to the file stays a link.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let write = || {
            let directory = target.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(directory)?;
            let mut file = tempfile::Builder::new()
                .prefix(".auth")
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(directory)?;
            let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            config.serialize(&mut serde_json::Serializer::with_formatter(&mut file, tabs))?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&target).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::File { action, path: self.path.clone(), source }
    }

    fn not_understood(&self, field: &str) -> Error {
        self.failed("read", io::Error::other(format!("field `{field}` is not what it should be")))
    }
}

/// Returns the name under which docker keeps credentials of a registry.
fn server(registry: &str) -> String {
    if registry == HUB { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// Returns the helper for this registry alone, if the file names one.
fn helper_for<'a>(config: &'a Map<String, Value>, registry: &str) -> Option<&'a str> {
    let helpers = config.get("credHelpers")?.as_object()?;
    helpers
        .iter()
        .find(|(key, _)| registry_of(key) == registry)
        .and_then(|(_, helper)| helper.as_str())
        .filter(|helper| !helper.is_empty())
}

fn text<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    config.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Returns a key without its scheme and API version, Docker Hub by its usual name.
fn normal(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').map_or((key, None), |(host, path)| (host, Some(path)));
    let host = if HUB_HOSTS.contains(&host) { HUB } else { host };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

/// Returns the registry that a key is for, if it is for all of it.
fn registry_of(key: &str) -> String {
    normal(key)
}

/// Whether `prefix` is all of `name`, or ends where a component of it ends.
fn is_prefix(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, AuthFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, content).unwrap();
        (directory, AuthFile::new(path))
    }

    fn helper(directory: &Path, name: &str, script: &str) {
        // Written by another process: a program that this one has open for writing, even in a
        // child that another test is just starting, cannot be started.
        let mut writer = Command::new("sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(directory.join(format!("docker-credential-{name}")))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
        assert!(writer.wait().unwrap().success());
    }

    #[test]
    fn entries_are_found_by_every_name_of_a_registry() {
        // "joe:secret"
        for key in
            ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"]
        {
            let (_directory, file) =
                file(&format!(r#"{{"auths":{{"{key}":{{"auth":"am9lOnNlY3JldA=="}}}}}}"#));
            let found = file.credential("docker.io", Some("library/busybox"), None).unwrap();
            assert_eq!(found, Some(Credential::password("joe", "secret")), "{key}");
            assert_eq!(file.credential("ghcr.io", None, None).unwrap(), None);
        }
    }

    #[test]
    fn the_longest_part_of_a_repository_wins() {
        let (_directory, file) = file(
            r#"{"auths":{"quay.io":{"username":"all","password":"1"},
                "quay.io/team":{"username":"team","password":"2"},
                "quay.io/team/app":{"username":"app","password":"3"},"quay.io/te":{"username":"no","password":"4"}}}"#,
        );
        let user = |repository| match file.credential("quay.io", repository, None).unwrap() {
            Some(Credential::Password { username, .. }) => username,
            other => panic!("{other:?}"),
        };
        assert_eq!(user(None), "all");
        assert_eq!(user(Some("other")), "all");
        assert_eq!(user(Some("team/x")), "team");
        assert_eq!(user(Some("team/app")), "app");
        assert_eq!(user(Some("team/app2")), "team");
    }

    #[test]
    fn every_kind_of_entry_is_understood() {
        let with = |entry: &str| {
            let (_directory, file) = file(&format!(r#"{{"auths":{{"h:5000":{entry}}}}}"#));
            file.credential("h:5000", None, None)
        };
        assert_eq!(with("{}").unwrap(), None);
        assert_eq!(
            with(r#"{"identitytoken":"t","auth":"PHRva2VuPjo="}"#).unwrap(),
            Some(Credential::IdentityToken(Secret::new("t")))
        );
        assert_eq!(
            with(r#"{"registrytoken":"t"}"#).unwrap(),
            Some(Credential::AccessToken(Secret::new("t")))
        );
        // A password with a colon, and docker's padding.
        let padded = STANDARD.encode("joe:a:b\0\0");
        let found = with(&format!(r#"{{"auth":"{padded}"}}"#)).unwrap();
        assert_eq!(found, Some(Credential::password("joe", "a:b")));
        assert!(with(r#"{"auth":"!!!"}"#).is_err());
        assert!(with(r#"{"auth":"am9l"}"#).is_err());
    }

    #[test]
    fn missing_and_empty_files_have_nothing_and_broken_ones_are_errors() {
        let (directory, file) = file("");
        assert_eq!(file.credential("h", None, None).unwrap(), None);
        let missing = AuthFile::new(directory.path().join("none"));
        assert_eq!(missing.credential("h", None, None).unwrap(), None);
        fs::write(file.path(), "{").unwrap();
        assert!(matches!(
            file.credential("h", None, None),
            Err(Error::File { action: "read", .. })
        ));
    }

    #[test]
    fn login_and_logout_keep_everything_else() {
        let (_directory, file) = file(
            r#"{"HttpHeaders":{"X":"1"},"auths":{"other":{"auth":"eDp5"},"docker.io":{"auth":"b2xkOm9sZA=="}},"psFormat":"table"}"#,
        );
        file.store("docker.io", &Credential::password("joe", "secret"), None).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {
        	"HttpHeaders": {
        		"X": "1"
        	},
        	"auths": {
        		"other": {
        			"auth": "eDp5"
        		},
        		"https://index.docker.io/v1/": {
        			"auth": "am9lOnNlY3JldA=="
        		}
        	},
        	"psFormat": "table"
        }
        "#);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.remove("docker.io", None).unwrap());
        assert!(!file.remove("docker.io", None).unwrap());
        assert_eq!(file.credential("docker.io", None, None).unwrap(), None);
        assert_eq!(
            file.credential("other", None, None).unwrap(),
            Some(Credential::password("x", "y"))
        );
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (directory, file) = file("{}");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(file.path(), &link).unwrap();
        AuthFile::new(&link).store("h", &Credential::password("a", "b"), None).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(file.credential("h", None, None).unwrap().is_some());
    }

    #[test]
    fn helpers_are_asked() {
        let (directory, file) = file(
            r#"{"credHelpers":{"h":"one"},"credsStore":"two","auths":{"x":{"auth":"am9lOnNlY3JldA=="}}}"#,
        );
        let at = Some(directory.path());
        helper(
            directory.path(),
            "one",
            r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"<token>\",\"Secret\":\"t\"}""#,
        );
        helper(
            directory.path(),
            "two",
            r#"read s; [ "$s" = https://index.docker.io/v1/ ] && echo '{"Username":"u","Secret":"p"}' || { echo "credentials not found in native keychain"; exit 1; }"#,
        );
        assert_eq!(
            file.credential("h", None, at).unwrap(),
            Some(Credential::IdentityToken(Secret::new("t")))
        );
        assert_eq!(
            file.credential("docker.io", None, at).unwrap(),
            Some(Credential::password("u", "p"))
        );
        assert_eq!(
            file.credential("x", None, at).unwrap(),
            Some(Credential::password("joe", "secret"))
        );
        assert_eq!(file.credential("y", None, at).unwrap(), None);
    }

    #[test]
    fn helpers_keep_and_forget() {
        let (directory, file) = file(r#"{"credsStore":"box"}"#);
        let (at, kept) = (Some(directory.path()), directory.path().join("kept"));
        helper(
            directory.path(),
            "box",
            r#"d=$(dirname "$0")
case $1 in
store) cat > "$d/kept" ;;
get) cat "$d/kept" 2>/dev/null || { echo "credentials not found"; exit 1; } ;;
erase) rm "$d/kept" ;;
esac"#,
        );
        file.store("h", &Credential::password("joe", "hunter2"), at).unwrap();
        assert!(kept.exists());
        assert!(
            !fs::read_to_string(file.path()).unwrap().contains("aHVudGVyMg"),
            "not in the file"
        );
        assert_eq!(
            file.credential("h", None, at).unwrap(),
            Some(Credential::password("joe", "hunter2"))
        );
        assert!(file.remove("h", at).unwrap());
        assert!(!kept.exists());
        assert!(!file.remove("h", at).unwrap());
    }

    #[test]
    fn failing_helpers_are_named() {
        let (directory, file) = file(r#"{"credHelpers":{"a":"broken","b":"missing","c":"../x"}}"#);
        helper(directory.path(), "broken", "echo keychain is locked; exit 1");
        let error =
            |host| file.credential(host, None, Some(directory.path())).unwrap_err().to_string();
        insta::assert_snapshot!(error("a"), @"credential helper docker-credential-broken failed: keychain is locked");
        assert!(error("b").contains("cannot be started"));
        insta::assert_snapshot!(error("c"), @"credential helper docker-credential-../x failed: its name is no plain word");
    }
}
