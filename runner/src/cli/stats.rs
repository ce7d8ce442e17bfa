//! `rrun stats`.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::containers::Container;
use crate::engine::usage::Usage;
use crate::engine::{Engine, Error};

use super::Context;
use super::table::write;
use super::template::Template;

/// How far apart two looks at a container are.
const INTERVAL: Duration = Duration::from_secs(1);

/// Moves to the top of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show what running containers use
///
/// Counted from their processes. Memory is what is their own, without files
/// that are cached. Without --no-stream it goes on until it is interrupted.
#[derive(Debug, clap::Args)]
pub(super) struct StatsArgs {
    /// Show also those that do not run, if none are named
    #[arg(short, long)]
    all: bool,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Print json, or a template such as '{{.Name}} {{.CPUPerc}}'
    #[arg(long, value_name = "json|TEMPLATE", default_value = "table")]
    format: String,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Containers, by name or id; the running ones otherwise
    containers: Vec<String>,
}

pub(super) fn run(args: &StatsArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let template = match args.format.as_str() {
        "table" | "json" => None,
        text => Some(Template::parse(text).map_err(anyhow::Error::msg)?),
    };
    let mut out = io::stdout().lock();
    let mut before = look(args, &engine)?;
    let mut moment = Instant::now();
    loop {
        std::thread::sleep(INTERVAL);
        let now = look(args, &engine)?;
        let elapsed = moment.elapsed();
        moment = Instant::now();
        let rows: Vec<Value> = now
            .iter()
            .map(|(container, usage)| {
                let same = before.iter().find(|(it, _)| it.config.id == container.config.id);
                let id = &container.config.id;
                let id = if args.no_trunc { id.as_str() } else { id.short() };
                let earlier = same.map_or(*usage, |(_, usage)| *usage);
                row(id, container.config.name.as_str(), &earlier, usage, elapsed)
            })
            .collect();
        if !args.no_stream && args.format == "table" && out.is_terminal() {
            out.write_all(CLEAR.as_bytes())?;
        }
        print(&mut out, &rows, &args.format, template.as_ref())?;
        if args.no_stream {
            return Ok(0);
        }
        out.flush()?;
        before = now;
    }
}

/// Looks at the containers that are asked for.
fn look(args: &StatsArgs, engine: &Engine) -> anyhow::Result<Vec<(Container, Usage)>> {
    let containers = if args.containers.is_empty() {
        let mut all = engine.containers().list()?;
        all.retain(|it| args.all || it.status().is_ok_and(|status| status.is_active()));
        all
    } else {
        let found = args.containers.iter().map(|name| engine.containers().find(name));
        found.collect::<Result<_, _>>()?
    };
    let mut usages = Vec::new();
    for container in containers {
        match engine.usage(&container) {
            Ok(usage) => usages.push((container, usage)),
            // Docker shows one that does not run as using nothing.
            Err(Error::NotRunning { .. }) => usages.push((container, Usage::default())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(usages)
}

/// Returns a row under docker's names.
fn row(id: &str, name: &str, before: &Usage, now: &Usage, elapsed: Duration) -> Value {
    let computed = u32::try_from(now.cpu_ms.saturating_sub(before.cpu_ms)).unwrap_or(u32::MAX);
    let cpu = f64::from(computed) / elapsed.as_secs_f64().max(0.001) / 10.0;
    let share = match now.memory_limit_bytes {
        0 => 0,
        limit => {
            u64::try_from(u128::from(now.memory_bytes) * 10_000 / u128::from(limit)).unwrap_or(0)
        }
    };
    json!({
        "Container": id,
        "ID": id,
        "Name": name,
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": format!("{} / {}", memory(now.memory_bytes), memory(now.memory_limit_bytes)),
        "MemPerc": format!("{}.{:02}%", share / 100, share % 100),
        "NetIO": format!("{} / {}", amount(now.received_bytes), amount(now.sent_bytes)),
        "BlockIO": format!("{} / {}", amount(now.read_bytes), amount(now.written_bytes)),
        "PIDs": now.tasks.to_string(),
    })
}

fn print(
    out: &mut dyn io::Write,
    rows: &[Value],
    format: &str,
    template: Option<&Template>,
) -> anyhow::Result<()> {
    if let Some(template) = template {
        for row in rows {
            writeln!(out, "{}", template.render(row).map_err(anyhow::Error::msg)?)?;
        }
        return Ok(());
    }
    if format == "json" {
        for row in rows {
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let heading = [
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ];
    let fields = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    let cell = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    table.extend(rows.iter().map(|row| fields.map(|field| cell(row, field)).to_vec()));
    Ok(write(out, &table)?)
}

/// Writes memory as docker does, in powers of 1024.
fn memory(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Writes an amount of data as docker does, in powers of 1000.
pub(super) fn amount(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB"])
}

fn scaled(bytes: u64, step: u64, units: &[&str]) -> String {
    let mut hundredths = u128::from(bytes) * 100;
    let mut unit = 0;
    while hundredths >= u128::from(step) * 100 && unit + 1 < units.len() {
        hundredths /= u128::from(step);
        unit += 1;
    }
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}{}", units[unit]),
        (whole, part) => format!("{whole}.{part:02}{}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_scaled() {
        for (bytes, in_1024, in_1000) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1024, "1KiB", "1.02kB"),
            (1_500_000, "1.43MiB", "1.50MB"),
            (8 << 30, "8GiB", "8.58GB"),
            (u64::MAX, "16777215.99TiB", "18446744.07TB"),
        ] {
            assert_eq!((memory(bytes).as_str(), amount(bytes).as_str()), (in_1024, in_1000));
        }
    }

    #[test]
    fn processor_time_is_a_share_of_the_time_between_two_looks() {
        let before = Usage { cpu_ms: 1000, ..Usage::default() };
        let now = Usage {
            cpu_ms: 2500,
            memory_bytes: 1 << 20,
            memory_limit_bytes: 64 << 20,
            tasks: 3,
            ..Usage::default()
        };
        let row = row("abc", "web", &before, &now, Duration::from_secs(1));
        assert_eq!(row["CPUPerc"], "150.00%");
        assert_eq!(row["MemUsage"], "1MiB / 64MiB");
        assert_eq!(row["MemPerc"], "1.56%");
        assert_eq!(row["PIDs"], "3");
    }
}
