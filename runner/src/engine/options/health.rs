//! `--health-cmd` and its relatives.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use oci::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::engine::moment::parse_duration;

/// How docker runs a command that is given as one text.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The longest time that is taken: it fits into docker's nanoseconds.
const MAX: Duration = Duration::from_secs(1 << 33);

/// A time such as `30s` or `1m30s`; 0 stands for the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            return Err("it cannot be negative".to_owned());
        }
        let duration = if text == "0" { Some(Duration::ZERO) } else { parse_duration(text) };
        match duration.filter(|_| !text.is_empty()) {
            None => Err(format!("\"{text}\" is not a duration such as 30s or 1m30s")),
            Some(short) if !short.is_zero() && short < Duration::from_millis(1) => {
                Err("it cannot be less than one millisecond".to_owned())
            }
            Some(long) if long > MAX => Err(format!("{text} is too long")),
            Some(duration) => Ok(Self(duration)),
        }
    }
}

/// What becomes of a container that turns out not to work: podman's choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is shown as unhealthy.
    #[default]
    None,
    /// It is killed; a restart policy applies.
    Kill,
    /// It is stopped and started.
    Restart,
    /// It is stopped.
    Stop,
}

impl fmt::Display for OnFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
        })
    }
}

/// A health check as its user asks for it; `None` is what the image says.
#[derive(Clone, Debug, Default)]
pub struct HealthRequest {
    /// The command, for a shell.
    pub command: Option<String>,
    /// The time between checks.
    pub interval: Option<Interval>,
    /// How long one may take.
    pub timeout: Option<Interval>,
    /// How many must fail in a row.
    pub retries: Option<u32>,
    /// How long failures do not count.
    pub start_period: Option<Interval>,
    /// The time between checks until then.
    pub start_interval: Option<Interval>,
    /// What becomes of the container.
    pub on_failure: OnFailure,
    /// Whether there is none, whatever the image says.
    pub none: bool,
}

/// A health check, complete. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// Docker's form: `CMD` and words, or `CMD-SHELL` and a text.
    pub test: Vec<String>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The time between checks.
    pub interval_ms: u64,
    /// How long one may take.
    pub timeout_ms: u64,
    /// How many must fail in a row.
    pub retries: u32,
    /// How long failures do not count.
    pub start_period_ms: u64,
    /// The time between checks until then.
    pub start_interval_ms: u64,
    /// What becomes of the container.
    pub on_failure: OnFailure,
}

/// The check of an image, in docker's form; times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageCheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

impl HealthRequest {
    /// Fills in what the image says, and docker's defaults. `None` if there is no
    /// check.
    ///
    /// # Errors
    ///
    /// When flags contradict each other, in docker's words, and when the image's
    /// check cannot be understood.
    pub fn settle(self, image: &ImageConfig) -> Result<Option<HealthConfig>, String> {
        if self.none {
            let times = [self.interval, self.timeout, self.start_period, self.start_interval];
            let is_alone = self.command.is_none() && self.retries.is_none() && times == [None; 4];
            return match is_alone {
                true => Ok(None),
                false => Err("--no-healthcheck conflicts with --health-* options".to_owned()),
            };
        }
        let of_image: ImageCheck = match &image.config.healthcheck {
            Some(json) if json.as_str() != "null" => json
                .decode()
                .map_err(|error| format!("the image's health check cannot be used: {error}"))?,
            _ => ImageCheck::default(),
        };
        let test = match self.command {
            Some(command) if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command],
            _ => of_image.test.unwrap_or_default(),
        };
        let Some(args) = command(&test, image)? else { return Ok(None) };
        let time = |asked: Option<Interval>, image: Option<i64>, default_ms: u64| {
            let asked = asked.and_then(|Interval(time)| u64::try_from(time.as_millis()).ok());
            let image = image.and_then(|nanoseconds| u64::try_from(nanoseconds / 1_000_000).ok());
            asked.or(image).filter(|&time| time > 0).unwrap_or(default_ms)
        };
        let image_retries = of_image.retries.and_then(|retries| u32::try_from(retries).ok());
        Ok(Some(HealthConfig {
            args,
            interval_ms: time(self.interval, of_image.interval, 30_000),
            timeout_ms: time(self.timeout, of_image.timeout, 30_000),
            retries: self.retries.or(image_retries).filter(|&retries| retries > 0).unwrap_or(3),
            start_period_ms: time(self.start_period, of_image.start_period, 0),
            start_interval_ms: time(self.start_interval, of_image.start_interval, 5_000),
            on_failure: self.on_failure,
            test,
        }))
    }
}

/// Returns what a test in docker's form executes; `None` if there is none.
fn command(test: &[String], image: &ImageConfig) -> Result<Option<Vec<String>>, String> {
    let words: Vec<&str> = test.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["NONE", ..] => Ok(None),
        ["CMD", args @ ..] if !args.is_empty() => {
            Ok(Some(args.iter().map(|&word| word.to_owned()).collect()))
        }
        ["CMD-SHELL", text] => {
            let shell = image.config.shell.clone().filter(|shell| !shell.is_empty());
            let mut args = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
            args.push((*text).to_owned());
            Ok(Some(args))
        }
        [kind, ..] => {
            Err(format!("the image's health check cannot be used: it begins with {kind}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::{Json, Platform};

    fn image(check: &str) -> ImageConfig {
        let mut image = ImageConfig::new(Platform::host());
        image.config.healthcheck = Some(Json::parse(check).unwrap());
        image
    }

    #[test]
    fn the_user_goes_before_the_image_and_that_before_the_defaults() {
        let text = r#"{"Test":["CMD","true"],"Interval":2000000000,"Retries":7}"#;
        let settled = HealthRequest::default().settle(&image(text)).unwrap().unwrap();
        assert_eq!(settled.args, ["true"]);
        assert_eq!((settled.interval_ms, settled.timeout_ms, settled.retries), (2000, 30_000, 7));
        assert_eq!((settled.start_period_ms, settled.start_interval_ms), (0, 5000));
        let request = HealthRequest {
            command: Some("a b".to_owned()),
            interval: Some("1m30s".parse().unwrap()),
            retries: Some(1),
            ..HealthRequest::default()
        };
        let settled = request.settle(&image(text)).unwrap().unwrap();
        assert_eq!(settled.args, ["/bin/sh", "-c", "a b"]);
        assert_eq!((settled.interval_ms, settled.retries), (90_000, 1));
        for text in ["null", r#"{"Test":["NONE"]}"#, r#"{"Test":[]}"#, r#"{"Interval":5}"#] {
            assert_eq!(HealthRequest::default().settle(&image(text)), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let both = HealthRequest { none: true, retries: Some(1), ..HealthRequest::default() };
        let error = both.settle(&image("null")).unwrap_err();
        assert_eq!(error, "--no-healthcheck conflicts with --health-* options");
        let none = HealthRequest { none: true, ..HealthRequest::default() };
        assert_eq!(none.settle(&image(r#"{"Test":["CMD","x"]}"#)), Ok(None));
        for text in [r#"{"Test":["CMD"]}"#, r#"{"Test":["HTTP","x"]}"#, r#"{"Test":"x"}"#] {
            let error = HealthRequest::default().settle(&image(text)).unwrap_err();
            assert!(error.starts_with("the image's health check cannot be used"), "{error}");
        }
        for text in ["", "5", "-1s", "0.1ms", "s", "99999999h"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
