//! Ranges: the part of a blob that a client asks for (RFC 9110, section 14), and
//! the part of an upload that it sends (distribution-spec, "Pushing a blob in
//! chunks").

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: no range, or one this server does not understand.
    Full,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that do not exist.
    Unsatisfiable,
}

/// Parses a `Range` header for content of `size` bytes.
///
/// Several ranges at once, other units and what cannot be parsed give
/// everything, as RFC 9110 allows. A range that ends before it begins is
/// refused, which the conformance suite prefers to the RFC's "ignore it".
pub(super) fn wanted(header: &str, size: u64) -> Wanted {
    let Some(spec) = header.strip_prefix("bytes=").map(str::trim) else { return Wanted::Full };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Full };
    let number =
        |text: &str| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than a number holds lie beyond every end.
            true => Some(text.parse().unwrap_or(u64::MAX)),
            false => None,
        };
    // Clients add ranges to everything; nothing of nothing is still all of it.
    if size == 0 {
        return Wanted::Full;
    }
    match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (true, _, _, Some(0)) => Wanted::Unsatisfiable,
        (true, _, _, Some(length)) => Wanted::Part(size.saturating_sub(length)..size),
        (_, Some(first), true, _) if first < size => Wanted::Part(first..size),
        (_, Some(first), _, Some(last)) if first <= last && first < size => {
            Wanted::Part(first..last.saturating_add(1).min(size))
        }
        (_, Some(_), true, _) | (_, Some(_), _, Some(_)) => Wanted::Unsatisfiable,
        _ => Wanted::Full,
    }
}

/// Parses the `Content-Range` of a chunk: `<first>-<last>`, both included.
///
/// HTTP's own form (`bytes 0-9/100`) is understood as well.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let spec =
        header.strip_prefix("bytes").map_or(header, |rest| rest.trim_start_matches([' ', '=']));
    let spec = spec.split_once('/').map_or(spec, |(range, _)| range).trim();
    let (first, last) = spec.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    // The number of bytes must be a number too.
    (first <= last && last < u64::MAX).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_suite_expects() {
        let part = |first, end| Wanted::Part(first..end);
        for (header, expected) in [
            ("bytes=0-", part(0, 2048)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=-500", part(1548, 2048)),
            ("bytes=-5000", part(0, 2048)),
            ("bytes=2000-5000", part(2000, 2048)),
            ("bytes=2047-", part(2047, 2048)),
            ("bytes=0-99999999999999999999999", part(0, 2048)),
            ("bytes=5000-10000", Wanted::Unsatisfiable),
            ("bytes=2048-", Wanted::Unsatisfiable),
            ("bytes=500-0", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=0-1,5-6", Wanted::Full),
            ("bytes=a-b", Wanted::Full),
            ("bytes=-", Wanted::Full),
            ("bytes=", Wanted::Full),
            ("lines=0-5", Wanted::Full),
            ("0-5", Wanted::Full),
            ("bytes=+1-5", Wanted::Full),
        ] {
            assert_eq!(wanted(header, 2048), expected, "{header}");
        }
        assert_eq!(wanted("bytes=0-5", 0), Wanted::Full);
    }

    #[test]
    fn chunks_are_read_in_both_forms() {
        for (header, expected) in [
            ("0-9", Some((0, 9))),
            ("bytes 0-9/100", Some((0, 9))),
            ("bytes 0-9/*", Some((0, 9))),
            ("bytes=5-5", Some((5, 5))),
            ("9-0", None),
            ("-9", None),
            ("0-", None),
            ("+1-2", None),
            ("a-b", None),
            ("", None),
            ("0-99999999999999999999", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_content(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Wanted::Part(part) = wanted(&header, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn nothing_panics(header in "\\PC{0,20}", size: u64) {
            wanted(&header, size);
            chunk(&header);
        }
    }
}
