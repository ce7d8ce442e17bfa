//! The last line of a build: name, digest, size, time, steps, memory.

use std::time::Duration;

use oci::Reference;

use super::super::progress::{Progress, human_size, seconds, write_stderr};
use super::write::Written;
use crate::output::Finished;

/// Prints the summary in the form that the progress has.
pub(super) fn print(
    names: &[Reference],
    finished: &Finished,
    written: &Written,
    progress: &Progress,
    took: Duration,
) {
    let (reused, run) = progress.counts();
    let platforms: Vec<String> =
        finished.builds.iter().map(|built| built.platform.to_string()).collect();
    let peak_memory = peak_memory_bytes();
    if progress.is_json() {
        let line = serde_json::json!({
            "event": "built",
            "names": names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "image_id": finished.image_id().to_string(),
            "digest": written.image.digest.to_string(),
            "outputs": written.lines,
            "platforms": platforms,
            "size": finished.size(),
            "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "reused": reused,
            "run": run,
            "peak_memory": peak_memory,
        });
        write_stderr(&format!("{line}\n"));
    } else if progress.is_for_people() {
        let name = names.first().map_or_else(|| "image".to_owned(), Reference::familiar);
        write_stderr(&format!(
            "built {name}  {}  {}  in {}  ({reused} steps reused, {run} run, peak memory {})\n",
            finished.image_id().short(),
            human_size(finished.size()),
            seconds(took),
            human_size(peak_memory),
        ));
        let mut lines = vec![format!("digest {}", written.image.digest)];
        lines.extend(written.lines.iter().cloned());
        write_stderr(&(lines.join("\n") + "\n"));
    }
}

/// Returns the most memory that this program or any process of a step had at one time.
fn peak_memory_bytes() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let peak = |who| getrusage(who).map_or(0, |usage| usage.max_rss());
    let kib = peak(UsageWho::RUSAGE_SELF).max(peak(UsageWho::RUSAGE_CHILDREN));
    u64::try_from(kib).unwrap_or(0) * 1024
}
