//! Moments as they are recorded, and as people are told about them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{Error, Result};

/// A moment in UTC to the nanosecond, written as
/// `2006-01-02T15:04:05.000000000Z`: always as long, so that text order is
/// time order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// Returns how long ago this was, seen from `now`; zero if it lies ahead.
    pub fn elapsed(self, now: Self) -> Duration {
        Duration::try_from(now.0 - self.0).unwrap_or_default()
    }

    /// Returns the whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(OffsetDateTime::from(time))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(moment: Timestamp) -> Self {
        Self::from(moment.0)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::from(UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.0;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.nanosecond()
        )
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|moment| Self(moment.to_offset(time::UtcOffset::UTC)))
            .map_err(|_| Error::Invalid { what: format!("\"{text}\" is not an RFC 3339 time") })
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

/// Says a duration in docker's words: `5 minutes`, `About an hour`.
pub fn in_words(duration: Duration) -> String {
    const HOUR: u64 = 3600;
    let seconds = duration.as_secs();
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    #[test]
    fn text_has_one_length_and_comes_back() {
        for moment in [at(0, 0), at(1_700_000_000, 1), at(1_700_000_000, 999_999_999)] {
            let text = moment.to_string();
            assert_eq!(text.len(), 30);
            assert_eq!(text.parse::<Timestamp>().unwrap(), moment);
        }
        assert_eq!(at(1_700_000_000, 5).to_string(), "2023-11-14T22:13:20.000000005Z");
        assert_eq!("2023-11-14T23:13:20+01:00".parse::<Timestamp>().unwrap(), at(1_700_000_000, 0));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn elapsed_time_never_runs_backwards() {
        assert_eq!(at(5, 0).elapsed(at(7, 0)), Duration::from_secs(2));
        assert_eq!(at(7, 0).elapsed(at(5, 0)), Duration::ZERO);
    }

    #[test]
    fn durations_are_said_as_docker_says_them() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words, "for {seconds} s");
        }
    }
}
