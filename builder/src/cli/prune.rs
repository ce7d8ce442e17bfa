//! `rbuild prune`.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use store::{PruneImages, PruneOptions, PruneRecords, Store};

use super::environment;
use super::progress::human_size;
use crate::dockerfile::suggest::nearest;
use crate::solve::{Builds, Caches};

/// Remove what nothing uses
///
/// Images without a name, layers and blobs that nothing refers to, and what killed
/// programs have left. With --all also every image that no container uses, every build
/// record, cache mount and log, so that the next build starts from nothing. What a running
/// build uses always stays.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also remove unused images, build records, cache mounts and logs
    #[arg(short, long)]
    all: bool,
    /// Accepted for docker's sake: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
    /// Only what fits: until=24h (also unused-for=), type=images|records|cache-mounts|logs
    #[arg(long, value_name = "NAME=VALUE", value_parser = filter)]
    filter: Vec<Filter>,
    /// Remove what was not used for longest until the store is no larger than this
    #[arg(long, alias = "keep-storage", value_name = "SIZE", value_parser = size)]
    max_used_space: Option<u64>,
}

/// What may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// What was not used for so long.
    Unused(Duration),
    /// This kind of thing.
    Kind(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Images,
    Records,
    CacheMounts,
    Logs,
}

const KINDS: [(&str, Kind); 6] = [
    ("images", Kind::Images),
    ("records", Kind::Records),
    ("cache-mounts", Kind::CacheMounts),
    // BuildKit's words.
    ("exec.cachemount", Kind::CacheMounts),
    ("regular", Kind::Records),
    ("logs", Kind::Logs),
];

/// What a prune has done so far.
#[derive(Default)]
struct Done {
    lines: Vec<String>,
    records: usize,
    caches: usize,
    logs: usize,
}

pub(super) fn run(args: &PruneArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    // Those who prune wait anyway: what is unpacked is trusted after a power cut from now on.
    if let Err(error) = store.settle() {
        tracing::debug!(%error, "unpacked layers are not settled");
    }
    let before = total(&store)?;
    let mut done = Done::default();
    match args.max_used_space {
        None => args.everything(&store, &mut done)?,
        Some(cap) => args.down_to(&store, cap, &mut done)?,
    }
    let mut out = std::io::stdout().lock();
    for line in &done.lines {
        writeln!(out, "{line}")?;
    }
    for (count, what) in
        [(done.records, "build records"), (done.caches, "cache mounts"), (done.logs, "logs")]
    {
        if count > 0 {
            writeln!(out, "Removed {count} {what}")?;
        }
    }
    let after = total(&store)?;
    writeln!(out, "Total reclaimed space: {}", human_size(before.saturating_sub(after)))?;
    match args.max_used_space {
        Some(cap) if after > cap => bail!(
            "the store still has {}: what is left is used, or needs --all to be removed",
            human_size(after)
        ),
        _ => Ok(()),
    }
}

fn total(store: &Store) -> anyhow::Result<u64> {
    Ok(store.usage()?.values().map(|sum| sum.bytes).sum())
}

impl PruneArgs {
    fn wants(&self, kind: Kind) -> bool {
        let mut kinds = self.filter.iter().filter_map(|filter| match filter {
            Filter::Kind(kind) => Some(*kind),
            Filter::Unused(_) => None,
        });
        match kinds.clone().next() {
            None => true,
            Some(_) => kinds.any(|wanted| wanted == kind),
        }
    }

    /// Returns the time that a thing must not have been used since.
    fn limit(&self) -> Option<SystemTime> {
        let longest = self.filter.iter().filter_map(|filter| match filter {
            Filter::Unused(duration) => Some(*duration),
            Filter::Kind(_) => None,
        });
        let longest = longest.max()?;
        Some(environment::now().checked_sub(longest).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Removes all that fits.
    fn everything(&self, store: &Store, done: &mut Done) -> anyhow::Result<()> {
        let limit = self.limit();
        // An age or a kind that is asked for is meant; what has neither needs --all.
        let is_meant = self.all || !self.filter.is_empty();
        let records = match (is_meant && self.wants(Kind::Records), limit) {
            (false, _) => PruneRecords::Keep,
            (true, None) => PruneRecords::All,
            (true, Some(time)) => PruneRecords::UnusedSince(time),
        };
        let images = match (self.wants(Kind::Images), self.all, limit) {
            (false, ..) => PruneImages::Keep,
            (true, false, None) => PruneImages::Untagged,
            (true, false, Some(time)) => PruneImages::UntaggedSince(time),
            (true, true, None) => PruneImages::Unused,
            (true, true, Some(time)) => PruneImages::UnusedSince(time),
        };
        self.collect(store, &PruneOptions { records, images }, done)?;
        let builds = Builds::new(store.root().path());
        if is_meant && self.wants(Kind::CacheMounts) {
            let caches = Caches::new(builds.root());
            for cache in caches.list()? {
                if limit.is_none_or(|limit| cache.last_used < limit) {
                    done.caches += usize::from(caches.remove(&cache.name)?.is_some());
                }
            }
        }
        if is_meant && self.wants(Kind::Logs) {
            done.logs += builds.prune_logs(limit)?;
        }
        if self.filter.is_empty() {
            builds.prune(self.all)?;
        }
        Ok(())
    }

    /// Removes what was not used for longest until the store is small enough.
    fn down_to(&self, store: &Store, cap: u64, done: &mut Done) -> anyhow::Result<()> {
        let keep = PruneOptions { records: PruneRecords::Keep, images: PruneImages::Untagged };
        self.collect(store, &keep, done)?;
        let builds = Builds::new(store.root().path());
        builds.prune(false)?;
        let caches = Caches::new(builds.root());
        let limit = self.limit();
        let is_old = |time: SystemTime| limit.is_none_or(|limit| time < limit);
        loop {
            let excess = total(store)?.saturating_sub(cap);
            if excess == 0 {
                return Ok(());
            }
            let mut things: Vec<Thing> = Vec::new();
            if self.wants(Kind::Records) {
                let records = store.record_usage()?.into_iter();
                things.extend(records.map(|record| Thing {
                    used: record.used,
                    bytes: record.bytes,
                    what: What::Record(record.key),
                }));
            }
            if self.wants(Kind::CacheMounts) {
                let unused = caches.list()?.into_iter().filter(|cache| !cache.in_use);
                things.extend(unused.map(|cache| Thing {
                    used: cache.last_used,
                    bytes: cache.bytes,
                    what: What::Cache(cache.name),
                }));
            }
            things.retain(|thing| is_old(thing.used));
            things.sort_by_key(|thing| thing.used);
            let (mut freed, mut count) = (0, 0);
            for thing in things {
                if freed >= excess {
                    break;
                }
                freed += thing.bytes;
                match thing.what {
                    What::Record(key) => {
                        store.steps().remove(&key)?;
                        done.records += 1;
                        count += 1;
                    }
                    What::Cache(name) => {
                        let is_removed = caches.remove(&name)?.is_some();
                        done.caches += usize::from(is_removed);
                        count += usize::from(is_removed);
                    }
                }
            }
            self.collect(store, &keep, done)?;
            if count == 0 {
                break;
            }
        }
        if self.all {
            self.everything(store, done)?;
        }
        Ok(())
    }

    fn collect(
        &self,
        store: &Store,
        options: &PruneOptions,
        done: &mut Done,
    ) -> anyhow::Result<()> {
        let report = store.prune(options)?;
        done.records += report.records;
        for image in &report.images {
            done.lines.push(match &image.reference {
                Some(reference) => format!("Untagged: {}", reference.familiar()),
                None => format!("Deleted: {}", image.descriptor.digest),
            });
        }
        Ok(())
    }
}

/// Something that can be removed.
struct Thing {
    used: SystemTime,
    bytes: u64,
    what: What,
}

enum What {
    Record(oci::Digest),
    Cache(String),
}

fn filter(text: &str) -> Result<Filter, String> {
    let (name, value) = text.split_once('=').ok_or("use NAME=VALUE")?;
    match name {
        "until" | "unused-for" => Ok(Filter::Unused(duration(value)?)),
        "type" => {
            let known = KINDS.iter().find(|(name, _)| *name == value).map(|(_, kind)| *kind);
            known.map(Filter::Kind).ok_or_else(|| {
                let names = KINDS.map(|(name, _)| name);
                let near = nearest(value, names).map(|near| format!(", did you mean {near}?"));
                format!("{value:?} is no type of things{}", near.unwrap_or_default())
            })
        }
        _ => Err(format!("{name:?} is no filter: use until, unused-for or type")),
    }
}

/// Reads a duration as Go writes it: `24h`, `1h30m`, `45s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 24h or 1h30m");
    let (mut seconds, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_no_number| wrong())?;
        digits.clear();
        seconds = count.checked_mul(unit).and_then(|s| seconds.checked_add(s)).ok_or_else(wrong)?;
    }
    match digits.is_empty() && !text.is_empty() {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(wrong()),
    }
}

/// Reads a size: `10GB`, `500mb`, `1GiB`, or bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size such as 500MB or 10GiB");
    let lower = text.to_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(factor)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_sizes_are_read() {
        assert_eq!(filter("until=1h30m"), Ok(Filter::Unused(Duration::from_secs(5400))));
        assert_eq!(filter("unused-for=2d"), Ok(Filter::Unused(Duration::from_secs(172_800))));
        assert_eq!(filter("type=exec.cachemount"), Ok(Filter::Kind(Kind::CacheMounts)));
        let table = [
            ("type=record", "\"record\" is no type of things, did you mean records?"),
            ("until=soon", "\"soon\" is no duration such as 24h or 1h30m"),
            ("until=24", "\"24\" is no duration such as 24h or 1h30m"),
            ("label=x", "\"label\" is no filter: use until, unused-for or type"),
            ("x", "use NAME=VALUE"),
        ];
        for (text, expected) in table {
            assert_eq!(filter(text).unwrap_err(), expected);
        }
        for (text, expected) in [("0", 0), ("7", 7), ("10GB", 10_000_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "GB", "-1", "1.5GB", "99999999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
