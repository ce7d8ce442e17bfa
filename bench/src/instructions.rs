//! Counts the instructions of the hot loops with valgrind: figures without noise.
//!
//! Time on a busy or virtual machine says little about a change of a few percent. The number of
//! instructions in our own code does not depend on what else runs. Valgrind shows programs an older
//! processor, so the counts of SHA-256 are those of its portable form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::hot::LOOPS;
use crate::report::say;

/// The loop runs so often in two counts; their difference is what counts.
const ROUNDS: [usize; 2] = [1, 3];
/// How much more than before is called a regression: other processors take other paths in `memchr`
/// and the like.
const TOLERANCE: f64 = 0.10;

/// Counts all loops; compares with the file at `baseline`, and writes it where `is_kept`.
pub(crate) fn run(baseline: &Path, is_kept: bool) -> Result<()> {
    let before: BTreeMap<String, f64> = match fs::read(baseline) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("cannot use {}", baseline.display()))?,
        Err(_) => BTreeMap::new(),
    };
    let mut now = BTreeMap::new();
    let mut worse = Vec::new();
    let mut table = String::from(
        "| loop | instructions per | count | before | change |\n|---|---|---|---|---|\n",
    );
    for hot in LOOPS {
        let [once, thrice] = [count(hot.name, ROUNDS[0])?, count(hot.name, ROUNDS[1])?];
        let rounds = (ROUNDS[1] - ROUNDS[0]) * hot.units;
        let each = (thrice - once) / f64::from(u32::try_from(rounds)?);
        let old = before.get(hot.name).copied().unwrap_or(each);
        let change = each / old - 1.0;
        writeln!(
            table,
            "| {} | {} | {each:.0} | {old:.0} | {:+.1} % |",
            hot.name,
            hot.unit,
            change * 100.0
        )?;
        if change > TOLERANCE {
            worse.push(hot.name);
        }
        now.insert(hot.name.to_owned(), each.round());
    }
    say(&table);
    if is_kept {
        fs::write(baseline, format!("{}\n", serde_json::to_string_pretty(&now)?))?;
    } else if !worse.is_empty() {
        bail!("more instructions than before: {}", worse.join(", "));
    }
    Ok(())
}

/// Returns how many instructions a whole run takes.
fn count(name: &str, rounds: usize) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["hot", name, &rounds.to_string()])
        .stdout(Stdio::null())
        .output()
        .context("cannot run valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, number)) if output.status.success() => {
            number.trim().parse().context("valgrind printed no number")
        }
        _ => bail!("the loop {name} failed:\n{text}"),
    }
}
