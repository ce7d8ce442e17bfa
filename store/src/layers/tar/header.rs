//! One header block: where its fields are and how its numbers are written.

use super::BLOCK_BYTES;

/// A header block as it came.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK_BYTES]);

/// The dialects, which differ in what follows the first 257 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The result of reading a field: the reason is shown with the header's position.
pub(super) type Field<T> = Result<T, &'static str>;

const CHECKSUM: std::ops::Range<usize> = 148..156;

impl Header {
    /// Tells whether the block is the mark of the end.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Compares the checksum, which old tars computed over signed bytes.
    pub(super) fn verify(&self) -> Field<()> {
        let want = number(&self.0[CHECKSUM])?;
        let mut unsigned = 0_i64;
        let mut signed = 0_i64;
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if want == unsigned || want == signed { Ok(()) } else { Err("its checksum is wrong") }
    }

    pub(super) fn format(&self) -> Format {
        match (&self.0[257..263], &self.0[263..265], &self.0[508..512]) {
            (b"ustar\0", b"00", b"tar\0") => Format::Star,
            (b"ustar\0", ..) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// The name, joined with its prefix where the dialect has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            // Go's writer before 1.9 gave headers with a prefix the GNU magic: where the bytes are
            // no access time, they are that prefix.
            Format::Gnu if self.0[345] != 0 && number(&self.0[345..357]).is_err() => {
                let prefix = text(&self.0[345..500]);
                if prefix.is_ascii() { prefix } else { b"" }
            }
            Format::Gnu | Format::V7 => b"",
        };
        crate::layers::path::join(prefix, name)
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Field<u32> {
        // Some writers put the file type above the permission bits.
        let mode = number(&self.0[100..108])?;
        u32::try_from(mode & 0o7777).map_err(|_| "its mode is negative")
    }

    pub(super) fn uid(&self) -> Field<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Field<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Field<u64> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "its size is negative")
    }

    pub(super) fn mtime(&self) -> Field<i64> {
        number(&self.0[136..148])
    }

    /// Major and minor number; v7 headers have none.
    pub(super) fn device(&self) -> Field<(u32, u32)> {
        if self.format() == Format::V7 {
            return Ok((0, 0));
        }
        let part =
            |range| u32::try_from(number(range)?).map_err(|_| "its device number is invalid");
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// The four sparse records that a GNU header holds itself.
    pub(super) fn gnu_sparse(&self) -> &[u8] {
        &self.0[386..482]
    }

    /// Whether more sparse records follow in blocks of their own.
    pub(super) fn gnu_sparse_continues(&self) -> bool {
        self.0[482] != 0
    }

    /// The length of a sparse file, holes included.
    pub(super) fn gnu_real_size(&self) -> Field<u64> {
        u64::try_from(number(&self.0[483..495])?).map_err(|_| "its real size is negative")
    }
}

/// A field of text: up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A field with a number: octal text, or big-endian binary where the first bit is set (GNU).
pub(super) fn number(field: &[u8]) -> Field<i64> {
    const INVALID: &str = "a number in it is invalid";
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        let invert = if field[0] & 0x40 != 0 { 0xff } else { 0 };
        let mut value = 0_u64;
        for (at, byte) in field.iter().enumerate() {
            let byte = byte ^ invert;
            let byte = if at == 0 { byte & 0x7f } else { byte };
            if value >> 56 != 0 {
                return Err(INVALID);
            }
            value = value << 8 | u64::from(byte);
        }
        let value = i64::try_from(value).map_err(|_| INVALID)?;
        return Ok(if invert == 0 { value } else { !value });
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
    let mut value = 0_i64;
    for digit in &digits[..end] {
        if !matches!(digit, b'0'..=b'7') {
            return Err(INVALID);
        }
        value = value.checked_mul(8).ok_or(INVALID)? + i64::from(digit - b'0');
    }
    if digits[end..].iter().all(|byte| matches!(byte, b' ' | 0)) { Ok(value) } else { Err(INVALID) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"12x4\0\0\0\0", None),
            (b"8\0\0\0\0\0\0\0", None),
            (b"12 34\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field).ok(), want, "{field:?}");
        }
    }
}
