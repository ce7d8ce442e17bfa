//! Durations and byte sizes as flags write them.

use std::time::Duration;

/// A duration that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number and a unit at all.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Returns the nanoseconds of a duration such as `1h30m`, `1.5s` or `-200ms`
/// (Go's `time.ParseDuration`).
///
/// # Errors
///
/// Fails if `text` is not a row of decimal numbers with units
/// (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`), or is beyond 292 years.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanos: i128 = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unit => {
                let (unit, text) = (unit.to_owned(), text.to_owned());
                return Err(DurationError::UnknownUnit { unit, text });
            }
        };
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| invalid())?.into() };
        total += whole * nanos + fraction_of(fraction, nanos);
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if is_negative { -total } else { total })
}

/// Returns a duration as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `20ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let in_units = |unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", nanos % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => in_units(1, "ns"),
        1_000..1_000_000 => in_units(1_000, "µs"),
        1_000_000..1_000_000_000 => in_units(1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = duration - Duration::from_secs(minutes * 60);
            let mut text = String::new();
            if minutes >= 60 {
                text.push_str(&format!("{}h", minutes / 60));
            }
            if minutes > 0 {
                text.push_str(&format!("{}m", minutes % 60));
            }
            let nanos = format!("{:09}", seconds.subsec_nanos());
            let fraction = nanos.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            text.push_str(&format!("{}{point}{fraction}s", seconds.as_secs()));
            text
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Digits beyond a nanosecond of an hour do not count.
fn fraction_of(digits: &str, nanos: i128) -> i128 {
    let mut scale = 1;
    let mut value = 0;
    for digit in digits.bytes().take(15) {
        scale *= 10;
        value = value * 10 + i128::from(digit - b'0');
    }
    value * nanos / scale
}

/// Returns the bytes of a size such as `64m`, `1.5GiB` or `512`: units are
/// powers of 1024, with or without `i` and `b`, in any case.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_lowercase();
    let mut letters = unit.chars();
    let shift = match letters.next() {
        None | Some('b') => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some('p') => 50,
        Some(_) => return None,
    };
    let is_unit = if shift == 0 {
        matches!(unit.as_str(), "" | "b")
    } else {
        matches!(letters.as_str(), "" | "b" | "ib")
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if !is_unit
        || !is_number(whole)
        || !is_number(fraction)
        || (whole.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part = fraction_of(fraction, 1_i128 << shift);
    let bytes = whole.checked_mul(1 << shift)?.checked_add(u128::try_from(part).ok()?)?;
    // Docker keeps sizes in a signed number.
    i64::try_from(bytes).ok().and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{format_duration, parse_bytes, parse_duration};

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (999_999_999, "999.999999ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (59_000_000_001, "59.000000001s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (360_061_250_000_000, "100h1m1.25s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), expected);
            assert_eq!(parse_duration(expected), Ok(i64::try_from(nanos).unwrap()));
        }
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("-200ms", Some(-200_000_000)),
            ("1us1µs1ns", Some(2_001)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("5d", None),
            ("9999999999h", None),
            ("5 s", None),
        ] {
            assert_eq!(parse_duration(text).ok(), nanos, "{text}");
        }
        assert_eq!(
            parse_duration("5").unwrap_err().to_string(),
            r#"time: missing unit in duration "5""#
        );
        assert_eq!(
            parse_duration("5x").unwrap_err().to_string(),
            r#"time: unknown unit "x" in duration "5x""#
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("64MiB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            (".5k", Some(512)),
            ("1 g", Some(1 << 30)),
            ("2t", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("", None),
            ("m", None),
            (".", None),
            ("-1", None),
            ("1x", None),
            ("1mm", None),
            ("1bib", None),
            ("1  g", None),
            ("1.2.3", None),
            ("99999999p", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
