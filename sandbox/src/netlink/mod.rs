//! Talking to the kernel about devices, addresses and packet filters.
//!
//! Netlink (netlink(7)) carries messages of a header and attributes, each with
//! its length in front and padded to four bytes:
//!
//! ```text
//! message   = length u32 · kind u16 · flags u16 · sequence u32 · port u32 · family's header · attribute*
//! attribute = length u16 · kind u16 · value, which may be attributes again
//! ```
//!
//! A program that does the same (`ip`, `nft`) would take longer to start than
//! a container does.

mod link;
mod messages;
mod socket;

pub(crate) use link::{configure, connect};
pub use messages::{Attributes, Messages, flags};
pub use socket::{Reply, Socket};
