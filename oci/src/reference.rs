//! Names of images, by Docker's rules.
//!
//! ```text
//! [registry '/'] repository [':' tag] ['@' digest]
//! ```
//!
//! What comes before the first slash is a registry only if it looks like a
//! host: it has a `.` or a `:`, is `localhost`, or has an upper-case letter.
//! Otherwise the image is Docker Hub's, where a single word means
//! `library/<word>`. These are the rules of the `reference` package of
//! distribution, which docker, podman and containerd share.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result, excerpt};
use crate::repository::{Repository, Tag};

/// The registry that names without a host belong to.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag that names without tag and digest get.
pub const DEFAULT_TAG: &str = "latest";

/// Another name of [`DEFAULT_REGISTRY`], from before it had this one.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";

/// Where the API of [`DEFAULT_REGISTRY`] answers.
const DEFAULT_REGISTRY_API_HOST: &str = "registry-1.docker.io";

/// The repository prefix of official images.
const OFFICIAL_PREFIX: &str = "library/";

/// The longest registry host with its port: a DNS name has at most 253 bytes
/// (RFC 1035), a colon and five digits follow.
const MAX_REGISTRY_LENGTH: usize = 259;

/// The name of an image: where it lives, and which one it is.
///
/// Always has a tag, a digest or both; a text with neither means the tag
/// `latest`. Where there are both, the digest decides and the tag is a remark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry's host and port as the name has it, such as
    /// `docker.io` or `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the host and port at which the registry's API answers.
    ///
    /// The same as [`Reference::registry`], except for Docker Hub.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DEFAULT_REGISTRY_API_HOST } else { &self.registry }
    }

    /// Returns the repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag, given or `latest`; `None` for a name by digest alone.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest, if the name has one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns this name with another tag, and the digest as it was.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag: Some(tag), ..self.clone() }
    }

    /// Returns this name with another digest, and the tag as it was.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns this name by its tag alone, which is `latest` if it had none.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().unwrap_or_else(default_tag);
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// Returns the shortest text that means the same, such as `busybox:latest`.
    ///
    /// This is how docker lists images: without Docker Hub's host and without
    /// `library/`, wherever the text would still be read as this name.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(on_hub) = full.strip_prefix(DEFAULT_REGISTRY).and_then(|t| t.strip_prefix('/'))
        else {
            return full;
        };
        let official = on_hub.strip_prefix(OFFICIAL_PREFIX);
        // `docker.io/localhost/x` must keep its host, or it would move to localhost.
        let means_this = |text: &&str| text.parse().as_ref() == Ok(self);
        let shortest = official.into_iter().chain([on_hub]).find(means_this);
        shortest.map_or_else(|| full.clone(), str::to_owned)
    }
}

impl fmt::Display for Reference {
    /// Writes the full name: `docker.io/library/busybox:latest[@sha256:…]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Error::Reference { text: excerpt(text), reason };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if is_bare_id(text) {
            // It would shadow image ids wherever both are accepted.
            return Err(refuse("64 hexadecimal digits are an image id, not a name"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(refuse("the registry must be a host name or address, and a port"));
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (path, None),
        };
        if repository.is_empty() {
            return Err(refuse("the repository is missing"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            // The error names what was written, not the prefix added here.
            repository.parse::<Repository>()?;
            format!("{OFFICIAL_PREFIX}{repository}").parse()?
        } else {
            repository.parse()?
        };
        let tag = if digest.is_none() { tag.or_else(|| Some(default_tag())) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn default_tag() -> Tag {
    DEFAULT_TAG.parse().expect("the default tag follows the grammar")
}

/// Whether `text` is what an image id looks like: 64 lower-case hexadecimal digits.
fn is_bare_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the registry, which may be implied, and what follows it.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((head, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, name);
    };
    let looks_like_host = head.contains(['.', ':'])
        || head == "localhost"
        || head.bytes().any(|byte| byte.is_ascii_uppercase());
    match looks_like_host {
        true if head == LEGACY_DEFAULT_REGISTRY => (DEFAULT_REGISTRY, rest),
        true => (head, rest),
        false => (DEFAULT_REGISTRY, name),
    }
}

/// Whether `text` is a host name, an IPv4 or bracketed IPv6 address, with or without a port.
fn is_registry(text: &str) -> bool {
    if text.len() > MAX_REGISTRY_LENGTH {
        return false;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        return address.contains(':')
            && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

fn is_host(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Whether `text` is a port that exists. Docker takes any digits here and fails later.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_get_dockers_defaults() {
        // (what is written, full name, familiar name)
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("user/app/deep:2", "docker.io/user/app/deep:2", "user/app/deep:2"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", "[2001:db8::1]/a:latest"),
            ("ghcr.io/o/app", "ghcr.io/o/app:latest", "ghcr.io/o/app:latest"),
            ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
            (
                "docker.io/localhost/x",
                "docker.io/localhost/x:latest",
                "docker.io/localhost/x:latest",
            ),
            ("docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("sha256:5", "docker.io/library/sha256:5", "sha256:5"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(familiar.parse(), Ok(reference), "{text}");
        }
    }

    #[test]
    fn tag_and_digest_go_together() {
        let by_digest: Reference = format!("busybox@{SHA}").parse().unwrap();
        assert_eq!(by_digest.tag(), None);
        assert_eq!(by_digest.to_string(), format!("docker.io/library/busybox@{SHA}"));
        assert_eq!(by_digest.without_digest().to_string(), "docker.io/library/busybox:latest");

        let both: Reference = format!("localhost:5000/a:1@{SHA}").parse().unwrap();
        assert_eq!(both.tag().unwrap().as_str(), "1");
        assert_eq!(both.digest().unwrap().to_string(), SHA);
        assert_eq!(both.to_string(), format!("localhost:5000/a:1@{SHA}"));
        assert_eq!(both.without_digest().to_string(), "localhost:5000/a:1");
        assert_eq!(
            both.with_tag("2".parse().unwrap()).to_string(),
            format!("localhost:5000/a:2@{SHA}")
        );
    }

    #[test]
    fn docker_hub_answers_elsewhere() {
        assert_eq!("busybox".parse::<Reference>().unwrap().api_host(), "registry-1.docker.io");
        assert_eq!("localhost:1/a".parse::<Reference>().unwrap().api_host(), "localhost:1");
    }

    #[test]
    fn refuses_what_the_grammar_forbids() {
        let bare_id = "a".repeat(64);
        let short_digest = &SHA[..SHA.len() - 1];
        let long_host = format!("{}.io/a", "a".repeat(257));
        let long_name = format!("a/{}", "a".repeat(254));
        let almost_long = "a".repeat(250);
        for text in [
            "",
            ":",
            "/",
            "@",
            "a:",
            ":tag",
            "a@",
            "Busybox",
            "user/App",
            "localhost/App",
            "a b",
            " a",
            "a ",
            "a//b",
            "/a",
            "a/",
            "https://ghcr.io/a",
            "a:b:c",
            "a:t/x",
            "localhost:/a",
            "localhost:port/a",
            "localhost:99999/a",
            "-x.io/a",
            "x-.io/a",
            "a..io/b",
            ".io/a",
            "[::1/a",
            "[::1]x/a",
            "[x::1]:5/a",
            "[]/a",
            "under_score.io/a",
            "a@sha256",
            "a@sha256:00",
            &format!("a@{short_digest}"),
            &format!("a@{SHA}@{SHA}"),
            &format!("@{SHA}"),
            &bare_id,
            &long_host,
            &long_name,
            &almost_long,
            "a\n",
            "a/../b",
            "./a",
            "../a",
            "é",
        ] {
            assert!(text.parse::<Reference>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        insta::assert_snapshot!(error("user/App:1"), @r#"invalid repository name "user/App": it must be lower-case"#);
        insta::assert_snapshot!(error("a:-"), @r#"invalid tag "-": it must start with a letter, a digit or `_`"#);
        insta::assert_snapshot!(error("localhost:x/a"), @r#"invalid reference "localhost:x/a": the registry must be a host name or address, and a port"#);
        insta::assert_snapshot!(error("a@sha256:0"), @r#"invalid digest "sha256:0": sha256 has 64 hexadecimal digits"#);
    }

    proptest! {
        #[test]
        fn display_then_parse_is_identity(
            host in prop::option::of("(localhost|[a-z]{1,5}\\.[a-z]{2,3}|[A-Z][a-z]{0,3}|\\[::[0-9a-f]{1,4}\\])(:[1-9][0-9]{0,3})?"),
            path in "[a-z0-9]{1,5}([._-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,2}",
            tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}"),
            digest in prop::option::of(any::<[u8; 32]>()),
        ) {
            let mut text = host.map_or_else(String::new, |host| host + "/") + &path;
            if let Some(tag) = tag {
                text = text + ":" + &tag;
            }
            if let Some(digest) = digest {
                text = format!("{text}@{}", Digest::Sha256(digest));
            }
            // A generated host without a dot or port may be no host at all: then it
            // is a path on Docker Hub, which is a name as well.
            let Ok(reference) = text.parse::<Reference>() else { return Ok(()) };
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
            prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-zA-Z0-9:@/._\\[\\] é-]{0,24}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
