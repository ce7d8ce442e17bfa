//! Amounts: bytes, processors, processes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The least memory docker accepts for a container; with less, nothing starts.
const LEAST_MEMORY: u64 = 6 << 20;

/// A number of bytes, written `64m`, `1.5g`, `512KiB` or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Parses a memory limit: an amount that a container can start with.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong with the amount.
    pub fn memory_limit(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Self(bytes) if bytes < LEAST_MEMORY => {
                Err(format!("the least memory a container can be given is {}", Self(LEAST_MEMORY)))
            }
            amount => Ok(amount),
        }
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("\"{text}\" is not an amount such as 512k, 64m or 1.5g");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
        let shift = match unit {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(bad()),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(bad());
        }
        let bytes = if let Ok(whole) = number.parse::<u64>() {
            u128::from(whole) << shift
        } else {
            fraction(number, shift).ok_or_else(bad)?
        };
        // More would overflow the kernel's signed counters.
        i64::try_from(bytes)
            .ok()
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is more memory than any machine has"))
    }
}

/// Returns `number`, which has a decimal point, shifted left, rounded down.
fn fraction(number: &str, shift: u32) -> Option<u128> {
    let (whole, part) = number.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    // Nine places are a precision of better than a byte up to gigabytes.
    let part = part.get(..9).unwrap_or(part);
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part: u64 = if part.is_empty() { 0 } else { part.parse().ok()? };
    Some((u128::from(whole) << shift) + (u128::from(part) << shift) / scale)
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Some((size, unit)) = units.into_iter().find(|(size, _)| self.0 >= *size) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = u128::from(self.0) * 10 / u128::from(size);
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}

/// `--memory-swap`: memory and swap together, or `-1` for as much swap as
/// there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwapLimit {
    /// No limit on swap.
    Unlimited,
    /// Memory plus swap, in bytes.
    Total(Bytes),
}

impl FromStr for SwapLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-1" { Ok(Self::Unlimited) } else { text.parse().map(Self::Total) }
    }
}

/// `--cpus`: a share of processors, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus {
    /// Thousandths of one processor.
    pub milli: u32,
}

impl Cpus {
    /// Returns the amount as a number of processors.
    pub fn as_f64(self) -> f64 {
        f64::from(self.milli) / 1000.0
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("\"{text}\" is not a number of processors such as 0.5 or 2");
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) {
            return Err(bad());
        }
        let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let mut thousandths = part.get(..3).unwrap_or(part).to_owned();
        while thousandths.len() < 3 {
            thousandths.push('0');
        }
        let thousandths: u32 = thousandths.parse().map_err(|_| bad())?;
        let milli = whole.checked_mul(1000).and_then(|m| m.checked_add(thousandths));
        match milli.ok_or_else(bad)? {
            // The kernel's shortest quota is 1 ms in a period of 100 ms.
            0..10 => Err(format!("{text} processors are too few: the least is 0.01")),
            milli => Ok(Self { milli }),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

/// `--pids-limit`: processes and threads at once; `-1` and `0` are no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PidsLimit(pub Option<u32>);

impl FromStr for PidsLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<i64>() {
            Ok(-1 | 0) => Ok(Self(None)),
            Ok(count) => u32::try_from(count).map(|count| Self(Some(count))).map_err(|_| ()),
            Err(_) => Err(()),
        }
        .map_err(|()| format!("\"{text}\" is not a number of processes, or -1 for no limit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_take_dockers_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1b", 1),
            ("64k", 65536),
            ("64K", 65536),
            ("64kb", 65536),
            ("64KiB", 65536),
            ("64m", 64 << 20),
            ("64 MB", 64 << 20),
            ("1.5g", 3 << 29),
            ("0.5m", 1 << 19),
            ("2.k", 2048),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "for {text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "m", ".5m", "-1", "-1m", "1x", "1.2.3m", "1 m m", "9999999p", "ä", "1e3"]
        {
            assert!(text.parse::<Bytes>().is_err(), "accepted {text:?}");
        }
        assert!(Bytes::memory_limit("4m").unwrap_err().contains("6 MiB"));
        assert_eq!(Bytes::memory_limit("6m"), Ok(Bytes(6 << 20)));
    }

    #[test]
    fn bytes_are_printed_with_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (6 << 20, "6 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn processors_are_decimal() {
        for (text, milli) in
            [("1", 1000), ("0.5", 500), (".25", 250), ("2.", 2000), ("1.2345", 1234), ("0.01", 10)]
        {
            assert_eq!(text.parse(), Ok(Cpus { milli }), "for {text}");
        }
        for text in ["", ".", "0", "0.001", "-1", "a", "1e3", "9999999999", "1,5"] {
            assert!(text.parse::<Cpus>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn no_limit_has_two_spellings() {
        assert_eq!("-1".parse(), Ok(PidsLimit(None)));
        assert_eq!("0".parse(), Ok(PidsLimit(None)));
        assert_eq!("64".parse(), Ok(PidsLimit(Some(64))));
        for text in ["-2", "", "x", "99999999999"] {
            assert!(text.parse::<PidsLimit>().is_err(), "accepted {text:?}");
        }
        assert_eq!("-1".parse(), Ok(SwapLimit::Unlimited));
        assert_eq!("64m".parse(), Ok(SwapLimit::Total(Bytes(64 << 20))));
    }
}
