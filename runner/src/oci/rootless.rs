//! Ids of an ordinary user.
//!
//! The program enters a user namespace before it reads anything, and a
//! container's own namespace lies in that one. A configuration names the ids
//! of the host, so they are looked up in the map between the two.

use std::fs;

use sandbox::bundle::{Bundle, IdRange};

use super::error::{Error, IoContext as _, Result};

/// Rewrites the ids of a bundle, where this program has entered a namespace.
///
/// # Errors
///
/// When a range is not the user's: neither the own id nor subordinate ones.
pub(super) fn translate(bundle: &mut Bundle) -> Result<()> {
    if !sandbox::rootless::is_rootless() {
        return Ok(());
    }
    for (file, ranges) in [("uid_map", &mut bundle.uid_map), ("gid_map", &mut bundle.gid_map)] {
        let path = std::path::PathBuf::from(format!("/proc/self/{file}"));
        let map = parse(&fs::read_to_string(&path).doing("read", &path)?);
        for range in ranges {
            range.outside = find(&map, range).ok_or_else(|| {
                Error::invalid(format!(
                    "the ids {} to {} of the host are not this user's (see /etc/subuid and /etc/subgid)",
                    range.outside,
                    u64::from(range.outside) + u64::from(range.count) - 1
                ))
            })?;
        }
    }
    Ok(())
}

/// Returns the user's own ids on the host.
pub(super) fn own_ids() -> (u32, u32) {
    let outside = |file: &str, inside: u32| {
        let map = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let line = parse(&map).into_iter().find(|line| {
            inside.checked_sub(line.inside).is_some_and(|skipped| skipped < line.count)
        });
        line.map_or(inside, |line| line.outside.saturating_add(inside - line.inside))
    };
    (
        outside("uid_map", rustix::process::getuid().as_raw()),
        outside("gid_map", rustix::process::getgid().as_raw()),
    )
}

fn parse(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().map(|word| word.parse().ok());
            let (inside, outside, count) = (words.next()??, words.next()??, words.next()??);
            Some(IdRange { inside, outside, count })
        })
        .collect()
}

/// Returns the first id here of a range of the host's, if all of it is here in
/// one piece.
fn find(map: &[IdRange], range: &IdRange) -> Option<u32> {
    map.iter().find_map(|line| {
        let skipped = range.outside.checked_sub(line.outside)?;
        let fits = u64::from(skipped) + u64::from(range.count) <= u64::from(line.count);
        fits.then(|| line.inside.checked_add(skipped)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_host_are_found_in_the_map() {
        let map = parse("         0       1000          1\n         1     100000      65536\n");
        let at = |outside, count| find(&map, &IdRange { inside: 0, outside, count });
        assert_eq!(at(1000, 1), Some(0));
        assert_eq!(at(100_000, 65536), Some(1));
        assert_eq!(at(100_010, 5), Some(11));
        for (outside, count) in [(0, 1), (1000, 2), (100_000, 65537), (99_999, 2), (u32::MAX, 1)] {
            assert_eq!(at(outside, count), None, "{outside} {count}");
        }
    }
}
