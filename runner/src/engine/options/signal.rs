//! Signals by name or number, as `kill -s` and `STOPSIGNAL` write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The highest signal number on Linux.
const LAST: i32 = 64;

/// The first real-time signal that is free for programs: the C library keeps
/// 32 and 33 for itself.
const RTMIN: i32 = 34;

/// A signal: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

impl Signal {
    /// Interrupts a process, as Ctrl-C does.
    pub const INT: Self = Self(2);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);
    /// Ends a process whatever it thinks.
    pub const KILL: Self = Self(9);

    /// Returns the signal's number, 1 to 64.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Tells whether a terminal, a shell or a supervisor asks to end by it: `HUP`,
    /// `INT`, `QUIT`, `TERM`.
    pub fn asks_to_end(self) -> bool {
        matches!(self.0, 1 | 2 | 3 | 15)
    }

    /// Tells whether a process that has not asked otherwise is ended by it.
    pub fn ends_by_default(self) -> bool {
        // CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG and WINCH do something else.
        !matches!(self.0, 17..=23 | 28)
    }
}

impl TryFrom<i32> for Signal {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        if (1..=LAST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("{number} is not a signal: they are 1 to {LAST}"))
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i32>() {
            return Self::try_from(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(number, _)| *number)
            .or_else(|| real_time(name));
        number
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is not a signal such as TERM, SIGHUP or 9"))
    }
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest.strip_prefix('+').unwrap_or(rest))?
    } else {
        let rest = name.strip_prefix("RTMAX")?;
        LAST - offset(rest.strip_prefix('-').unwrap_or(rest))?
    };
    (RTMIN..=LAST).contains(&number).then_some(number)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Numbers of the architectures Linux containers run on; aliases come later.
const NAMES: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
    (6, "IOT"),
    (17, "CLD"),
    (29, "POLL"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("IOT", 6),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "for {text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-1", "SIG", "TERMINATE", "RTMIN+31", "RTMAX-31", "RTMINX"] {
            assert!(text.parse::<Signal>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn printing_and_parsing_agree() {
        for number in (1..32).chain(34..=64) {
            let signal = Signal::try_from(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn only_some_signals_end_a_process() {
        let harmless: Vec<_> =
            (1..=64).filter(|n| !Signal::try_from(*n).unwrap().ends_by_default()).collect();
        assert_eq!(harmless, [17, 18, 19, 20, 21, 22, 23, 28]);
    }
}
