//! What a network is: the contents of its `config.json`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::subnet::Subnet;
use crate::engine::id::ContainerId;
use crate::engine::name::Name;
use crate::engine::timestamp::Timestamp;

/// The format of `config.json`; raised when an older reader would be misled.
pub const VERSION: u32 = 1;

/// A network as it was asked for, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The format, [`VERSION`].
    pub version: u32,
    /// Its identity, of the same form as that of a container.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// When it was made.
    pub created: Timestamp,
    /// The bridge on the host.
    pub device: String,
    /// The addresses of its containers.
    pub subnet: Subnet,
    /// The address of the host in it.
    pub gateway: Ipv4Addr,
    /// The size of the largest packet in bytes.
    pub mtu: u32,
    /// Whether nothing outside is reached from it.
    #[serde(default)]
    pub internal: bool,
    /// What it is labelled with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl NetworkConfig {
    /// Returns the hardware address of the bridge, by which the device is known
    /// to be this network's.
    pub fn mac(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        for (byte, digits) in mac.iter_mut().zip(self.id.as_str().as_bytes().chunks(2)) {
            let text = std::str::from_utf8(digits).unwrap_or_default();
            *byte = u8::from_str_radix(text, 16).unwrap_or_default();
        }
        // Given out by nobody, and of one device.
        mac[0] = mac[0] & 0xfc | 0x02;
        mac
    }
}

/// Returns the hardware address of a container: who has an address later has
/// its hardware address, too, so that nobody's memory of it is wrong.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Writes a hardware address as people do.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
