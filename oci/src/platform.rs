//! Platforms: what an image runs on, and which of many to take.
//!
//! image-spec, `image-index.md`, "platform"; the normal forms and the order of
//! preference are those of containerd's `platforms` package, which docker and
//! buildkit share. One difference: an amd64 host never falls back to a 386
//! image, nor arm64 to arm, because whether the processor can run it is not
//! known here; who wants that asks for it.

use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result, excerpt};
use crate::json::{Extra, Fields, FromFields, deserialize_object};

/// What an image runs on, printed as `os/architecture[/variant]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// The operating system, in Go's spelling: `linux`, `windows`, `darwin`.
    pub os: String,
    /// The processor, in Go's spelling: `amd64`, `arm64`, `arm`, `386`, `riscv64`.
    pub architecture: String,
    /// The generation of the processor, such as `v7`.
    pub variant: Option<String>,
    /// The version of the operating system, which only Windows images have.
    pub os_version: Option<String>,
    /// What the operating system must offer, which only Windows images have.
    pub os_features: Vec<String>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl Platform {
    /// Returns a platform by its parts, in their normal form.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..Self::default()
        }
        .normalized()
    }

    /// Returns the platform this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// Returns the same platform in the spelling and with the defaults everyone uses.
    ///
    /// `x86_64` becomes `amd64`, `aarch64` and `arm64/v8` become `arm64`, `arm`
    /// becomes `arm/v7`, `armhf` becomes `arm/v7`, `armel` becomes `arm/v6`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) =
            match (self.architecture.to_ascii_lowercase().as_str(), variant.as_str()) {
                ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
                ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
                ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
                ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", ""),
                ("aarch64" | "arm64", "9" | "v9" | "v9.0") => ("arm64", "v9"),
                ("aarch64" | "arm64", variant) => ("arm64", variant),
                ("armhf", _) => ("arm", "v7"),
                ("armel", _) => ("arm", "v6"),
                ("arm", "" | "7") => ("arm", "v7"),
                ("arm", "5") => ("arm", "v5"),
                ("arm", "6") => ("arm", "v6"),
                ("arm", "8") => ("arm", "v8"),
                (architecture, variant) => return self.spelled(os, architecture, variant),
            };
        self.spelled(os, architecture, variant)
    }

    fn spelled(&self, os: String, architecture: &str, variant: &str) -> Self {
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
            ..self.clone()
        }
    }

    /// Whether an image for this platform runs where `wanted` is asked for.
    ///
    /// An older generation of the same processor family does: an `arm/v6` image
    /// runs on `arm/v7`, not the other way round.
    #[must_use]
    pub fn matches(&self, wanted: &Self) -> bool {
        self.generations_below(wanted).is_some()
    }

    /// Returns which of `offered` is the best for `wanted`: the newest generation that
    /// runs there, and the first of equals.
    ///
    /// The answer counts from the start of `offered`.
    #[must_use]
    pub fn best_match<'a>(
        offered: impl IntoIterator<Item = &'a Self>,
        wanted: &Self,
    ) -> Option<usize> {
        offered
            .into_iter()
            .enumerate()
            .filter_map(|(position, platform)| {
                Some((platform.generations_below(wanted)?, position))
            })
            .min()
            .map(|(_, position)| position)
    }

    /// Returns how much older than `wanted` this is, or `None` if it does not run there.
    fn generations_below(&self, wanted: &Self) -> Option<u32> {
        let (offered, wanted) = (self.normalized(), wanted.normalized());
        if offered.os != wanted.os || offered.architecture != wanted.architecture {
            return None;
        }
        if offered.variant == wanted.variant {
            return Some(0);
        }
        offered.generation()?.distance_up_to(wanted.generation()?)
    }

    /// Returns the generation, where the processor family has an order of them.
    fn generation(&self) -> Option<Generation> {
        let baseline = match self.architecture.as_str() {
            "amd64" => Generation { major: 1, minor: 0 },
            "arm" => Generation { major: 7, minor: 0 },
            "arm64" => Generation { major: 8, minor: 0 },
            _ => return None,
        };
        match &self.variant {
            Some(variant) => Generation::parse(variant),
            None => Some(baseline),
        }
    }

    /// Takes the platform's fields out of an object that has others as well.
    pub(crate) fn take_from(fields: &mut Fields<'_>) -> Result<Self> {
        Ok(Self {
            architecture: fields.require("architecture")?,
            os: fields.require("os")?,
            os_version: fields.take("os.version")?,
            os_features: fields.take_or_default("os.features")?,
            variant: fields.take::<String>("variant")?.filter(|variant| !variant.is_empty()),
            extra: Extra::default(),
        })
    }

    /// Writes the platform's fields into an object that may have others as well.
    pub(crate) fn serialize_into<M: SerializeMap>(
        &self,
        map: &mut M,
    ) -> std::result::Result<(), M::Error> {
        map.serialize_entry("architecture", &self.architecture)?;
        map.serialize_entry("os", &self.os)?;
        if let Some(os_version) = &self.os_version {
            map.serialize_entry("os.version", os_version)?;
        }
        if !self.os_features.is_empty() {
            map.serialize_entry("os.features", &self.os_features)?;
        }
        if let Some(variant) = &self.variant {
            map.serialize_entry("variant", variant)?;
        }
        self.extra.serialize_into(map)
    }
}

/// A variant such as `v8.2`, which has an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Generation {
    major: u8,
    minor: u8,
}

impl Generation {
    fn parse(variant: &str) -> Option<Self> {
        let number = variant.strip_prefix('v')?;
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Returns how far `newer` is above this one, if it is not below.
    fn distance_up_to(self, newer: Self) -> Option<u32> {
        (u32::from(newer.major) << 8 | u32::from(newer.minor))
            .checked_sub(u32::from(self.major) << 8 | u32::from(self.minor))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/architecture[/variant]`, and `os` or `architecture` alone, which
    /// take the other part from the host. The result is in its normal form.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Err(Error::Platform { text: excerpt(text), reason });
        let parts: Vec<&str> = text.split('/').collect();
        let is_part = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !parts.iter().all(is_part) {
            return refuse("parts are letters, digits, `_`, `.` and `-`");
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            [part] => {
                let host = Self::host();
                let alone = Self::new(&host.os, part, None);
                if KNOWN_ARCHITECTURES.contains(&alone.architecture.as_str()) {
                    return Ok(alone);
                }
                if KNOWN_SYSTEMS.contains(&part.to_ascii_lowercase().as_str()) {
                    return Ok(Self::new(part, &host.architecture, host.variant.as_deref()));
                }
                refuse("it is no operating system or processor we know; write os/architecture")
            }
            _ => refuse("it must be os/architecture[/variant]"),
        }
    }
}

/// Operating systems that may be named without a processor.
const KNOWN_SYSTEMS: [&str; 6] = ["linux", "windows", "darwin", "macos", "freebsd", "wasi"];

/// Processors that may be named without an operating system.
const KNOWN_ARCHITECTURES: [&str; 11] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm",
    "ppc64",
];

impl FromFields for Platform {
    const WHAT: &'static str = "platform";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        let platform = Self::take_from(&mut fields)?;
        Ok(Self { extra: fields.rest(), ..platform })
    }
}

impl<'de> Deserialize<'de> for Platform {
    /// Reads from JSON text or a JSON value, as it is written there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_into(&mut map)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_have_one_normal_form() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/riscv64", "linux/riscv64"),
            ("linux/mips64le/softfloat", "linux/mips64le/softfloat"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
        }
        assert_eq!(platform("arm64").architecture, "arm64");
        assert_eq!(platform("linux").architecture, Platform::host().architecture);
    }

    #[test]
    fn refuses_what_is_no_platform() {
        for text in
            ["", "/", "linux/", "/amd64", "a/b/c/d", "what", "linux/a b", "linux/amd64\n", "é/x"]
        {
            assert!(text.parse::<Platform>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn older_generations_run_on_newer_processors() {
        // (image, wanted, runs)
        for (image, wanted, runs) in [
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/aarch64", "linux/arm64", true),
            ("linux/arm64/v9", "linux/arm64", false),
            ("linux/arm/v6", "linux/arm/v7", true),
            ("linux/arm/v5", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm/v8", "linux/arm/v7", false),
            ("linux/arm/v7", "linux/arm64", false),
            ("linux/386", "linux/amd64", false),
            ("linux/amd64", "linux/amd64/v3", true),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/x86_64", "linux/amd64", true),
            ("windows/amd64", "linux/amd64", false),
            ("linux/riscv64", "linux/riscv64", true),
            ("linux/mips/softfloat", "linux/mips", false),
            ("unknown/unknown", "linux/amd64", false),
        ] {
            assert_eq!(platform(image).matches(&platform(wanted)), runs, "{image} on {wanted}");
        }
    }

    #[test]
    fn the_newest_that_runs_is_the_best() {
        let offered =
            ["linux/arm/v5", "linux/arm/v6", "linux/amd64", "linux/arm64", "linux/arm/v8"]
                .map(platform);
        let best = |wanted: &str| Platform::best_match(&offered, &platform(wanted));
        assert_eq!(best("linux/arm/v7"), Some(1));
        assert_eq!(best("linux/arm/v5"), Some(0));
        assert_eq!(best("linux/arm/v8"), Some(4));
        assert_eq!(best("linux/amd64/v2"), Some(2));
        assert_eq!(best("linux/arm64/v8"), Some(3));
        assert_eq!(best("linux/s390x"), None);
    }

    proptest! {
        #[test]
        fn display_then_parse_is_identity(
            os in "[a-z]{1,6}", architecture in "[a-z0-9]{1,6}", variant in prop::option::of("[a-z0-9.]{1,4}")
        ) {
            let platform = Platform::new(&os, &architecture, variant.as_deref());
            prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform.clone());
            prop_assert_eq!(platform.normalized(), platform.clone());
            prop_assert!(platform.matches(&platform));
        }
    }
}
