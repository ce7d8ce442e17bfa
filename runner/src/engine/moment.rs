//! Moments as people type them: `2026-01-02T03:04:05Z`, `1767323045.5`, `10m`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{Error, Result};
use super::timestamp::Timestamp;

/// Parses a moment in one of docker's forms: an RFC 3339 time, its date or its
/// time without a zone (which is UTC here, not the caller's), seconds since
/// 1970, or how long ago it was, in Go's form (`1h30m`).
///
/// # Errors
///
/// When it is none of these.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp> {
    let forms = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    if let Some(moment) = forms.iter().find_map(|form| form.parse().ok()) {
        return Ok(moment);
    }
    let invalid = || Error::Invalid {
        what: format!(
            "\"{text}\" is not a time such as 2026-01-02T03:04:05Z, a number of seconds since 1970, or a duration such as 10m"
        ),
    };
    let moment = match parse_seconds(text) {
        Some(since_epoch) => UNIX_EPOCH.checked_add(since_epoch),
        None => SystemTime::from(now).checked_sub(parse_duration(text).ok_or_else(invalid)?),
    };
    // Years after 9999 and before 1970 have no text of the usual length.
    let range = UNIX_EPOCH..=UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    moment.filter(|moment| range.contains(moment)).map(Timestamp::from).ok_or_else(invalid)
}

/// Parses seconds with at most nine decimals, exactly.
fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// Parses numbers with units, such as `1h30m` or `1.5s`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let (times, divided) = match unit {
            "h" => (3600, 1),
            "m" => (60, 1),
            "s" => (1, 1),
            "ms" => (1, 1000),
            _ => return None,
        };
        let part = parse_seconds(number)?.checked_mul(times)? / divided;
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_forms_are_understood() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.500000000Z"),
            ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000000000Z"),
            ("2026-01-01T02:03:04", "2026-01-01T02:03:04.000000000Z"),
            ("2026-01-01", "2026-01-01T00:00:00.000000000Z"),
            ("1767323045", "2026-01-02T03:04:05.000000000Z"),
            ("1767323045.000000001", "2026-01-02T03:04:05.000000001Z"),
            ("10m", "2026-01-02T02:54:05.000000000Z"),
            ("1h30m", "2026-01-02T01:34:05.000000000Z"),
            ("1.5s", "2026-01-02T03:04:03.500000000Z"),
            ("250ms", "2026-01-02T03:04:04.750000000Z"),
        ] {
            assert_eq!(parse_moment(text, now).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", "yesterday", "10", "-5m", "5", "m", "5d", "1h30", "1.2.3", "99999999999999"]
        {
            let is_number = text.parse::<u64>().is_ok_and(|seconds| seconds < 100);
            assert_eq!(parse_moment(text, now).is_ok(), is_number, "{text}");
        }
    }
}
