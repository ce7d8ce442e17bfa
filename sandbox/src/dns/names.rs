//! Who is in a network.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::Ipv4Addr;

use nix::fcntl::{FcntlArg, fcntl};

use super::Resolver;

/// More than the names of a container need.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Returns the addresses of those that have a name.
pub(super) fn addresses_of(resolver: &Resolver, name: &str) -> Vec<Ipv4Addr> {
    let domain = format!(".{}", resolver.domain.to_ascii_lowercase());
    let short = name.strip_suffix(&domain).unwrap_or(name);
    let is_it = |known: &str| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(short);
    let mut addresses = Vec::new();
    for entry in fs::read_dir(&resolver.members).into_iter().flatten().flatten() {
        let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(address) = address
            && read(resolver, address).lines().any(is_it)
            && is_taken(resolver, address)
        {
            addresses.push(address);
        }
    }
    addresses.sort();
    addresses
}

/// Returns the name of who has an address, with the network's behind it.
pub(super) fn name_of(resolver: &Resolver, address: Ipv4Addr) -> Option<String> {
    let names = read(resolver, address);
    let first = names.lines().next()?;
    is_taken(resolver, address).then(|| format!("{first}.{}", resolver.domain))
}

fn read(resolver: &Resolver, address: Ipv4Addr) -> String {
    let mut text = String::new();
    let file = File::open(resolver.members.join(address.to_string()));
    // One that has just gone has no names.
    file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)).ok();
    text
}

/// Tells whether somebody holds the lock of an address.
fn is_taken(resolver: &Resolver, address: Ipv4Addr) -> bool {
    let Some(number) = address.to_bits().checked_sub(resolver.base.to_bits()) else {
        return false;
    };
    let small = |value: i32| i16::try_from(value).expect("the kernel's constants are small");
    let mut range = libc::flock {
        // A lock for reading would be refused, and asks for no right to write.
        l_type: small(libc::F_RDLCK),
        l_whence: small(libc::SEEK_SET),
        l_start: i64::from(number),
        l_len: 1,
        l_pid: 0,
    };
    let Ok(file) = File::open(&resolver.addresses) else { return false };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut range)).is_ok()
        && i32::from(range.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::OpenOptions;

    #[test]
    fn names_count_while_their_address_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = Resolver {
            domain: "lab".into(),
            members: dir.path().join("members"),
            addresses: dir.path().join("addresses"),
            base: Ipv4Addr::new(10, 5, 0, 0),
            servers: Vec::new(),
            forwards: false,
        };
        assert!(addresses_of(&resolver, "web").is_empty(), "nobody is there yet");
        fs::create_dir(&resolver.members).unwrap();
        fs::write(resolver.members.join("10.5.0.2"), "web\nalias\n").unwrap();
        fs::write(resolver.members.join("10.5.0.3"), "dead\nalias\n").unwrap();
        let file = OpenOptions::new().create_new(true).write(true).open(&resolver.addresses);
        let file = file.unwrap();
        let range = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap(),
            l_whence: 0,
            l_start: 2,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&range)).unwrap();
        let here = Ipv4Addr::new(10, 5, 0, 2);
        for (name, expected) in [
            ("web", &[here][..]),
            ("web.lab", &[here]),
            ("alias", &[here]),
            ("web.other", &[]),
            ("dead", &[]),
            ("", &[]),
        ] {
            assert_eq!(addresses_of(&resolver, name), expected, "{name}");
        }
        assert_eq!(name_of(&resolver, here), Some("web.lab".to_owned()));
        assert_eq!(name_of(&resolver, Ipv4Addr::new(10, 5, 0, 3)), None);
        drop(file);
        assert!(addresses_of(&resolver, "web").is_empty());
    }
}
