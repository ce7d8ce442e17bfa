//! What the keys of long listings mean: the way back from a key to its types.
//!
//! Whatever is below a storage may have been put there by somebody else: a key
//! that no function of [`Key`](super::Key) could have made means nothing.

use oci::{Digest, Repository, Tag};

/// What a key below [`Prefix::blobs`](super::Prefix::blobs) says of a blob.
///
/// Keys of one digest stand together in a listing, those of one repository
/// within it too: the mark, then the pins, then `seen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its bytes are there.
    Data,
    /// The repository may read it.
    Owner(Repository),
    /// This manifest of the repository needs it.
    Pin(Repository, Digest),
    /// Somebody was told of late that the repository has it.
    Seen(Repository),
}

impl Mark {
    /// Reads a key listed under [`Prefix::blobs`](super::Prefix::blobs).
    #[must_use]
    pub fn of(listed: &str) -> Option<(Digest, Self)> {
        let mut parts = listed.splitn(4, '/');
        let (algorithm, shard) = (parts.next()?, parts.next()?);
        let (hex, rest) = (parts.next()?, parts.next()?);
        let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
        if shard.len() != 2 || !hex.starts_with(shard) {
            return None;
        }
        Some((digest, Self::of_blob(rest)?))
    }

    /// Reads a key listed under [`Prefix::owners`](super::Prefix::owners).
    #[must_use]
    pub fn of_blob(listed: &str) -> Option<Self> {
        if listed == "data" {
            return Some(Self::Data);
        }
        let (repository, kind) = listed.split_once("!/")?;
        if repository.contains('/') {
            return None;
        }
        let repository: Repository = repository.replace(':', "/").parse().ok()?;
        match kind {
            "own" => Some(Self::Owner(repository)),
            "seen" => Some(Self::Seen(repository)),
            pin => Some(Self::Pin(repository, dashed(pin.strip_prefix("pin-")?)?)),
        }
    }
}

/// What a key below [`Prefix::records`](super::Prefix::records) stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A manifest.
    Manifest(Digest),
    /// A tag.
    Tag(Tag),
    /// The hint that a tag once named a manifest.
    Hint(Digest, Tag),
    /// A subject, and what refers to it.
    Referrer(Digest, Digest),
    /// Somebody was told of late that the manifest is there.
    Seen(Digest),
}

impl Record {
    /// Reads a key listed under [`Prefix::records`](super::Prefix::records).
    #[must_use]
    pub fn of(listed: &str) -> Option<(Repository, Self)> {
        let (repository, rest) = listed.split_once('!')?;
        let (kind, rest) = rest.split_once('/')?;
        let record = match kind {
            "m" => Self::Manifest(rest.replacen('/', ":", 1).parse().ok()?),
            "t" => Self::Tag(rest.parse().ok()?),
            "mt" => {
                let (manifest, tag) = rest.split_once('/')?;
                Self::Hint(dashed(manifest)?, tag.parse().ok()?)
            }
            "r" => {
                let (subject, referrer) = rest.split_once('/')?;
                Self::Referrer(dashed(subject)?, dashed(referrer)?)
            }
            "s" => Self::Seen(dashed(rest)?),
            _ => return None,
        };
        Some((repository.parse().ok()?, record))
    }
}

fn dashed(text: &str) -> Option<Digest> {
    text.replacen('-', ":", 1).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Prefix};
    use super::*;

    fn below(key: &Key, prefix: &Prefix) -> String {
        key.as_str().strip_prefix(prefix.as_str()).unwrap().to_owned()
    }

    #[test]
    fn keys_of_blobs_read_back() {
        let repository: Repository = "team/app".parse().unwrap();
        let (digest, manifest) = (Digest::sha512(b"x"), Digest::sha256(b"y"));
        let owner = || repository.clone();
        for (key, mark) in [
            (Key::data(&digest), Mark::Data),
            (Key::owner(&digest, &repository), Mark::Owner(owner())),
            (Key::pin(&digest, &repository, &manifest), Mark::Pin(owner(), manifest)),
            (Key::seen(&digest, &repository), Mark::Seen(owner())),
        ] {
            assert_eq!(Mark::of(&below(&key, &Prefix::blobs())), Some((digest, mark.clone())));
            assert_eq!(Mark::of_blob(&below(&key, &Prefix::owners(&digest))), Some(mark));
        }
    }

    #[test]
    fn keys_of_repositories_read_back() {
        let repository: Repository = "team/app".parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        let (digest, other) = (Digest::sha512(b"x"), Digest::sha256(b"y"));
        for (key, record) in [
            (Key::manifest(&repository, &digest), Record::Manifest(digest)),
            (Key::tag(&repository, &tag), Record::Tag(tag.clone())),
            (Key::tag_hint(&repository, &digest, &tag), Record::Hint(digest, tag.clone())),
            (Key::referrer(&repository, &digest, &other), Record::Referrer(digest, other)),
            (Key::manifest_seen(&repository, &digest), Record::Seen(digest)),
        ] {
            let listed = below(&key, &Prefix::records());
            assert_eq!(Record::of(&listed), Some((repository.clone(), record)));
        }
    }

    #[test]
    fn keys_that_are_not_ours_mean_nothing() {
        let hex = Digest::sha256(b"").hex();
        for listed in [
            String::new(),
            "sha256/e3/data".to_owned(),
            format!("sha256/00/{hex}/data"),
            format!("sha256/e3/{hex}/data/x"),
            format!("md5/e3/{hex}/data"),
            format!("sha256/e3/{hex}/a/b!/own"),
            format!("sha256/e3/{hex}/..!/own"),
            format!("sha256/e3/{hex}/A!/own"),
            format!("sha256/e3/{hex}/a!/own.tmp"),
            format!("sha256/e3/{hex}/a!/pin-sha256-00"),
        ] {
            assert_eq!(Mark::of(&listed), None, "{listed}");
        }
        for listed in ["a!m/sha256/00", "a!t/.x", "!t/v1", "a/..!t/v1", "a!x/v1", "a!t", "a"] {
            assert_eq!(Record::of(listed), None, "{listed}");
        }
    }
}
