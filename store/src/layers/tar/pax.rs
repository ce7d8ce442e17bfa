//! PAX records: `"<length> <key>=<value>\n"`, as in POSIX.1-2001, pax, "Extended Header".

use crate::layers::entry::{Timestamp, Xattrs, is_image_xattr};

use super::{
    header::Field,
    sparse::{SparseSegment, parse_list},
};

/// The prefix under which star, GNU tar and Go keep extended attributes.
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records in front of an entry say about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
}

/// The records of sparse files, in GNU's three forms.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map of forms 0.0 and 0.1, which stands in the records.
    pub(super) map: Option<Vec<SparseSegment>>,
    /// An offset of form 0.0 that waits for its length.
    pending: Option<u64>,
}

impl Records {
    /// Adds what `data` says to what earlier headers said; a later value wins.
    pub(super) fn parse(&mut self, mut data: &[u8]) -> Field<()> {
        while !data.is_empty() {
            let (key, value, rest) = split_record(data)?;
            self.apply(key, value)?;
            data = rest;
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Field<()> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if is_image_xattr(name) && !name.contains(&0) {
                self.xattrs.insert(name.to_vec(), value.to_vec());
            }
            return Ok(());
        }
        match key {
            b"path" | b"linkpath" if value.contains(&0) => return Err("a PAX path contains a NUL"),
            // An empty value takes the record back: the header's own value counts again.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = optional(value, unsigned)?,
            b"uid" => self.uid = optional(value, signed)?,
            b"gid" => self.gid = optional(value, signed)?,
            b"mtime" => self.mtime = optional(value, timestamp)?,
            b"GNU.sparse.major" => self.sparse.major = Some(unsigned(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(unsigned(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(unsigned(value)?);
            }
            b"GNU.sparse.map" => self.sparse.map = Some(parse_list(value)?),
            b"GNU.sparse.offset" => self.sparse.pending = Some(unsigned(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.pending.take().ok_or("its sparse map is damaged")?;
                let segment = SparseSegment { offset, bytes: unsigned(value)? };
                self.sparse.map.get_or_insert_default().push(segment);
            }
            // Times other than mtime, names of users and comments mean nothing to a layer.
            _ => {}
        }
        Ok(())
    }
}

/// Takes one record off the front.
fn split_record(data: &[u8]) -> Field<(&[u8], &[u8], &[u8])> {
    const DAMAGED: &str = "a PAX record in front of it is damaged";
    let blank = data.iter().position(|byte| *byte == b' ').ok_or(DAMAGED)?;
    let length = usize::try_from(unsigned(&data[..blank])?).map_err(|_| DAMAGED)?;
    if length <= blank + 1 || length > data.len() {
        return Err(DAMAGED);
    }
    let (record, rest) = data.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n").ok_or(DAMAGED)?;
    let equals = record.iter().position(|byte| *byte == b'=').ok_or(DAMAGED)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(DAMAGED);
    }
    Ok((key, value, rest))
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Field<T>) -> Field<Option<T>> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

/// Parses decimal digits, nothing else.
pub(super) fn unsigned(value: &[u8]) -> Field<u64> {
    const INVALID: &str = "a PAX number in front of it is invalid";
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let text = std::str::from_utf8(value).map_err(|_| INVALID)?;
    // Lengths and offsets are signed in the system's interface.
    text.parse().ok().filter(|number| *number <= i64::MAX.cast_unsigned()).ok_or(INVALID)
}

fn signed(value: &[u8]) -> Field<i64> {
    let (digits, negative) = match value.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (value, false),
    };
    let number = unsigned(digits)?.cast_signed();
    Ok(if negative { -number } else { number })
}

/// Parses seconds with an optional fraction, of which nanoseconds are kept.
fn timestamp(value: &[u8]) -> Field<Timestamp> {
    let dot = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    let whole = &value[..dot];
    let fraction = value.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("a PAX time in front of it is invalid");
    }
    let seconds = signed(whole)?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0_u32, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    if whole.starts_with(b"-") && nanos > 0 {
        // -1.25 is 0.75 seconds after -2.
        return Ok(Timestamp { seconds: seconds - 1, nanos: 1_000_000_000 - nanos });
    }
    Ok(Timestamp { seconds, nanos })
}

/// Writes one record; its length counts its own digits.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Field<Records> {
        let mut records = Records::default();
        records.parse(text.as_bytes()).map(|()| records)
    }

    #[test]
    fn known_records_are_read() {
        let records = records(
            "9 uid=77\n13 path=a b\n\n20 mtime=-1.2500000\n29 SCHILY.xattr.user.x=1\n2\n3\n",
        );
        let records = records.unwrap();
        assert_eq!(records.uid, Some(77));
        assert_eq!(records.path.as_deref(), Some(&b"a b\n"[..]));
        assert_eq!(records.mtime, Some(Timestamp { seconds: -2, nanos: 750_000_000 }));
        assert_eq!(records.xattrs[&b"user.x"[..]], b"1\n2\n3");
    }

    #[test]
    fn damaged_records_are_refused() {
        for text in [
            "path=a\n",
            "9 path=a\n\n",
            "99 path=a\n",
            "0 path=a\n",
            "8 path=a",
            "5 =a\n",
            "8 patha\n",
            "+9 path=a\n",
            "12 size=-100\n",
            "18 mtime=12.34.56\n",
            "10 uid=1x\n",
            "11 mtime=.\n",
            "31 size=99999999999999999999999\n",
            "23 GNU.sparse.numbytes=1\n",
        ] {
            assert!(records(text).is_err(), "accepted {text:?}");
        }
        assert!(Records::default().parse(b"10 path=\0a\n").is_err());
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for value in ["", "1", "12345", &"x".repeat(88), &"x".repeat(89), &"x".repeat(990)] {
            let mut out = Vec::new();
            push_record(&mut out, b"path", value.as_bytes());
            let (key, read, rest) = split_record(&out).unwrap();
            assert_eq!((key, read, rest), (&b"path"[..], value.as_bytes(), &b""[..]));
        }
    }
}
