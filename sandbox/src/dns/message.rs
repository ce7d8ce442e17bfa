//! Questions and answers, RFC 1035 section 4. A question comes from a container
//! and is hostile.

use std::net::Ipv4Addr;

/// The bytes of a message's header.
const HEADER_BYTES: usize = 12;

/// The longest name as it is written in a message.
const NAME_BYTES_MAX: usize = 255;

/// The longest part of a name.
const LABEL_BYTES_MAX: usize = 63;

/// How long an answer may be kept, in seconds: an address is another
/// container's soon after it was given back.
const TTL_SECONDS: u32 = 5;

/// Everything is fine.
pub(super) const NO_ERROR: u8 = 0;
/// Nobody could be asked.
pub(super) const SERVER_FAILURE: u8 = 2;
/// There is no such name.
pub(super) const NAME_ERROR: u8 = 3;

/// A question for an address.
pub(super) const TYPE_A: u16 = 1;
/// A question for the name of an address.
pub(super) const TYPE_PTR: u16 = 12;
/// The only class of names in use.
const CLASS_IN: u16 = 1;

/// A message with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// The whole message.
    bytes: &'a [u8],
    /// Where the question ends.
    end: usize,
    /// The name in lower case, without a dot behind it.
    pub(super) name: String,
    /// What is asked for.
    pub(super) kind: u16,
}

impl<'a> Question<'a> {
    /// Reads a message; none if it is not one plain question, which somebody
    /// else may understand.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        // A query, of the usual kind, with one question.
        if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
            return None;
        }
        let (name, at) = parse_name(bytes)?;
        let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let kind = number(at)?;
        (number(at + 2)? == CLASS_IN).then_some(Self { bytes, end: at + 4, name, kind })
    }

    /// Returns the address whose name is asked for.
    pub(super) fn reverse(&self) -> Option<Ipv4Addr> {
        let digits = self.name.strip_suffix(".in-addr.arpa")?;
        let address: Ipv4Addr = digits.parse().ok()?;
        let [a, b, c, d] = address.octets();
        Some(Ipv4Addr::new(d, c, b, a))
    }

    /// Returns the answer without content, such as an error.
    pub(super) fn answer_empty(&self, code: u8) -> Vec<u8> {
        self.answer(code, &[])
    }

    /// Returns the answer with addresses.
    pub(super) fn answer_addresses(&self, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let records: Vec<_> = addresses.iter().map(|it| it.octets().to_vec()).collect();
        self.answer(NO_ERROR, &records)
    }

    /// Returns the answer with a name.
    pub(super) fn answer_name(&self, name: &str) -> Vec<u8> {
        let mut record = Vec::new();
        for label in name.split('.') {
            let label = &label.as_bytes()[..label.len().min(LABEL_BYTES_MAX)];
            record.extend(u8::try_from(label.len()));
            record.extend_from_slice(label);
        }
        record.push(0);
        self.answer(NO_ERROR, &[record])
    }

    fn answer(&self, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.bytes[..self.end].to_vec();
        // An answer that has authority; recursion as it was wanted, and to be had.
        bytes[2] = 0x84 | self.bytes[2] & 0x01;
        bytes[3] = 0x80 | code;
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes[8..12].fill(0);
        for record in records {
            // The name stands right behind the header.
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&self.kind.to_be_bytes());
            bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
            bytes.extend_from_slice(&TTL_SECONDS.to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(record.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(record);
        }
        bytes
    }
}

/// Reads the name behind the header, and where it ends. Names in questions have
/// no references to other places.
fn parse_name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length <= LABEL_BYTES_MAX)?;
        at += length;
        if at - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        // A dot in a label would be taken for the end of it.
        let is_text = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        name.push_str(std::str::from_utf8(label).ok().filter(|_| is_text)?);
        name.make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        // What EDNS adds is not repeated.
        bytes.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_question_is_answered_with_itself_in_front() {
        let bytes = query("Web", TYPE_A);
        let question = Question::parse(&bytes).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web", TYPE_A));
        let answer = question.answer_addresses(&[Ipv4Addr::new(10, 5, 0, 2)]);
        let mut expected = vec![0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        expected.extend_from_slice(b"\x03Web\x00\x00\x01\x00\x01");
        expected
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x05\x00\x02");
        assert_eq!(answer, expected);
        let refusal = question.answer_empty(NAME_ERROR);
        assert_eq!(refusal[2..8], [0x85, 0x83, 0, 1, 0, 0]);
        assert_eq!(refusal.len(), 12 + 9);
    }

    #[test]
    fn addresses_have_names() {
        let bytes = query("2.0.5.10.in-addr.arpa", TYPE_PTR);
        let question = Question::parse(&bytes).unwrap();
        assert_eq!(question.reverse(), Some(Ipv4Addr::new(10, 5, 0, 2)));
        let answer = question.answer_name("web.lab");
        assert!(answer.ends_with(b"\x00\x09\x03web\x03lab\x00"), "{answer:?}");
        for name in ["0.5.10.in-addr.arpa", "x.0.5.10.in-addr.arpa", "in-addr.arpa", "web"] {
            let bytes = query(name, TYPE_PTR);
            assert_eq!(Question::parse(&bytes).unwrap().reverse(), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_plain_question_is_left_to_others() {
        let good = query("web", TYPE_A);
        for (at, byte, what) in [
            (2, 0x80, "an answer"),
            (2, 0x28, "an update"),
            (5, 0, "no question"),
            (5, 2, "two questions"),
            (12, 0xc0, "a reference"),
            (12, 64, "a label that is too long"),
            (13, b'.', "a dot in a label"),
            (13, 0xff, "no text"),
            (20, 3, "another class"),
        ] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Question::parse(&bytes), None, "{what}");
        }
        for length in 0..21 {
            assert_eq!(Question::parse(&good[..length]), None, "{length} bytes");
        }
        let long = query(&["a"; 130].join("."), TYPE_A);
        assert_eq!(Question::parse(&long), None, "a name that is too long");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_or_not(bytes: Vec<u8>) {
            if let Some(question) = Question::parse(&bytes) {
                question.reverse();
                question.answer_empty(SERVER_FAILURE);
                question.answer_name(&question.name);
            }
        }
    }
}
