//! What a source word means: a path, a file on a web server, or a git repository.
//!
//! The rules are BuildKit's (`dfgitutil.ParseGitRef`): `https://…/x.git` is a repository,
//! `https://…/x` a file, `git@host:path`, `git://…` and `ssh://…` are repositories. What is
//! chosen of a repository follows as `#ref:directory` or as `?ref=…&subdir=…`.

use std::path::{Path, PathBuf};

use crate::tree::normalize;

/// A source that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file.
    Http(String),
    /// A repository.
    Git(GitRef),
}

/// A repository, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// The address for `git fetch`.
    pub remote: String,
    /// A branch, tag, full ref or commit; the default branch without.
    pub reference: Option<String>,
    /// The directory in it, relative and normal; empty for all.
    pub subdir: PathBuf,
    /// The beginning of the commit that it has to be, in hex.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, where the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
}

impl Remote {
    /// Reads a source word; `None` for a path.
    ///
    /// # Errors
    /// Returns what is wrong with an address.
    pub fn parse(word: &str) -> Result<Option<Self>, String> {
        if word.starts_with("./") || word.starts_with("../") {
            return Ok(None);
        }
        let Some((scheme, rest)) = scheme(word) else {
            return Ok(if is_scp(word) { Some(Self::Git(GitRef::parse(word)?)) } else { None });
        };
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        Ok(match scheme.as_str() {
            "http" | "https" if !path.ends_with(".git") => {
                // A fragment is for browsers.
                let address = word.split('#').next().unwrap_or_default();
                checked(address)?;
                Some(Self::Http(address.to_owned()))
            }
            "http" | "https" | "git" | "ssh" => Some(Self::Git(GitRef::parse(word)?)),
            _ => None,
        })
    }

    /// Reads a build context, where `github.com/…` is a repository too, as docker has it.
    ///
    /// # Errors
    /// Returns what is wrong with an address.
    pub fn parse_context(word: &str) -> Result<Option<Self>, String> {
        if word.starts_with("github.com/") {
            return GitRef::parse(&format!("https://{word}")).map(|git| Some(Self::Git(git)));
        }
        Self::parse(word)
    }
}

impl GitRef {
    fn parse(text: &str) -> Result<Self, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        checked(remote)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut git = Self {
            remote: remote.to_owned(),
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            subdir: normalize(Path::new(subdir)),
            ..Self::default()
        };
        git.read_query(query)?;
        if let Some(reference) = &git.reference {
            check_reference(reference)?;
        }
        if let Some(checksum) = git.checksum.clone() {
            git.set_checksum(&checksum)?;
        }
        Ok(git)
    }

    /// Sets the beginning of the commit that it has to be.
    ///
    /// # Errors
    /// Returns BuildKit's text for what is not hex.
    pub fn set_checksum(&mut self, checksum: &str) -> Result<(), String> {
        let is_hex = checksum.chars().all(|c| c.is_ascii_hexdigit());
        if !is_hex || checksum.is_empty() || checksum.len() > 64 {
            return Err(format!(
                "invalid checksum {checksum} for Git URL, expected hex commit hash"
            ));
        }
        self.checksum = Some(checksum.to_ascii_lowercase());
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch, mut by_commit) = (None, None, false);
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            if seen.contains(&name) {
                return Err(format!("query {name:?} has multiple values"));
            }
            seen.push(name);
            let flag = || match value.as_str() {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(format!("invalid {name} value: {value:?}")),
            };
            match name {
                "submodules" => self.skip_submodules = !flag()?,
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "fetch-by-commit" => by_commit = flag()?,
                _ if value.is_empty() => return Err(format!("query {name:?} has no value")),
                "ref" => self.set_reference(value)?,
                "tag" => tag = Some(with_prefix("refs/tags/", &value)),
                "branch" => branch = Some(with_prefix("refs/heads/", &value)),
                "subdir" => {
                    let subdir = normalize(Path::new(&value));
                    if !self.subdir.as_os_str().is_empty() && self.subdir != subdir {
                        let fragment = self.subdir.display();
                        return Err(format!("subdir conflicts: \"{fragment}\" vs {value:?}"));
                    }
                    self.subdir = subdir;
                }
                "checksum" | "commit" => self.checksum = Some(value),
                // Files of a checkout have the time of the commit here, always.
                "mtime" if ["checkout", "commit"].contains(&value.as_str()) => {}
                "mtime" => return Err(format!("invalid mtime value: {value:?}")),
                _ => return Err(format!("unexpected query {name:?}")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        if let Some(full) = tag.or(branch) {
            self.set_reference(full)?;
        }
        if by_commit {
            let commit = self.checksum.clone().filter(|checksum| is_commit(checksum));
            let commit = commit.ok_or("fetch-by-commit requires a full commit as checksum")?;
            self.reference = Some(commit);
        }
        Ok(())
    }

    fn set_reference(&mut self, value: String) -> Result<(), String> {
        match &self.reference {
            Some(known) if *known != value => Err(format!("ref conflicts: {known:?} vs {value:?}")),
            _ => {
                self.reference = Some(value);
                Ok(())
            }
        }
    }

    /// Returns the address as it may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        without_password(&self.remote)
    }
}

/// Returns the name of a file by its address: the last element of the path.
#[must_use]
pub fn file_name(url: &str) -> String {
    /// BuildKit's name for what has none.
    const UNNAMED: &str = "__unnamed__";
    let rest = scheme(url).map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = decoded(path.split_once('/').map_or("", |(_, path)| path));
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") || name.contains('\0') {
        return UNNAMED.to_owned();
    }
    name.to_owned()
}

/// Returns an address without the password in it.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:xxxxx@{host}{path}")
        }
        _ => url.to_owned(),
    }
}

/// Returns whether text is the whole name of a commit, by SHA-1 or SHA-256.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

fn with_prefix(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Splits `scheme://rest`.
fn scheme(word: &str) -> Option<(String, &str)> {
    let (scheme, rest) = word.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Returns whether a word is `user@host:path`.
fn is_scp(word: &str) -> bool {
    let Some((user, rest)) = word.split_once('@') else { return false };
    let Some((host, _path)) = rest.split_once(':') else { return false };
    let is_name = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    is_name(user, "-_") && is_name(host, "-.") && !user.starts_with('-') && !host.starts_with('-')
}

/// Refuses what could be anything but an address.
fn checked(address: &str) -> Result<(), String> {
    let is_clean =
        !address.starts_with('-') && address.chars().all(|c| !c.is_control() && !c.is_whitespace());
    // `ssh://-oProxyCommand=…` is an option to ssh, however it is quoted.
    let host = address.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
    if is_clean && !host.starts_with('-') && address.len() <= 4096 {
        return Ok(());
    }
    Err(format!("invalid address {:?}", without_password(address)))
}

/// Refuses names that `git check-ref-format` does, and those that look like options.
fn check_reference(name: &str) -> Result<(), String> {
    let is_clean = !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("/.")
        && !name.contains("@{")
        && name.len() <= 1024
        && name.chars().all(|c| !c.is_control() && !" ~^:?*[\\".contains(c));
    if is_clean { Ok(()) } else { Err(format!("invalid git ref {name:?}")) }
}

/// Decodes `%XX`; what is no such code stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(word: &str) -> GitRef {
        match Remote::parse_context(word).unwrap().unwrap() {
            Remote::Git(git) => git,
            Remote::Http(url) => panic!("{url} is a file"),
        }
    }

    #[test]
    fn words_are_told_apart() {
        let table = [
            ("a/b", "path"),
            ("./git@host:x", "path"),
            ("file:///etc/passwd", "path"),
            ("github.com/a/b", "path"),
            ("http://h/x", "http"),
            ("https://h/x.git/y", "http"),
            ("HTTPS://h/x.tar?y=.git", "http"),
            ("https://h/x.git", "git"),
            ("https://u:p@h/x.git#main:dir", "git"),
            ("http://h/x.git?ref=main", "git"),
            ("git://h/x", "git"),
            ("ssh://git@h/x", "git"),
            ("git@h:x.git", "git"),
            ("me@h.example:x", "git"),
        ];
        for (word, expected) in table {
            let found = match Remote::parse(word).unwrap() {
                None => "path",
                Some(Remote::Http(_)) => "http",
                Some(Remote::Git(_)) => "git",
            };
            assert_eq!(found, expected, "{word}");
        }
        assert_eq!(git("github.com/a/b#v1").remote, "https://github.com/a/b");
    }

    #[test]
    fn both_forms_say_what_is_wanted() {
        let wanted = GitRef {
            remote: "https://h/x.git".into(),
            reference: Some("baz/qux".into()),
            subdir: "quux/quuz".into(),
            ..GitRef::default()
        };
        assert_eq!(git("https://h/x.git#baz/qux:quux/quuz"), wanted);
        assert_eq!(git("https://h/x.git?ref=baz%2Fqux&subdir=/quux/./quuz/"), wanted);
        assert_eq!(git("https://h/x.git?subdir=quux/quuz#baz/qux"), wanted);
        let more = git("git@h:x.git?tag=v1&checksum=abc123&submodules=false&keep-git-dir");
        assert_eq!(more.reference.as_deref(), Some("refs/tags/v1"));
        assert_eq!((more.checksum.as_deref(), more.keep_git_dir), (Some("abc123"), Some(true)));
        assert!(more.skip_submodules);
        assert_eq!(git("https://h/x.git#:../../etc").subdir, PathBuf::from("etc"));
        let commit = "0123456789012345678901234567890123456789";
        let by_commit = git(&format!("https://h/x.git?fetch-by-commit&commit={commit}"));
        assert_eq!(by_commit.reference.as_deref(), Some(commit));
    }

    #[test]
    fn what_git_could_misread_is_refused() {
        for word in [
            "https://h/x.git#--upload-pack=touch",
            "https://h/x.git#a..b",
            "https://h/x.git#a b",
            "https://h/x.git#a~1",
            "ssh://-oProxyCommand=touch/x",
            "ssh://git@-oProxyCommand=touch/x",
            "https://h/x y.git",
            "https://h/x.git?ref=a&ref=b",
            "https://h/x.git?ref=a#b",
            "https://h/x.git?ref=",
            "https://h/x.git?tag=a&branch=b",
            "https://h/x.git?checksum=xyz",
            "https://h/x.git?submodules=maybe",
            "https://h/x.git?fetch-by-commit&commit=abc",
            "https://h/x.git?unknown=1",
            "https://h/with\nline",
        ] {
            assert!(Remote::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn files_are_named_by_their_path() {
        let table = [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a%20b?x=/y#z", "a b"),
            ("https://h/a/", "a"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/..", "__unnamed__"),
            ("https://h/x%2F..", "__unnamed__"),
            ("https://h/x%2Fy", "y"),
            ("https://h/%zz", "%zz"),
        ];
        for (url, name) in table {
            assert_eq!(file_name(url), name, "{url}");
        }
        assert_eq!(without_password("https://u:p@h/x@y"), "https://u:xxxxx@h/x@y");
        assert_eq!(without_password("https://u@h/x"), "https://u@h/x");
    }
}
