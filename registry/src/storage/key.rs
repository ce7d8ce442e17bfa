//! Names of records: every key is built here, from types that cannot be hostile.

use std::fmt;
use std::str::FromStr;

use oci::{Digest, Repository, Tag};

/// How long a repository's name may be: with the marks behind it, it stays within
/// the 255 bytes of a file name.
pub const MAX_REPOSITORY_BYTES: usize = 250;

/// The name of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The bytes of a blob.
    #[must_use]
    pub fn data(digest: &Digest) -> Self {
        Self(format!("{}data", blob_dir(digest)))
    }

    /// The mark that `repository` may read a blob.
    #[must_use]
    pub fn owner(digest: &Digest, repository: &Repository) -> Self {
        Self(format!("{}{}!/own", blob_dir(digest), flat(repository)))
    }

    /// The mark that a manifest of `repository` needs a blob or another manifest.
    #[must_use]
    pub fn pin(digest: &Digest, repository: &Repository, manifest: &Digest) -> Self {
        let (dir, repository, manifest) = (blob_dir(digest), flat(repository), dashed(manifest));
        Self(format!("{dir}{repository}!/pin-{manifest}"))
    }

    /// The mark that somebody was told of late that `repository` has a blob.
    #[must_use]
    pub fn seen(digest: &Digest, repository: &Repository) -> Self {
        Self(format!("{}{}!/seen", blob_dir(digest), flat(repository)))
    }

    /// A manifest.
    #[must_use]
    pub fn manifest(repository: &Repository, digest: &Digest) -> Self {
        Self(format!("repo/{repository}!m/{}/{}", digest.algorithm(), digest.hex()))
    }

    /// A tag.
    #[must_use]
    pub fn tag(repository: &Repository, tag: &Tag) -> Self {
        Self(format!("repo/{repository}!t/{tag}"))
    }

    /// The hint that `tag` once named `manifest`.
    #[must_use]
    pub fn tag_hint(repository: &Repository, manifest: &Digest, tag: &Tag) -> Self {
        Self(format!("repo/{repository}!mt/{}/{tag}", dashed(manifest)))
    }

    /// The entry of a manifest that refers to `subject`.
    #[must_use]
    pub fn referrer(repository: &Repository, subject: &Digest, referrer: &Digest) -> Self {
        Self(format!("repo/{repository}!r/{}/{}", dashed(subject), dashed(referrer)))
    }

    /// The mark that somebody was told of late that `repository` has a manifest.
    #[must_use]
    pub fn manifest_seen(repository: &Repository, manifest: &Digest) -> Self {
        Self(format!("repo/{repository}!s/{}", dashed(manifest)))
    }

    /// What a collector is looking at.
    #[must_use]
    pub fn collection(id: &UploadId) -> Self {
        Self(format!("gc/{id}"))
    }

    /// The mark that a repository exists.
    #[must_use]
    pub fn catalog(repository: &Repository) -> Self {
        Self(format!("cat/{repository}!"))
    }

    /// Returns the key as text: components joined by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the keys of a listing have in common; ends in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Owners and pins of a blob; see [`Prefix::owner_of`].
    #[must_use]
    pub fn owners(digest: &Digest) -> Self {
        Self(blob_dir(digest))
    }

    /// What `repository` has to do with a blob or manifest: its mark and its pins.
    #[must_use]
    pub fn pins(digest: &Digest, repository: &Repository) -> Self {
        Self(format!("{}{}!/", blob_dir(digest), flat(repository)))
    }

    /// All blobs with their owners and pins; see [`Mark::of`](super::Mark::of).
    #[must_use]
    pub fn blobs() -> Self {
        Self("blob/".to_owned())
    }

    /// The records of all repositories; see [`Record::of`](super::Record::of).
    #[must_use]
    pub fn records() -> Self {
        Self("repo/".to_owned())
    }

    /// What collectors are looking at.
    #[must_use]
    pub fn collections() -> Self {
        Self("gc/".to_owned())
    }

    /// The manifests of a repository; see [`Prefix::manifest_of`].
    #[must_use]
    pub fn manifests(repository: &Repository) -> Self {
        Self(format!("repo/{repository}!m/"))
    }

    /// The tags of a repository.
    #[must_use]
    pub fn tags(repository: &Repository) -> Self {
        Self(format!("repo/{repository}!t/"))
    }

    /// The tags that may name `manifest`.
    #[must_use]
    pub fn tag_hints(repository: &Repository, manifest: &Digest) -> Self {
        Self(format!("repo/{repository}!mt/{}/", dashed(manifest)))
    }

    /// The referrers of `subject`.
    #[must_use]
    pub fn referrers(repository: &Repository, subject: &Digest) -> Self {
        Self(format!("repo/{repository}!r/{}/", dashed(subject)))
    }

    /// All repositories; see [`Prefix::repository_of`].
    #[must_use]
    pub fn catalog() -> Self {
        Self("cat/".to_owned())
    }

    /// Returns the prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the manifest whose pin a key listed under [`Prefix::pins`] is.
    #[must_use]
    pub fn pin_of(listed: &str) -> Option<Digest> {
        Self::digest_of(listed.strip_prefix("pin-")?)
    }

    /// Returns the repository that a key listed under [`Prefix::owners`] makes an
    /// owner, or `None` for its pins and for the data.
    #[must_use]
    pub fn owner_of(listed: &str) -> Option<Repository> {
        listed.strip_suffix("!/own")?.replace(':', "/").parse().ok()
    }

    /// Returns the repository that a key listed under [`Prefix::catalog`] stands for.
    #[must_use]
    pub fn repository_of(listed: &str) -> Option<Repository> {
        listed.strip_suffix('!')?.parse().ok()
    }

    /// Returns the digest that a key listed under [`Prefix::manifests`] stands for.
    #[must_use]
    pub fn manifest_of(listed: &str) -> Option<Digest> {
        listed.replacen('/', ":", 1).parse().ok()
    }

    /// Returns the collector that a key listed under [`Prefix::collections`] stands for.
    #[must_use]
    pub fn collector_of(listed: &str) -> Option<UploadId> {
        listed.parse().ok()
    }

    /// Returns the digest that a key listed under [`Prefix::referrers`] stands for.
    #[must_use]
    pub fn digest_of(listed: &str) -> Option<Digest> {
        listed.replacen('-', ":", 1).parse().ok()
    }
}

/// Returns the directory of a blob, with the slash.
fn blob_dir(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blob/{}/{}/{hex}/", digest.algorithm(), &hex[..2])
}

/// Returns a digest as one component that needs no escaping anywhere.
fn dashed(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Returns a repository as one component; names never contain a colon.
fn flat(repository: &Repository) -> String {
    repository.as_str().replace('/', ":")
}

/// The name of an upload: a random UUID, so that nobody can guess another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadId([u8; 16]);

impl UploadId {
    /// Makes a version 4 UUID of 16 random bytes.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a UUID in lower case.
#[derive(Debug, thiserror::Error)]
#[error("not an upload")]
pub struct NotAnUpload;

impl FromStr for UploadId {
    type Err = NotAnUpload;

    fn from_str(text: &str) -> Result<Self, NotAnUpload> {
        let mut bytes = [0; 16];
        let digits = text.replace('-', "");
        if !digits.is_ascii() || digits.len() != 32 {
            return Err(NotAnUpload);
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16)
                .map_err(|_| NotAnUpload)?;
        }
        let id = Self(bytes);
        // One spelling per upload: the text becomes a directory's name.
        if id.to_string() == text { Ok(id) } else { Err(NotAnUpload) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_read_as_documented() {
        let repository: Repository = "team/app".parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        let digest = Digest::sha256(b"");
        let hex = digest.hex();
        let cases = [
            (Key::data(&digest), format!("blob/sha256/e3/{hex}/data")),
            (Key::owner(&digest, &repository), format!("blob/sha256/e3/{hex}/team:app!/own")),
            (
                Key::pin(&digest, &repository, &digest),
                format!("blob/sha256/e3/{hex}/team:app!/pin-sha256-{hex}"),
            ),
            (Key::seen(&digest, &repository), format!("blob/sha256/e3/{hex}/team:app!/seen")),
            (Key::manifest(&repository, &digest), format!("repo/team/app!m/sha256/{hex}")),
            (Key::manifest_seen(&repository, &digest), format!("repo/team/app!s/sha256-{hex}")),
            (
                Key::collection(&UploadId::from_random([0xab; 16])),
                "gc/abababab-abab-4bab-abab-abababababab".to_owned(),
            ),
            (Key::tag(&repository, &tag), "repo/team/app!t/v1".to_owned()),
            (
                Key::tag_hint(&repository, &digest, &tag),
                format!("repo/team/app!mt/sha256-{hex}/v1"),
            ),
            (
                Key::referrer(&repository, &digest, &digest),
                format!("repo/team/app!r/sha256-{hex}/sha256-{hex}"),
            ),
            (Key::catalog(&repository), "cat/team/app!".to_owned()),
        ];
        for (key, text) in cases {
            assert_eq!(key.as_str(), text);
        }
    }

    #[test]
    fn upload_ids_have_one_spelling() {
        let id = UploadId::from_random([0xab; 16]);
        assert_eq!(id.to_string(), "abababab-abab-4bab-abab-abababababab");
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        for text in [
            "",
            "..",
            "abababab-abab-4bab-abab-ababababab",
            "ABABABAB-abab-4bab-abab-abababababab",
            "abababababab4bababababababababab",
            "abababab-abab-4bab-abab-abababababab/",
            "+babababa-abab-4bab-abab-ababababab",
            "../../../../../../../../etc/passwd00",
        ] {
            assert!(text.parse::<UploadId>().is_err(), "accepted {text:?}");
        }
    }

    fn repositories() -> impl Strategy<Value = Repository> {
        "[a-z0-9]{1,2}((\\.|_|__|-{1,2})[a-z0-9]{1,2}){0,2}(/(data|own|[a-z0-9]{1,2})){0,3}"
            .prop_map(|text| text.parse().expect("the pattern follows the grammar"))
    }

    fn digests() -> impl Strategy<Value = Digest> {
        prop_oneof![
            any::<u8>().prop_map(|seed| Digest::sha256(&[seed])),
            any::<u8>().prop_map(|seed| Digest::sha512(&[seed])),
        ]
    }

    proptest! {
        /// Two different things never share a key, no key lies below another
        /// (a file cannot be a directory), and every component is a plain name.
        #[test]
        fn keys_map_back(
            repositories in prop::collection::vec(repositories(), 1..6),
            tags in prop::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}", 1..4),
            digests in prop::collection::vec(digests(), 1..4),
        ) {
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            let mut add = |key: Key, meaning: String| {
                for part in key.as_str().split('/') {
                    assert!(!part.is_empty() && part != "." && part != ".." && part.len() < 256);
                }
                let before = seen.insert(key.as_str().to_owned(), meaning.clone());
                assert!(before.is_none_or(|before| before == meaning), "{key}");
            };
            for digest in &digests {
                add(Key::data(digest), format!("data {digest}"));
                for repository in &repositories {
                    add(Key::owner(digest, repository), format!("own {digest} {repository}"));
                    add(Key::seen(digest, repository), format!("seen {digest} {repository}"));
                    add(Key::manifest(repository, digest), format!("m {digest} {repository}"));
                    add(Key::manifest_seen(repository, digest), format!("s {digest} {repository}"));
                    add(Key::catalog(repository), format!("cat {repository}"));
                    for other in &digests {
                        add(Key::pin(digest, repository, other), format!("pin {digest} {repository} {other}"));
                        add(Key::referrer(repository, digest, other), format!("r {digest} {repository} {other}"));
                    }
                    for tag in &tags {
                        let tag: Tag = tag.parse().expect("the pattern follows the grammar");
                        add(Key::tag(repository, &tag), format!("t {repository} {tag}"));
                        add(Key::tag_hint(repository, digest, &tag), format!("mt {repository} {digest} {tag}"));
                    }
                }
            }
            let keys: Vec<&String> = seen.keys().collect();
            for key in &keys {
                let below = format!("{key}/");
                prop_assert!(keys.iter().all(|other| !other.starts_with(&below)), "{key} is a directory");
            }
        }

        #[test]
        fn listed_keys_give_their_names_back(repository in repositories(), digest in digests()) {
            let owner = Key::owner(&digest, &repository);
            let listed = owner.as_str().strip_prefix(Prefix::owners(&digest).as_str()).unwrap();
            prop_assert_eq!(Prefix::owner_of(listed), Some(repository.clone()));
            let entry = Key::catalog(&repository);
            let listed = entry.as_str().strip_prefix(Prefix::catalog().as_str()).unwrap();
            prop_assert_eq!(Prefix::repository_of(listed), Some(repository.clone()));
            let referrer = Key::referrer(&repository, &digest, &digest);
            let listed = referrer.as_str().strip_prefix(Prefix::referrers(&repository, &digest).as_str());
            prop_assert_eq!(listed.and_then(Prefix::digest_of), Some(digest));
            let pin = Key::pin(&digest, &repository, &digest);
            let listed = pin.as_str().strip_prefix(Prefix::owners(&digest).as_str()).unwrap();
            prop_assert_eq!(Prefix::owner_of(listed), None);
        }

        /// `!` sorts below every character of a name, so keys sort as names do.
        #[test]
        fn catalog_keys_sort_as_names_do(left in repositories(), right in repositories()) {
            prop_assert_eq!(
                Key::catalog(&left).cmp(&Key::catalog(&right)),
                left.as_str().cmp(right.as_str())
            );
        }
    }
}
