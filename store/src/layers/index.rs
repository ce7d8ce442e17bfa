//! The index of an unpacked layer: what about it depends on the layers below.
//!
//! Most layers are self-contained: their directory means the same on top of any other. The index
//! names the exceptions, which a chain must put right (see [`chain`](super::chain)):
//!
//! - *implied* directories, which entries have as parents but which have no entry themselves. In
//!   the merged tree they look like the directory below;
//! - *whiteouts*, which overlayfs lists by mistake where there is nothing below to hide;
//! - *links* to files that are not in the layer.
//!
//! Metadata of entries is not repeated here: the layer's directory has it.
//!
//! ```text
//! layer-index 1
//! implied usr/share
//! whiteout etc/motd
//! link usr/bin/b usr/bin/a
//! skipped dev/null              a device an ordinary user could not make
//! opaque-root
//! end 4                         the number of lines between
//! ```
//!
//! Bytes other than visible ASCII, and `\`, are written as `\xNN`.

use std::fmt::Write as _;

use super::{
    error::{LayerError, LayerResult},
    path,
};

const FIRST_LINE: &str = "layer-index 1";

/// What about a layer depends on the layers below it. All paths are clean and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerIndex {
    /// Directories that no entry describes. The root is the empty path.
    pub implied: Vec<Vec<u8>>,
    /// Whiteouts that are in the directory as overlayfs' devices.
    pub whiteouts: Vec<Vec<u8>>,
    /// Names of files of lower layers, as pairs of new name and target.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Device nodes that are missing, because an ordinary user may not make any.
    pub skipped: Vec<Vec<u8>>,
    /// Whether the layer hides everything below it. Overlayfs does not look at the mark on a root,
    /// so the chain ends here.
    pub is_root_opaque: bool,
}

impl LayerIndex {
    /// Tells whether the directory of the layer can be stacked on any other as it is. An implied
    /// root alone does not count: see `chain`.
    #[must_use]
    pub fn is_self_contained(&self) -> bool {
        self.whiteouts.is_empty() && self.links.is_empty() && self.implied.iter().all(Vec::is_empty)
    }

    /// Tells whether the root has no entry, so that it looks like the one below.
    #[must_use]
    pub fn is_root_implied(&self) -> bool {
        self.implied.first().is_some_and(Vec::is_empty)
    }

    /// Writes the index.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{FIRST_LINE}\n");
        let mut lines = 0;
        let mut line = |word: &str, paths: &[&[u8]]| {
            out.push_str(word);
            for path in paths {
                out.push(' ');
                escape(&mut out, path);
            }
            out.push('\n');
            lines += 1;
        };
        self.implied.iter().for_each(|path| line("implied", &[path]));
        self.whiteouts.iter().for_each(|path| line("whiteout", &[path]));
        self.links.iter().for_each(|(path, target)| line("link", &[path, target]));
        self.skipped.iter().for_each(|path| line("skipped", &[path]));
        if self.is_root_opaque {
            line("opaque-root", &[]);
        }
        writeln!(out, "end {lines}").expect("a string takes all text");
        out
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a whole index of a version we know.
    pub fn parse(text: &str) -> LayerResult<Self> {
        let damaged =
            |reason: &str| LayerError::Record { what: "layer index", reason: reason.to_owned() };
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(damaged("it does not start with its version"));
        }
        let mut index = Self::default();
        let mut count = 0_u64;
        while let Some(line) = lines.next() {
            let mut words = line.split(' ');
            let word = words.next().unwrap_or_default();
            let mut next = || {
                let path = unescape(words.next()?)?;
                // What stands here is used as a path: it must be as clean as when it was written.
                (path::clean(&path).ok()? == path).then_some(path)
            };
            let mut path = || next().ok_or_else(|| damaged("a path in it is invalid"));
            match word {
                "implied" => index.implied.push(path()?),
                "whiteout" => index.whiteouts.push(path()?),
                "link" => index.links.push((path()?, path()?)),
                "skipped" => index.skipped.push(path()?),
                "opaque-root" => index.is_root_opaque = true,
                "end" => {
                    let whole = line == format!("end {count}") && lines.next().is_none();
                    return if whole { Ok(index) } else { Err(damaged("its end is wrong")) };
                }
                _ => return Err(damaged("it has a line of an unknown kind")),
            }
            count += 1;
        }
        Err(damaged("its end is missing"))
    }
}

/// Writes a path without blanks and line ends.
fn escape(out: &mut String, path: &[u8]) {
    for byte in path {
        match byte {
            b'!'..=b'~' if *byte != b'\\' => out.push(char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}").expect("a string takes all text"),
        }
    }
}

/// Undoes [`escape`].
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (digits, after) = rest.strip_prefix(b"x")?.split_at_checked(2)?;
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1_u8..=255, 0..12)
            .prop_filter_map("leaves the root", |path| path::clean(&path).ok())
    }

    proptest! {
        #[test]
        fn parse_undoes_to_text(
            implied in proptest::collection::vec(paths(), 0..4),
            whiteouts in proptest::collection::vec(paths(), 0..4),
            links in proptest::collection::vec((paths(), paths()), 0..4),
            skipped in proptest::collection::vec(paths(), 0..4),
            is_root_opaque: bool,
        ) {
            let index = LayerIndex { implied, whiteouts, links, skipped, is_root_opaque };
            prop_assert_eq!(LayerIndex::parse(&index.to_text()).unwrap(), index);
        }
    }

    #[test]
    fn damaged_indexes_are_refused() {
        for text in [
            "",
            "layer-index 2\nend 0\n",
            "layer-index 1\n",
            "layer-index 1\nimplied a\n",
            "layer-index 1\nimplied a\nend 2\n",
            "layer-index 1\nimplied ../a\nend 1\n",
            "layer-index 1\nimplied /a\nend 1\n",
            "layer-index 1\nlink a\nend 1\n",
            "layer-index 1\nimplied \\x\nend 1\n",
            "layer-index 1\nnews a\nend 1\n",
            "layer-index 1\nend 0\nimplied a\n",
        ] {
            assert!(LayerIndex::parse(text).is_err(), "accepted {text:?}");
        }
    }
}
