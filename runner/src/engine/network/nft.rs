//! The words of nf_tables: what `nft` would say, as messages to the kernel.
//!
//! All numbers in attributes are big-endian; the values that packets are
//! compared with are as they are in a packet, and the kernel's own ones as the
//! machine has them.

use sandbox::netlink::{Attributes, Messages, flags};

/// A message of the subsystem nf_tables, by the kernel's number.
pub(super) const fn kind(message: u16) -> u16 {
    10 << 8 | message
}

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
pub(super) const DELETE_ELEMENT: u16 = 14;

/// Tables of any family.
pub(super) const ANY: u8 = 0;
/// Tables of IPv4 and IPv6 together.
pub(super) const INET: u8 = 1;
/// Tables of IPv4.
pub(super) const IPV4: u8 = 2;

/// Where a packet is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A register of 16 bytes, and the first of the small ones in it.
const REGISTER: u32 = 1;
/// The next register of 16 bytes.
const NEXT_REGISTER: u32 = 2;
/// The small registers of 4 bytes that begin at [`REGISTER`].
const SMALL: u32 = 8;
/// Where a verdict goes.
const VERDICT: u32 = 0;

/// The bytes of a device's name, with nulls behind it.
pub(super) const NAME_BYTES: usize = 16;

/// Returns the header of a message about this family's tables.
pub(super) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// Makes messages take effect together or not at all.
pub(super) fn batch(fill: impl FnOnce(&mut Messages)) -> Messages {
    // The number of the subsystem, big-endian.
    let header = [0, 0, 0, 10];
    let mut messages = Messages::new();
    messages.message(0x10, 0, &header, |_| {});
    fill(&mut messages);
    // The first answer is then the one that counts: an objection comes before it.
    messages.acknowledge();
    messages.message(0x11, 0, &header, |_| {});
    messages
}

/// Adds a number.
pub(super) fn number(messages: &mut Messages, kind: u16, value: u32) {
    messages.attribute(kind, &value.to_be_bytes());
}

/// Adds a value that packets are compared with.
fn value(messages: &mut Messages, kind: u16, bytes: &[u8]) {
    messages.nested(kind, |data| data.attribute(1, bytes));
}

/// A map or set: its name, the types of its key and of its data as `nft` counts
/// them, and their lengths.
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) key: (u32, u32),
    pub(super) data: Option<(u32, u32)>,
}

/// Returns the type of several values behind each other.
pub(super) const fn concatenation(types: &[u32]) -> u32 {
    let mut all = 0;
    let mut at = 0;
    while at < types.len() {
        all = all << 6 | types[at];
        at += 1;
    }
    all
}

pub(super) const TYPE_ADDRESS: u32 = 7;
pub(super) const TYPE_PROTOCOL: u32 = 12;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const TYPE_DEVICE: u32 = 41;

/// Adds a set or map.
pub(super) fn new_set(messages: &mut Messages, table: &str, set: &Set) {
    messages.message(kind(NEW_SET), flags::CREATE, &header(IPV4), |message| {
        message.text(1, table);
        message.text(2, set.name);
        // NFT_SET_MAP
        number(message, 3, if set.data.is_some() { 8 } else { 0 });
        number(message, 4, set.key.0);
        number(message, 5, set.key.1);
        if let Some((data_type, length)) = set.data {
            number(message, 6, data_type);
            number(message, 7, length);
        }
        number(message, 10, set.id);
    });
}

/// Adds an element to a set or takes it out. `comment` is shown by `nft`.
pub(super) fn element(
    messages: &mut Messages,
    (message, flags): (u16, u16),
    (table, set): (&str, &str),
    (key, data): (&[u8], Option<&[u8]>),
    comment: &str,
) {
    messages.message(kind(message), flags, &header(IPV4), |message| {
        message.text(1, table);
        message.text(2, set);
        message.nested(3, |elements| {
            elements.nested(1, |element| {
                value(element, 1, key);
                if let Some(data) = data {
                    value(element, 2, data);
                }
                if !comment.is_empty() {
                    element.attribute(6, &user_data(comment));
                }
            });
        });
    });
}

/// Reads the elements in an answer to `GET_ELEMENT`, as key and data.
pub(super) fn elements(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(attributes) = body.get(4..) else { return Vec::new() };
    let list = Attributes::of(attributes).find(3).unwrap_or_default();
    let inner = |element: Attributes<'_>, kind: u16| {
        let value = element.find(kind).and_then(|value| Attributes::of(value).find(1));
        value.unwrap_or_default().to_vec()
    };
    Attributes::of(list)
        .map(|(_, element)| {
            let element = Attributes::of(element);
            (inner(element.clone(), 1), inner(element, 2))
        })
        .collect()
}

/// Returns a comment as `nft` keeps it: kind, length, text with a null.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).expect("comments are short");
    let mut bytes = vec![0, length];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

/// Adds a chain that packets come through at a hook.
pub(super) fn new_chain(
    messages: &mut Messages,
    table: &str,
    (name, form): (&str, &str),
    (hook, priority): (Hook, i32),
) {
    messages.message(kind(NEW_CHAIN), flags::CREATE, &header(IPV4), |message| {
        message.text(1, table);
        message.text(3, name);
        message.nested(4, |place| {
            number(place, 1, hook as u32);
            number(place, 2, priority.cast_unsigned());
        });
        // Accept: whoever wants packets dropped says so elsewhere.
        number(message, 5, 1);
        message.text(7, form);
    });
}

/// The expressions of a rule, in the order in which they are looked at.
pub(super) struct Rule<'m>(&'m mut Messages);

/// Adds a rule behind the others of its chain.
pub(super) fn new_rule(
    messages: &mut Messages,
    table: &str,
    chain: &str,
    fill: impl FnOnce(&mut Rule<'_>),
) {
    let flags = flags::CREATE | flags::APPEND;
    messages.message(kind(NEW_RULE), flags, &header(IPV4), |message| {
        message.text(1, table);
        message.text(2, chain);
        message.nested(4, |expressions| fill(&mut Rule(expressions)));
    });
}

/// What the kernel knows of a packet, by its number.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    InName = 6,
    OutName = 7,
    Protocol = 16,
}

impl Rule<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Messages)) -> &mut Self {
        self.0.nested(1, |element| {
            element.text(1, name);
            element.nested(2, fill);
        });
        self
    }

    fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.expression("meta", |meta| {
            number(meta, 1, register);
            number(meta, 2, key as u32);
        })
    }

    /// Loads a part of a packet; base 1 is the header of IP, 2 the one behind.
    fn payload(&mut self, (base, offset, length): (u32, u32, u32), register: u32) -> &mut Self {
        self.expression("payload", |payload| {
            number(payload, 1, register);
            number(payload, 2, base);
            number(payload, 3, offset);
            number(payload, 4, length);
        })
    }

    fn compare(&mut self, is_equal: bool, bytes: &[u8]) -> &mut Self {
        self.expression("cmp", |cmp| {
            number(cmp, 1, REGISTER);
            number(cmp, 2, u32::from(!is_equal));
            value(cmp, 3, bytes);
        })
    }

    fn mask(&mut self, bits: [u8; 4]) -> &mut Self {
        self.expression("bitwise", |bitwise| {
            number(bitwise, 1, REGISTER);
            number(bitwise, 2, REGISTER);
            number(bitwise, 3, 4);
            value(bitwise, 4, &bits);
            value(bitwise, 5, &[0; 4]);
        })
    }

    /// The name of the device begins with `prefix`, or does not.
    pub(super) fn device_begins(&mut self, meta: Meta, is: bool, prefix: &str) -> &mut Self {
        self.meta(meta, REGISTER).compare(is, prefix.as_bytes())
    }

    /// The packet goes to 127.0.0.0/8.
    pub(super) fn goes_to_loopback(&mut self) -> &mut Self {
        self.payload((1, 16, 1), REGISTER).compare(true, &[127])
    }

    /// The packet comes from 127.0.0.0/8.
    pub(super) fn comes_from_loopback(&mut self) -> &mut Self {
        self.payload((1, 12, 1), REGISTER).compare(true, &[127])
    }

    /// The packet goes to an address of this machine.
    pub(super) fn goes_to_this_machine(&mut self) -> &mut Self {
        self.expression("fib", |fib| {
            number(fib, 1, REGISTER);
            // The type of the destination's address.
            number(fib, 2, 3);
            number(fib, 3, 2);
        })
        .compare(true, &2_u32.to_ne_bytes())
    }

    /// Its connection is in one of these states, as bits of the kernel's.
    pub(super) fn connection_is(&mut self, states: u32) -> &mut Self {
        self.connection(0, states)
    }

    /// Its connection has one of these marks of the kernel's.
    pub(super) fn connection_has(&mut self, status: u32) -> &mut Self {
        self.connection(2, status)
    }

    fn connection(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |ct| {
            number(ct, 1, REGISTER);
            number(ct, 2, key);
        })
        .mask(bits.to_ne_bytes())
        .compare(false, &[0; 4])
    }

    /// Both devices together are in a set.
    pub(super) fn devices_are_in(&mut self, set: &str) -> &mut Self {
        self.meta(Meta::InName, REGISTER).meta(Meta::OutName, NEXT_REGISTER);
        self.expression("lookup", |lookup| {
            lookup.text(1, set);
            number(lookup, 2, REGISTER);
        })
    }

    /// Sends the packet to where `map` says for its protocol and port, with
    /// `at_address` also for its address; goes on if it says nothing.
    pub(super) fn send_to(&mut self, map: &str, at_address: bool) -> &mut Self {
        let next = if at_address {
            self.payload((1, 16, 4), SMALL);
            SMALL + 1
        } else {
            SMALL
        };
        self.meta(Meta::Protocol, next).payload((2, 2, 2), next + 1);
        self.expression("lookup", |lookup| {
            lookup.text(1, map);
            number(lookup, 2, SMALL);
            number(lookup, 3, REGISTER);
        });
        self.expression("nat", |nat| {
            // The destination.
            number(nat, 1, 1);
            number(nat, 2, u32::from(IPV4));
            number(nat, 3, REGISTER);
            number(nat, 5, SMALL + 1);
        })
    }

    /// Makes the packet come from the device that it leaves by.
    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    pub(super) fn accept(&mut self) -> &mut Self {
        self.verdict(1)
    }

    pub(super) fn drop(&mut self) -> &mut Self {
        self.verdict(0)
    }

    fn verdict(&mut self, code: u32) -> &mut Self {
        self.expression("immediate", |immediate| {
            number(immediate, 1, VERDICT);
            immediate.nested(2, |data| data.nested(2, |verdict| number(verdict, 1, code)));
        })
    }
}
