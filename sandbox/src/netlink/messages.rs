//! Messages as bytes, and back.

/// The bytes of a message's header.
pub(super) const HEADER_BYTES: usize = 16;

/// Marks an attribute whose value is attributes.
const NESTED: u16 = 0x8000;

/// The bits of an attribute's kind that are its kind.
const KIND_MASK: u16 = 0x3fff;

/// What a message asks for beside its kind.
pub mod flags {
    /// An acknowledgement is wanted.
    pub const ACK: u16 = 4;
    /// Everything there is of a kind is wanted.
    pub const DUMP: u16 = 0x300;
    /// What is there may be replaced.
    pub const REPLACE: u16 = 0x100;
    /// What is there must not be replaced.
    pub const EXCLUSIVE: u16 = 0x200;
    /// What is not there is made.
    pub const CREATE: u16 = 0x400;
    /// Goes behind what is there.
    pub const APPEND: u16 = 0x800;
    /// It is a request: every message that a program sends has it.
    pub(crate) const REQUEST: u16 = 1;
}

/// Messages to the kernel, in the order in which they are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
}

impl Messages {
    /// Returns none yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns those that [`Messages::as_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, last: 0 }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a message with the header of its family; `fill` adds its
    /// attributes.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        // The sequence number is set when it is sent; port 0 is the kernel.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
        fill(self);
        // Nobody sends 4 GiB, and the kernel would refuse it.
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks for an acknowledgement of the last message.
    pub fn acknowledge(&mut self) {
        if let Some(place) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let flags = u16::from_ne_bytes([place[0], place[1]]) | flags::ACK;
            place.copy_from_slice(&flags.to_ne_bytes());
        }
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_of(kind, |messages| messages.raw(value));
    }

    /// Adds an attribute that is text with a null behind it.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute_of(kind, |messages| {
            messages.raw(value.as_bytes());
            messages.raw(&[0]);
        });
    }

    /// Adds an attribute of attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attribute_of(kind | NESTED, fill);
    }

    /// Adds bytes that stand in front of the attributes of a nested message.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn attribute_of(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        // The kernel refuses an attribute that is longer than its message.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Returns the bytes with this sequence number in every message.
    pub(super) fn with_sequence(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut start = 0;
        while let Some(length) = read_u32(&bytes, start) {
            if let Some(place) = bytes.get_mut(start + 8..start + 12) {
                place.copy_from_slice(&sequence.to_ne_bytes());
            }
            start += (length as usize).next_multiple_of(4).max(HEADER_BYTES);
        }
        bytes
    }
}

/// Reads a number in the machine's byte order.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The attributes in some bytes, as kind and value. It ends where they are not
/// what the kernel writes.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads attributes from the beginning of `bytes`.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the value of the first attribute of a kind.
    #[must_use]
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// Returns a number in the machine's byte order.
    #[must_use]
    pub fn u32(self, kind: u16) -> Option<u32> {
        read_u32(self.find(kind)?, 0)
    }

    /// Returns text without the null behind it.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.rest, 0)?);
        let kind = read_u16(self.rest, 2)? & KIND_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_is_read_back() {
        let mut messages = Messages::new();
        messages.message(16, flags::ACK, &[7; 3], |message| {
            message.text(3, "eth0");
            message.nested(18, |info| {
                info.attribute(1, b"x");
                info.attribute(2, &9u32.to_ne_bytes());
            });
        });
        let bytes = messages.with_sequence(5);
        assert_eq!(read_u32(&bytes, 0), Some(u32::try_from(bytes.len()).unwrap()));
        assert_eq!((read_u16(&bytes, 4), read_u16(&bytes, 6)), (Some(16), Some(5)));
        assert_eq!(read_u32(&bytes, 8), Some(5));
        let attributes = Attributes::of(&bytes[20..]);
        assert_eq!(attributes.clone().text(3), Some("eth0"));
        let inner = Attributes::of(attributes.find(18).unwrap());
        assert_eq!(inner.clone().collect::<Vec<_>>().len(), 2);
        assert_eq!((inner.clone().find(1), inner.u32(2)), (Some(&b"x"[..]), Some(9)));
    }

    #[test]
    fn attributes_cut_short_end() {
        let mut messages = Messages::new();
        messages.attribute(1, &[0; 9]);
        for length in 0..12 {
            assert_eq!(Attributes::of(&messages.as_bytes()[..length]).count(), 0);
        }
        // Shorter than its own header, which would never end.
        assert_eq!(Attributes::of(&[0; 64]).count(), 0);
        assert_eq!(Attributes::of(&[3, 0, 1, 0, 0, 0]).count(), 0);
    }

    #[test]
    fn every_message_gets_the_number() {
        let mut messages = Messages::new();
        messages.message(1, 0, &[], |_| {});
        messages.message(2, 0, &[], |message| message.attribute(1, &[1]));
        let bytes = messages.with_sequence(u32::MAX);
        assert_eq!((read_u32(&bytes, 8), read_u32(&bytes, 24)), (Some(u32::MAX), Some(u32::MAX)));
    }
}
