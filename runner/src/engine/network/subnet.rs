//! Ranges of addresses, and which of them is free on a host.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where networks of containers are looked for: private ranges that neither
/// docker nor podman nor usual routers take first, each split into networks of
/// [`PREFIX`].
const RANGES: [&str; 3] = ["10.89.0.0/16", "172.29.0.0/16", "192.168.224.0/19"];

/// A bridge has at most 1023 ports, and this is the prefix that has as many
/// addresses.
const PREFIX: u8 = 22;

/// The shortest prefix that is allowed: more containers than this has addresses
/// fit on no bridge, and it may cover what a host needs.
const PREFIX_MIN: u8 = 8;

/// The longest prefix in which a container has room beside the host.
const PREFIX_MAX: u8 = 30;

/// A range of addresses of IPv4, such as `10.89.0.0/22`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Returns the range that an address with a prefix belongs to; none if the
    /// prefix is longer than an address.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { base: Ipv4Addr::from_bits(address.to_bits() & mask), prefix })
    }

    /// Returns its first address, which nobody has.
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Returns how many leading bits its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns the address with this number in it, counted from the base.
    pub fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + number)
    }

    /// Returns the number of an address, if containers may have it: not the base,
    /// and not the last one, which means all of them.
    pub fn number(self, address: Ipv4Addr) -> Option<u32> {
        let number = address.to_bits().checked_sub(self.base.to_bits())?;
        (1..=self.last_number()).contains(&number).then_some(number)
    }

    /// Returns the number of the last address that somebody may have.
    pub fn last_number(self) -> u32 {
        !mask(self.prefix).unwrap_or(u32::MAX) - 1
    }

    /// Tells whether two ranges share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix)).unwrap_or(u32::MAX);
        self.base.to_bits() & mask == other.base.to_bits() & mask
    }

    /// Tells whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        mask(self.prefix).is_some_and(|mask| address.to_bits() & mask == self.base.to_bits())
    }

    /// Returns the first range for a network that shares no address with those
    /// that are taken.
    pub fn free(taken: &[Self]) -> Option<Self> {
        let ranges = RANGES.iter().filter_map(|range| range.parse::<Self>().ok());
        let candidates = ranges.flat_map(|range| {
            let size = 1_u32 << (32 - PREFIX);
            let count = 1_u32 << (PREFIX - range.prefix);
            (0..count)
                .map(move |number| Self { base: range.address(number * size), prefix: PREFIX })
        });
        candidates.into_iter().find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
    }
}

/// Returns the bits that are the network's.
fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix)),
        _ => None,
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a range of addresses such as 10.5.0.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix) {
            return Err(format!(
                "\"{text}\" cannot be a network: the number behind the slash is {PREFIX_MIN} to {PREFIX_MAX}"
            ));
        }
        let subnet = Self::around(address, prefix).ok_or_else(wrong)?;
        if subnet.base != address {
            return Err(format!("\"{text}\" is not the beginning of a network; {subnet} is"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_share_addresses_or_not() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.89.4.0/22", true),
            ("10.89.0.0/22", "10.89.3.0/24", true),
            ("10.89.0.0/22", "10.89.4.0/22", false),
            ("192.168.0.0/24", "192.168.0.0/24", true),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), expected, "{one} {other}");
            assert_eq!(subnet(other).overlaps(subnet(one)), expected, "{other} {one}");
        }
        let all = Subnet::around(Ipv4Addr::UNSPECIFIED, 0).unwrap();
        assert!(all.overlaps(subnet("10.0.0.0/8")));
    }

    #[test]
    fn addresses_have_numbers_but_for_the_first_and_the_last() {
        let small = subnet("10.5.0.0/30");
        assert_eq!(small.last_number(), 2);
        for (address, number) in [
            ([10, 5, 0, 0], None),
            ([10, 5, 0, 1], Some(1)),
            ([10, 5, 0, 2], Some(2)),
            ([10, 5, 0, 3], None),
            ([10, 4, 0, 1], None),
            ([10, 5, 0, 5], None),
        ] {
            assert_eq!(small.number(Ipv4Addr::from(address)), number, "{address:?}");
        }
        assert_eq!(subnet("10.89.0.0/22").last_number(), 1022);
        assert!(subnet("10.89.0.0/22").contains(Ipv4Addr::new(10, 89, 3, 255)));
        assert!(!subnet("10.89.0.0/22").contains(Ipv4Addr::new(10, 89, 4, 0)));
    }

    #[test]
    fn a_free_range_collides_with_nothing() {
        assert_eq!(Subnet::free(&[]), Some(subnet("10.89.0.0/22")));
        let taken = [subnet("10.89.0.0/24"), subnet("10.89.4.4/30")];
        assert_eq!(Subnet::free(&taken), Some(subnet("10.89.8.0/22")));
        assert_eq!(Subnet::free(&[subnet("10.0.0.0/8")]), Some(subnet("172.29.0.0/22")));
        let private = ["10.0.0.0/8", "172.16.0.0/12"].map(subnet);
        assert_eq!(Subnet::free(&private), Some(subnet("192.168.224.0/22")));
        let all = [private[0], private[1], subnet("192.168.0.0/16")];
        assert_eq!(Subnet::free(&all), None);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/7", "10.0.0.0/31", "10.0.0.1/24", "::/64"]
        {
            assert!(text.parse::<Subnet>().is_err(), "accepted {text:?}");
        }
    }
}
