//! From [`Limits`] to the files of the controllers.

use crate::spec::Limits;

/// The period over which processor time is counted, the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The kernel's least quota.
const QUOTA_US_MIN: u64 = 1000;

/// One file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    /// What the user calls it.
    pub(super) limit: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Whether a host without the file only gets a warning.
    pub(super) optional: bool,
}

/// Returns the settings of each controller for v1 or v2, in the order in which
/// they must be written.
pub(super) fn settings(limits: &Limits, controller_is_v2: impl Fn(&str) -> bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |controller, limit, file, value, optional| {
        settings.push(Setting { controller, limit, file, value, optional });
    };
    if let Some(memory) = limits.memory_bytes {
        // As docker: twice the memory together with swap, when nothing is said.
        let total = limits
            .memory_swap_bytes
            .map_or(Some(memory.saturating_mul(2)), |swap| u64::try_from(swap).ok());
        let implied = limits.memory_swap_bytes.is_none();
        if controller_is_v2("memory") {
            add("memory", "memory", "memory.max", memory.to_string(), false);
            let swap =
                total.map_or("max".to_owned(), |total| total.saturating_sub(memory).to_string());
            add("memory", "swap", "memory.swap.max", swap, implied);
        } else {
            add("memory", "memory", "memory.limit_in_bytes", memory.to_string(), false);
            let total = total.map_or("-1".to_owned(), |total| total.to_string());
            add("memory", "swap", "memory.memsw.limit_in_bytes", total, implied);
        }
    }
    if let Some(cpus) = limits.cpus {
        let quota = quota_us(cpus);
        if controller_is_v2("cpu") {
            add("cpu", "cpus", "cpu.max", format!("{quota} {PERIOD_US}"), false);
        } else {
            add("cpu", "cpus", "cpu.cfs_period_us", PERIOD_US.to_string(), false);
            add("cpu", "cpus", "cpu.cfs_quota_us", quota.to_string(), false);
        }
    }
    if let Some(shares) = limits.cpu_shares {
        if controller_is_v2("cpu") {
            add("cpu", "cpu shares", "cpu.weight", weight(shares).to_string(), false);
        } else {
            add("cpu", "cpu shares", "cpu.shares", shares.to_string(), false);
        }
    }
    if let Some(pids) = limits.pids {
        let value = if pids > 0 { pids.to_string() } else { "max".to_owned() };
        add("pids", "pids", "pids.max", value, pids <= 0);
    }
    settings
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "saturates"
)]
fn quota_us(cpus: f64) -> u64 {
    ((cpus * PERIOD_US as f64).round() as u64).max(QUOTA_US_MIN)
}

/// Turns shares (2 to 262144, usual 1024) into a weight (1 to 10000, usual
/// 100), by the curve runc and crun use since 2025, which maps usual to usual.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "1 to 10000"
)]
pub(super) fn weight(shares: u64) -> u64 {
    if shares == 0 {
        return 100;
    }
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// Returns why limits make no sense, if they do not.
pub(super) fn objection(limits: &Limits) -> Option<String> {
    if limits.memory_bytes.is_some_and(|memory| memory < 6 << 20) {
        // Docker's minimum: below it not even the setup of a process fits.
        return Some("a memory limit must be at least 6 MiB".into());
    }
    match (limits.memory_bytes, limits.memory_swap_bytes) {
        (None, Some(swap)) if swap >= 0 => {
            return Some("a swap limit needs a memory limit, too".into());
        }
        (Some(memory), Some(swap)) if u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
            return Some("memory and swap together must not be less than memory".into());
        }
        _ => {}
    }
    if limits.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus < 0.01) {
        return Some("a limit on cpus must be at least 0.01".into());
    }
    if limits.cpu_shares.is_some_and(|shares| !(2..=262_144).contains(&shares)) {
        return Some("cpu shares must be 2 to 262144".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(limits: &Limits, v2: bool) -> Vec<String> {
        settings(limits, |_| v2)
            .into_iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect()
    }

    fn all() -> Limits {
        Limits {
            memory_bytes: Some(64 << 20),
            memory_swap_bytes: None,
            cpus: Some(1.5),
            cpu_shares: Some(1024),
            pids: Some(100),
        }
    }

    #[test]
    fn v1_files() {
        assert_eq!(
            files(&all(), false),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=134217728",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "cpu.shares=1024",
                "pids.max=100",
            ]
        );
    }

    #[test]
    fn v2_files() {
        assert_eq!(
            files(&all(), true),
            [
                "memory.max=67108864",
                "memory.swap.max=67108864",
                "cpu.max=150000 100000",
                "cpu.weight=100",
                "pids.max=100"
            ]
        );
        let limits =
            Limits { memory_swap_bytes: Some(-1), cpus: Some(0.001), pids: Some(-1), ..all() };
        let files = files(&limits, true);
        assert!(
            files.contains(&"memory.swap.max=max".to_owned())
                && files.contains(&"pids.max=max".to_owned())
        );
        assert!(files.contains(&"cpu.max=1000 100000".to_owned()));
    }

    #[test]
    fn weights_follow_shares() {
        assert_eq!([2, 256, 1024, 2048, 262_144].map(weight), [1, 35, 100, 174, 10_000]);
    }

    #[test]
    fn nonsense_is_refused() {
        let none = Limits::default();
        assert_eq!(objection(&all()), None);
        for limits in [
            Limits { memory_bytes: Some(4096), ..none },
            Limits { memory_swap_bytes: Some(1 << 30), ..none },
            Limits { memory_bytes: Some(1 << 30), memory_swap_bytes: Some(1 << 20), ..none },
            Limits { cpus: Some(f64::NAN), ..none },
            Limits { cpus: Some(-1.0), ..none },
            Limits { cpu_shares: Some(1), ..none },
        ] {
            assert!(objection(&limits).is_some(), "accepted {limits:?}");
        }
    }
}
