//! Timing of whole processes, and the peak of their memory.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end and returns how long it took.
///
/// # Errors
///
/// The command cannot be started or fails.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let elapsed = started.elapsed();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(elapsed)
}

/// Runs two measurements by turns, A B A B, and returns all results in milliseconds.
///
/// # Errors
///
/// The first error of either.
pub(crate) fn by_turns(
    rounds: usize,
    mut ours: impl FnMut(usize) -> Result<Duration>,
    mut theirs: impl FnMut(usize) -> Result<Duration>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        a.push(milliseconds(ours(round)?));
        b.push(milliseconds(theirs(round)?));
    }
    Ok((a, b))
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The middle of the values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Waits for a child and returns the peak of its own RssAnon in MiB, looked at every millisecond.
///
/// # Errors
///
/// The child fails.
pub(crate) fn peak_memory_mib(mut child: Child) -> Result<f64> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        if let Some(ended) = child.try_wait()? {
            ensure!(ended.success(), "the measured program failed: {ended}");
            return Ok(f64::from(peak_kib) / 1024.0);
        }
        peak_kib = peak_kib.max(anonymous_kib(&status).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads RssAnon of a process from its status file.
pub(crate) fn anonymous_kib(status: &str) -> Option<u32> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
