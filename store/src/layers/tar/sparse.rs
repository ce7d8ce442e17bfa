//! Sparse files: which parts of a file the archive holds.

use super::{
    header::{Field, number},
    pax::unsigned,
};

/// How many parts a sparse file may have. Go's reader bounds the map to a mebibyte of text, which
/// is about as many; a map is kept in memory.
pub(super) const MAX_SEGMENTS: usize = 1 << 17;

/// A part of a sparse file that holds data; the rest reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseSegment {
    /// Where in the file the data goes.
    pub offset: u64,
    /// How many bytes of data there are.
    pub bytes: u64,
}

const DAMAGED: &str = "its sparse map is damaged";

/// Parses form 0.1: `offset,bytes,offset,bytes…`.
pub(super) fn parse_list(value: &[u8]) -> Field<Vec<SparseSegment>> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let mut numbers = value.split(|byte| *byte == b',');
    let mut map = Vec::new();
    while let Some(offset) = numbers.next() {
        let bytes = numbers.next().ok_or(DAMAGED)?;
        if map.len() == MAX_SEGMENTS {
            return Err("its sparse map has too many parts");
        }
        map.push(SparseSegment { offset: unsigned(offset)?, bytes: unsigned(bytes)? });
    }
    Ok(map)
}

/// Parses the pairs of a GNU header or of a block that continues it; an empty one ends the list.
pub(super) fn parse_gnu(mut records: &[u8], map: &mut Vec<SparseSegment>) -> Field<()> {
    while let Some((record, rest)) = records.split_first_chunk::<24>() {
        if record[0] == 0 || record[12] == 0 {
            break;
        }
        let part = |field| u64::try_from(number(field)?).map_err(|_| DAMAGED);
        if map.len() == MAX_SEGMENTS {
            return Err("its sparse map has too many parts");
        }
        map.push(SparseSegment { offset: part(&record[..12])?, bytes: part(&record[12..])? });
        records = rest;
    }
    Ok(())
}

/// Checks that a map runs forward, stays within the file and takes exactly the stored bytes.
pub(super) fn check(map: &[SparseSegment], real_size: u64, stored: u64) -> Field<()> {
    let mut end = 0_u64;
    let mut data = 0_u64;
    for segment in map {
        if segment.offset < end {
            return Err("the parts of its sparse map overlap");
        }
        end = segment.offset.checked_add(segment.bytes).ok_or(DAMAGED)?;
        data += segment.bytes;
    }
    if end > real_size {
        return Err("its sparse map reaches beyond its end");
    }
    if data != stored {
        return Err("its sparse map and its data differ in length");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<SparseSegment> {
        pairs.iter().map(|&(offset, bytes)| SparseSegment { offset, bytes }).collect()
    }

    #[test]
    fn lists_are_pairs() {
        assert_eq!(parse_list(b"0,5,100,7").unwrap(), segments(&[(0, 5), (100, 7)]));
        for text in ["1", "1,", "1,2,3", "-1,2", "1,2,", "a,b"] {
            assert!(parse_list(text.as_bytes()).is_err(), "accepted {text}");
        }
    }

    #[test]
    fn maps_must_run_forward_and_fit() {
        assert!(check(&segments(&[(0, 5), (100, 7), (200, 0)]), 200, 12).is_ok());
        for (map, real, stored) in [
            (segments(&[(10, 5), (0, 5)]), 100, 10),
            (segments(&[(0, 5), (4, 5)]), 100, 10),
            (segments(&[(98, 5)]), 100, 5),
            (segments(&[(0, 5)]), 100, 6),
            (segments(&[(u64::MAX, 5)]), 100, 5),
        ] {
            assert!(check(&map, real, stored).is_err(), "accepted {map:?}");
        }
    }
}
