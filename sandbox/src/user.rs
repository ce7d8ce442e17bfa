//! Who a process is: the user text of an image and the files it refers to.
//!
//! The text and both files come from an image and are hostile input. Numbers
//! are read strictly — a number too large is an error and never a name
//! (CVE-2024-40635, CVE-2026-46680), `1` is never taken for root
//! (CVE-2026-30892) — and the files only as far as [`FILE_BYTES_MAX`].

use crate::error::{Error, Result};

/// More than any real passwd or group file, little enough to read.
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;

/// The highest id: the kernel uses 2^32-1 as "no id".
const ID_MAX: u32 = u32::MAX - 1;

/// The kernel's limit on supplementary groups.
const GROUPS_MAX: usize = 65_536;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A user or a group as the text gives it.
#[derive(Debug, PartialEq, Eq)]
enum Principal<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Principal<'a> {
    fn parse(text: &'a str, what: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(format!("the {what} is empty")));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let id = text.parse::<u32>().ok().filter(|id| *id <= ID_MAX);
            return id.map(Self::Id).ok_or_else(|| {
                Error::invalid(format!("{what} id {text} is out of range (0 to {ID_MAX})"))
            });
        }
        if text.bytes().any(|byte| byte.is_ascii_control() || byte == b':' || byte == b'\n') {
            return Err(Error::invalid(format!("{text:?} is not a {what} name")));
        }
        // A name begins with none of the signs that make other things of numbers.
        if text.starts_with(['-', '+']) {
            return Err(Error::invalid(format!("{text:?} is neither a {what} name nor an id")));
        }
        Ok(Self::Name(text))
    }
}

/// One line of a passwd file.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Account { name, uid: id(uid)?, gid: id(gid)?, home })
    })
}

/// One line of a group file: name, id, members.
fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, ..] = fields[..] else { return None };
        Some((name, id(gid)?, fields.get(3).copied().unwrap_or("")))
    })
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= ID_MAX)
}

/// Resolves the `user` of an image config against the passwd and group files
/// of the root, and the `additional` groups by name or id.
///
/// As in docker: without a group, the group is that of the account, and the
/// groups that list the account are supplementary ones; with a group there are
/// none but the additional ones; an id needs no account.
///
/// # Errors
///
/// When a name is not in its file or an id is out of range.
pub(crate) fn resolve(
    user: &str,
    additional: &[String],
    passwd: &str,
    group: &str,
) -> Result<Identity> {
    let (user, primary) = match user.split_once(':') {
        None => (user, None),
        Some((user, "")) => (user, None),
        Some((user, group)) => (user, Some(group)),
    };
    let user = if user.is_empty() { "0" } else { user };
    let user = Principal::parse(user, "user")?;
    let account = accounts(passwd).find(|account| match user {
        Principal::Id(uid) => account.uid == uid,
        Principal::Name(name) => account.name == name,
    });
    let (uid, account_gid) = match (&user, &account) {
        (_, Some(account)) => (account.uid, account.gid),
        (Principal::Id(uid), None) => (*uid, 0),
        (Principal::Name(name), None) => {
            return Err(Error::invalid(format!(
                "there is no user {name:?} in the container's /etc/passwd"
            )));
        }
    };
    let mut groups = Vec::new();
    let gid = match primary {
        Some(text) => find_group(text, group)?,
        None => {
            if let Some(account) = &account {
                let listed =
                    |members: &str| members.split(',').any(|member| member == account.name);
                groups.extend(
                    group_entries(group)
                        .filter(|(_, _, members)| listed(members))
                        .map(|(_, gid, _)| gid),
                );
            }
            account_gid
        }
    };
    for text in additional {
        groups.push(find_group(text, group)?);
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return Err(Error::invalid(format!(
            "{} groups are more than the kernel's {GROUPS_MAX}",
            groups.len()
        )));
    }
    let home = account.map(|account| account.home).filter(|home| !home.is_empty());
    Ok(Identity { uid, gid, groups, home: home.unwrap_or("/").to_owned() })
}

fn find_group(text: &str, group: &str) -> Result<u32> {
    match Principal::parse(text, "group")? {
        Principal::Id(gid) => Ok(gid),
        Principal::Name(name) => group_entries(group)
            .find(|(known, _, _)| *known == name)
            .map(|(_, gid, _)| gid)
            .ok_or_else(|| {
                Error::invalid(format!("there is no group {name:?} in the container's /etc/group"))
            }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        web:x:33:33::/var/www:/bin/false\n\
        4294967296:x:0:0::/root:/bin/sh\n\
        7:x:0:0::/root:/bin/sh\n\
        bare:x:50:60::\n\
        far:x:4294967295:0::/:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:33:\nmail:x:8:web,bare\nnews:x:9:xweb\nmany:x:10:a,web\nshort:x:11\n";

    fn ids(user: &str) -> Option<(u32, u32, Vec<u32>)> {
        let identity = resolve(user, &[], PASSWD, GROUP).ok()?;
        Some((identity.uid, identity.gid, identity.groups))
    }

    #[test]
    fn the_forms_of_an_image_config() {
        let cases = [
            ("", (0, 0, vec![0])),
            ("root", (0, 0, vec![0])),
            ("web", (33, 33, vec![8, 10, 33])),
            ("33", (33, 33, vec![8, 10, 33])),
            ("033", (33, 33, vec![8, 10, 33])),
            ("web:", (33, 33, vec![8, 10, 33])),
            ("web:mail", (33, 8, vec![8])),
            ("web:5", (33, 5, vec![5])),
            ("1", (1, 0, vec![0])),
            ("1:2", (1, 2, vec![2])),
            (":5", (0, 5, vec![5])),
            // Not the account of that name, which is root.
            ("7", (7, 0, vec![0])),
            ("4294967294", (u32::MAX - 1, 0, vec![0])),
            ("bare", (50, 60, vec![8, 60])),
        ];
        for (user, expected) in cases {
            assert_eq!(ids(user), Some(expected), "user {user:?}");
        }
    }

    /// CVE-2024-40635, CVE-2026-46680, CVE-2026-30892: none of these is root.
    #[test]
    fn what_is_no_user_is_refused() {
        for user in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+1",
            "1:4294967295",
            "1:-1",
            "nobody",
            "web:nogroup",
            "far",
            "a\nb",
            "1:2:3",
        ] {
            assert_eq!(ids(user), None, "accepted {user:?}");
        }
    }

    #[test]
    fn groups_and_home() {
        let identity = resolve("web", &["news".into(), "77".into()], PASSWD, GROUP).unwrap();
        assert_eq!(identity.groups, [8, 9, 10, 33, 77]);
        assert_eq!(identity.home, "/var/www");
        assert_eq!(resolve("12345", &[], PASSWD, GROUP).unwrap().home, "/");
        assert_eq!(resolve("bare", &[], PASSWD, GROUP).unwrap().home, "/");
    }

    proptest! {
        /// Whatever the files say, a number is that number.
        #[test]
        fn digits_are_an_id_or_an_error(number: u64, passwd in "[a-z0-9:\n]{0,80}") {
            let text = number.to_string();
            match resolve(&text, &[], &passwd, "") {
                Ok(identity) => prop_assert_eq!(u64::from(identity.uid), number),
                Err(_) => prop_assert!(number > u64::from(ID_MAX)),
            }
        }
    }
}
