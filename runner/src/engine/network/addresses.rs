//! Who has which address of a network.
//!
//! Whoever has an address holds a lock on one byte of the network's file
//! `addresses`, the byte with the number of the address. Locks end with the
//! processes that hold them: an address is never lost, whoever is killed, and
//! nothing has to be given back.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::subnet::Subnet;
use crate::engine::error::{IoContext as _, Result};

/// The addresses of one network.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    path: PathBuf,
    subnet: Subnet,
    gateway: Ipv4Addr,
}

impl Addresses {
    /// Returns the addresses of a network that has its files in `dir`.
    pub(super) fn new(dir: &Path, subnet: Subnet, gateway: Ipv4Addr) -> Self {
        Self { path: dir.join("addresses"), subnet, gateway }
    }

    /// Takes one address; none if somebody has it. It is given back when the
    /// file is closed by all who share it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or locked.
    pub(super) fn take(&self, address: Ipv4Addr) -> Result<Option<File>> {
        let Some(number) = self.subnet.number(address).filter(|_| address != self.gateway) else {
            return Ok(None);
        };
        let file = self.open()?;
        Ok(lock(&file, number).doing("lock", &self.path)?.then_some(file))
    }

    /// Takes any free address, that with the number `wish` if it is free; none
    /// if all are taken.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or locked.
    pub(super) fn take_any(&self, wish: u32) -> Result<Option<(Ipv4Addr, File)>> {
        let file = self.open()?;
        let last = self.subnet.last_number();
        for offset in 0..last {
            let number = (wish % last + offset) % last + 1;
            let address = self.subnet.address(number);
            if address != self.gateway && lock(&file, number).doing("lock", &self.path)? {
                return Ok(Some((address, file)));
            }
        }
        Ok(None)
    }

    /// Tells whether somebody has an address.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or asked.
    pub(super) fn is_taken(&self, address: Ipv4Addr) -> Result<bool> {
        match self.subnet.number(address) {
            Some(number) => self.is_locked(range(number)),
            None => Ok(false),
        }
    }

    /// Tells whether somebody has any address, be it that he is only about to
    /// start.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or asked.
    pub(super) fn are_taken(&self) -> Result<bool> {
        // Without a length it reaches to the end.
        self.is_locked(libc::flock { l_len: 0, ..range(0) })
    }

    fn is_locked(&self, mut range: libc::flock) -> Result<bool> {
        let file = self.open()?;
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut range)).doing("ask for locks of", &self.path)?;
        Ok(i32::from(range.l_type) != libc::F_UNLCK)
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)
            .doing("open", &self.path)
    }
}

/// Locks the byte of an address; `false` if somebody else has.
fn lock(file: &File, number: u32) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(number))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn range(number: u32) -> libc::flock {
    let small = |value: i32| i16::try_from(value).expect("the kernel's constants are small");
    libc::flock {
        l_type: small(libc::F_WRLCK),
        l_whence: small(libc::SEEK_SET),
        l_start: i64::from(number),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(dir: &Path, subnet: &str) -> Addresses {
        let subnet: Subnet = subnet.parse().unwrap();
        Addresses::new(dir, subnet, subnet.address(1))
    }

    #[test]
    fn an_address_is_taken_until_its_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = addresses(dir.path(), "10.5.0.0/24");
        let address = Ipv4Addr::new(10, 5, 0, 9);
        let held = addresses.take(address).unwrap().unwrap();
        assert!(addresses.is_taken(address).unwrap());
        assert!(addresses.are_taken().unwrap());
        assert!(addresses.take(address).unwrap().is_none());
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(addresses.is_taken(address).unwrap(), "a copy keeps it");
        drop(copy);
        assert!(!addresses.is_taken(address).unwrap());
        assert!(!addresses.are_taken().unwrap());
        assert!(addresses.take(address).unwrap().is_some());
    }

    #[test]
    fn those_of_the_network_itself_are_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = addresses(dir.path(), "10.5.0.0/24");
        for last in [0, 1, 255] {
            assert!(addresses.take(Ipv4Addr::new(10, 5, 0, last)).unwrap().is_none(), "{last}");
        }
        assert!(addresses.take(Ipv4Addr::new(10, 6, 0, 2)).unwrap().is_none());
    }

    #[test]
    fn all_are_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = addresses(dir.path(), "10.5.0.0/29");
        let mut held = Vec::new();
        let mut given = Vec::new();
        while let Some((address, file)) = addresses.take_any(u32::MAX).unwrap() {
            given.push(address);
            held.push(file);
        }
        given.sort();
        let expected: Vec<_> = (2..=6).map(|last| Ipv4Addr::new(10, 5, 0, last)).collect();
        assert_eq!(given, expected);
        held.pop();
        assert!(addresses.take_any(0).unwrap().is_some());
    }
}
