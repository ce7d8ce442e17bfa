//! Subordinate ids: `/etc/subuid` and `/etc/subgid` (`subuid(5)`).

use std::fs;
use std::io;

/// A run of ids that a user may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// How the ids of a namespace are mapped from outside.
#[derive(Debug)]
pub(super) enum Maps {
    /// The text of `uid_map` and `gid_map`, for who may write them.
    Direct {
        /// The user ids.
        uids: String,
        /// The group ids.
        gids: String,
    },
    /// Arguments of newuidmap and newgidmap.
    Tools {
        /// The user ids.
        uids: Vec<String>,
        /// The group ids.
        gids: Vec<String>,
    },
}

/// Returns maps in which every id that is mapped here stays what it is.
pub(super) fn identity() -> Result<Maps, String> {
    let read = |path: &str| {
        let text = fs::read_to_string(path);
        text.map(|text| same(&text)).map_err(|error| format!("{path} cannot be read: {error}"))
    };
    Ok(Maps::Direct { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
}

/// Returns a map with the inner ids of `map` on both sides.
fn same(map: &str) -> String {
    let fields = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (inner, _outer, count) = (words.next()?, words.next()?, words.next()?);
        Some(format!("{inner} {inner} {count}\n"))
    };
    map.lines().filter_map(fields).collect()
}

/// Returns how the subordinate ids of a user are mapped, or why there are none.
pub(super) fn subordinate(uid: u32, gid: u32) -> Result<Maps, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(uid, &passwd);
    let read = |path: &str| {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let ranges = parse(&text, uid, name.as_deref());
        if ranges.is_empty() {
            let user = name.clone().unwrap_or_else(|| uid.to_string());
            return Err(format!(
                "{path} has no line for {user}; an administrator can add one with \
                 `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"
            ));
        }
        Ok(ranges)
    };
    Ok(Maps::Tools {
        uids: arguments(uid, &read("/etc/subuid")?),
        gids: arguments(gid, &read("/etc/subgid")?),
    })
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Returns the ranges of a user, who is named or numbered in the file.
fn parse(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let number = uid.to_string();
    let own = |user: &str| user == number || Some(user) == name;
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().splitn(3, ':');
            let (user, start, count) = (fields.next()?, fields.next()?, fields.next()?);
            let range = Range { start: start.parse().ok()?, count: count.parse().ok()? };
            (own(user) && range.count > 0).then_some(range)
        })
        .collect()
}

/// Returns what newuidmap and newgidmap are told: inner id, outer id, count,
/// for the own id and every range.
fn arguments(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inner = 1u32;
    for Range { start, count } in ranges {
        arguments.extend([inner.to_string(), start.to_string(), count.to_string()]);
        inner = inner.saturating_add(*count);
    }
    arguments
}

/// Maps only the own id. Without the right to choose groups the kernel wants
/// them given up first.
pub(super) fn map_single(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Returns how many user ids are mapped.
pub(super) fn count_mapped() -> u64 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// Returns who user 0 is outside, when the process is in a user namespace
/// that this module made.
pub(super) fn outer_uid() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    let mut words = map.lines().next()?.split_ascii_whitespace();
    let (inner, outer, count) = (words.next()?, words.next()?, words.next()?);
    (inner == "0" && outer != "0" && count == "1").then(|| outer.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:5\nada:100000:65536\n1000:300000:10\nadam:7:7\nada:x:1\nada:9:0\n";
        let ranges = parse(text, 1000, Some("ada"));
        assert_eq!(
            ranges,
            [Range { start: 100_000, count: 65_536 }, Range { start: 300_000, count: 10 }]
        );
        assert_eq!(arguments(1000, &ranges).join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
        assert!(parse(text, 1001, None).is_empty());
    }

    #[test]
    fn the_ids_of_a_container_stay_what_they_are() {
        assert_eq!(same("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }

    #[test]
    fn names_come_from_the_passwd_file() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ada"));
        assert_eq!(name_of(100, passwd), None);
    }
}
