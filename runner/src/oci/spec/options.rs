//! The options of a mount (runtime-spec, `config.md`, "Linux mount options"):
//! words that are attributes, words about propagation, and what is left for
//! the file system.

use sandbox::bundle::Propagation;

/// `MOUNT_ATTR_…`, and the bits of the access time, which are one number.
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x00;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Attributes: the word, what it sets, what it clears. With an `r` in front
/// they are for the mounts below as well.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("relatime", RELATIME, ATIME),
    ("norelatime", STRICTATIME, ATIME),
    ("noatime", NOATIME, ATIME),
    ("atime", RELATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", RELATIME, ATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

/// Words for the file system as a whole, of which the kernel has a flag.
const FLAGS: [&str; 5] = ["sync", "dirsync", "lazytime", "mand", "silent"];

/// Words that say what is the case anyway, or that are for other programs.
const IGNORED: [&str; 12] = [
    "defaults",
    "async",
    "nolazytime",
    "nomand",
    "loud",
    "iversion",
    "noiversion",
    "quiet",
    "auto",
    "noauto",
    "user",
    "nouser",
];

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) set_recursive: u64,
    pub(super) clear_recursive: u64,
    pub(super) propagation: Option<(Propagation, bool)>,
    pub(super) copy_up: bool,
    /// Whether ids are mapped, and those of mounts below as well.
    pub(super) id_map: Option<bool>,
    /// What is left for the file system.
    pub(super) data: Vec<(String, String)>,
}

impl Options {
    /// Sorts the words of `options`.
    pub(super) fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for word in options {
            parsed.add(word)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word).copied();
        if let Some((_, set, clear)) = attribute(word) {
            self.set = self.set & !(clear | set) | set;
            self.clear = self.clear & !set | clear;
            return Ok(());
        }
        if let Some((_, set, clear)) = word.strip_prefix('r').and_then(attribute) {
            self.set_recursive = self.set_recursive & !(clear | set) | set;
            self.clear_recursive = self.clear_recursive & !set | clear;
            return Ok(());
        }
        match word {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "private" => self.propagation = Some((Propagation::Private, false)),
            "rprivate" => self.propagation = Some((Propagation::Private, true)),
            "slave" => self.propagation = Some((Propagation::Slave, false)),
            "rslave" => self.propagation = Some((Propagation::Slave, true)),
            "shared" => self.propagation = Some((Propagation::Shared, false)),
            "rshared" => self.propagation = Some((Propagation::Shared, true)),
            "unbindable" => self.propagation = Some((Propagation::Unbindable, false)),
            "runbindable" => self.propagation = Some((Propagation::Unbindable, true)),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "remount" => return Err("remount is not supported: state the options at once".into()),
            "" => {}
            _ if IGNORED.contains(&word) => {}
            _ if FLAGS.contains(&word) => self.data.push((word.to_owned(), String::new())),
            _ => {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                self.data.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_are_sorted_into_attributes_propagation_and_data() {
        let options = parse("rbind,ro,nosuid,rprivate,rnodev,size=64k,mode=755,noswap,sync");
        assert_eq!(
            options,
            Options {
                bind: true,
                recursive: true,
                set: RDONLY | NOSUID,
                set_recursive: NODEV,
                propagation: Some((Propagation::Private, true)),
                data: vec![
                    ("size".into(), "64k".into()),
                    ("mode".into(), "755".into()),
                    ("noswap".into(), String::new()),
                    ("sync".into(), String::new()),
                ],
                ..Options::default()
            }
        );
    }

    #[test]
    fn the_last_word_wins() {
        let options = parse("ro,rw,noatime,strictatime,private,rshared");
        assert_eq!((options.set, options.clear), (STRICTATIME, RDONLY | ATIME));
        assert_eq!(options.propagation, Some((Propagation::Shared, true)));
        let options = parse("noexec,exec,noexec");
        assert_eq!((options.set, options.clear), (NOEXEC, 0));
    }

    #[test]
    fn recursive_words_are_not_mistaken_for_others() {
        let options = parse("rro,rnoexec,relatime");
        assert_eq!((options.set_recursive, options.set), (RDONLY | NOEXEC, RELATIME));
        assert_eq!(options.clear, ATIME);
        assert!(Options::parse(&["remount".into()]).is_err());
    }
}
