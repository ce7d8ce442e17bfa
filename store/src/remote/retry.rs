//! How long to wait before trying again, and when to give up.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::date;
use super::error::Error;

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How many times in a row something may fail without getting any further.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each that follows.
    pub first_delay: Duration,
    /// The longest wait, unless a registry asks for more.
    pub max_delay: Duration,
    /// The longest wait that a registry may ask for; asked for more, the client gives up.
    pub max_retry_after: Duration,
}

impl Default for Retry {
    /// Rides out a registry that restarts: about 20 seconds altogether.
    fn default() -> Self {
        Self {
            attempts: 7,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(120),
        }
    }
}

impl Retry {
    /// Returns the wait after the given number of failures in a row, which is at least 1.
    ///
    /// A random part keeps many clients, stopped by the same failure, from coming back together.
    pub(super) fn delay(&self, failures: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let longest = doubled.min(self.max_delay);
        longest / 2 + longest.mul_f64(random() / 2.0)
    }
}

/// Returns a number in `0.0..1.0` from the seed that the standard library takes for its hash maps.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}

/// Why one attempt failed, and whether another may succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is the same every time.
    Final(Error),
    /// It may pass, after a while or after the time the registry asked for.
    Passing { error: Error, retry_after: Option<Duration> },
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Failure {
    pub(super) fn passing(error: Error) -> Self {
        Self::Passing { error, retry_after: None }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Passing { error, .. } => error,
        }
    }
}

/// Counts failures, and says how long to wait after each.
#[derive(Debug)]
pub(super) struct Patience {
    policy: Retry,
    failures: u32,
    total: u32,
}

/// A transfer that gets on a little each time would never end without a limit on all failures.
const MAX_FAILURES: u32 = 100;

impl Patience {
    pub(super) fn new(policy: Retry) -> Self {
        Self { policy, failures: 0, total: 0 }
    }

    /// Notes that there was progress, so that failures count from 0 again.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }

    /// Returns how long to wait after a failure, or the error if it is time to give up.
    ///
    /// `has_answered` says whether the host ever did: who never did is not waited for.
    pub(super) fn after(
        &mut self,
        failure: Failure,
        has_answered: bool,
    ) -> Result<(Error, Duration), Error> {
        let (error, retry_after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, retry_after } => (error, retry_after),
        };
        self.failures += 1;
        self.total += 1;
        let never_there = matches!(error, Error::Unreachable { .. }) && !has_answered;
        if self.failures >= self.policy.attempts || self.total >= MAX_FAILURES || never_there {
            return Err(error);
        }
        let delay = self.policy.delay(self.failures);
        match retry_after {
            Some(asked) if asked > self.policy.max_retry_after => Err(error),
            Some(asked) => Ok((error, asked.max(delay))),
            None => Ok((error, delay)),
        }
    }
}

/// Returns how long a registry asks to wait: in seconds, or until a date.
///
/// RFC 9110, section 10.2.3. A date is compared with the registry's own `Date`, so that a wrong
/// clock here does no harm.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (until, now) = (date::parse(value)?, date::parse(text(DATE)?)?);
    Some(Duration::from_secs(until.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Failure {
        let (host, what, reason) = ("h".to_owned(), "w".to_owned(), "r".to_owned());
        Failure::passing(Error::Interrupted { host, what, reason })
    }

    #[test]
    fn delays_double_up_to_a_limit_with_a_random_part() {
        let retry = Retry::default();
        for (failures, longest_ms) in
            [(1, 200), (2, 400), (3, 800), (6, 6_400), (7, 10_000), (99, 10_000)]
        {
            let longest = Duration::from_millis(longest_ms);
            for _ in 0..50 {
                let delay = retry.delay(failures);
                assert!(delay >= longest / 2 && delay <= longest, "{failures}: {delay:?}");
            }
        }
        let different: std::collections::BTreeSet<_> = (0..50).map(|_| retry.delay(7)).collect();
        assert!(different.len() > 10);
    }

    #[test]
    fn patience_ends_after_failures_without_progress() {
        let mut patience = Patience::new(Retry { attempts: 3, ..Retry::default() });
        assert!(patience.after(broken(), true).is_ok());
        assert!(patience.after(broken(), true).is_ok());
        patience.progress();
        assert!(patience.after(broken(), true).is_ok());
        assert!(patience.after(broken(), true).is_ok());
        assert!(patience.after(broken(), true).is_err());
    }

    #[test]
    fn a_host_that_never_answered_is_not_waited_for() {
        let down = || {
            let (host, reason) = ("h".to_owned(), "connection refused".to_owned());
            Failure::passing(Error::Unreachable { host, reason })
        };
        assert!(Patience::new(Retry::default()).after(down(), false).is_err());
        assert!(Patience::new(Retry::default()).after(down(), true).is_ok());
    }

    #[test]
    fn registries_may_ask_for_time_but_not_for_all_of_it() {
        let limited = |seconds| Failure::Passing {
            error: Error::RateLimited { host: "h".to_owned(), retry_after: None },
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let wait = Patience::new(Retry::default()).after(limited(60), true).unwrap().1;
        assert_eq!(wait, Duration::from_secs(60));
        assert!(Patience::new(Retry::default()).after(limited(121), true).is_err());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let soon = ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT");
        let past = ("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT");
        assert_eq!(retry_after(&headers(&[date, soon])), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(&headers(&[date, past])), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers(&[soon])), None);
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }
}
