//! Registries under load that are killed again and again, with a checker that knows what must be
//! there: nothing that was acknowledged is lost, whoever was killed when.
//!
//! Each test takes `SOAK_SECONDS` (8). `make check` runs the one on a directory; the others need
//! servers that `make test` installs.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "a long test says what it did")]
#![expect(clippy::disallowed_methods, reason = "how long it takes is an environment variable")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

mod client;
mod fleet;
mod random;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use fleet::Fleet;
use random::Random;
use support::servers::Store;

/// How many clients work at once.
const CLIENTS: u64 = 6;

fn duration() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").map_or(8, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_a_directory_keeps_what_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    endure(Fleet::on_directory(root.path()).await).await;
}

mod moto {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn soak_three_replicas_keep_what_was_acknowledged() {
        endure(Fleet::on_bucket(&Store::moto().await).await).await;
    }
}

mod s3s_fs {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn soak_three_replicas_keep_what_was_acknowledged() {
        endure(Fleet::on_bucket(&Store::s3s_fs().await).await).await;
    }
}

mod garage {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn soak_three_replicas_keep_what_was_acknowledged() {
        endure(Fleet::on_bucket(&Store::garage().await).await).await;
    }
}

/// Lets clients push, pull and delete, kills replicas and collectors meanwhile, and checks then.
async fn endure(fleet: Fleet) {
    let mut random = Random::new();
    println!("random numbers begin with {random:?}");
    let fleet = Arc::new(fleet);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client::new(number, fleet.url().to_owned(), random.fork());
            tokio::spawn(client.work(duration()))
        })
        .collect();
    let killer = tokio::spawn(Arc::clone(&fleet).kill_replicas(random.fork()));
    let collector = tokio::spawn(Arc::clone(&fleet).collect_and_kill(random.fork()));
    let mut worked = Vec::new();
    for client in clients {
        worked.push(client.await.unwrap());
    }
    for task in [killer, collector] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    fleet.restore().await;
    let counts = fleet.counts();
    println!("{} replicas and {} collectors were killed", counts.replicas, counts.collectors);
    assert!(counts.replicas > 0, "nobody was killed");
    // Whatever nobody needs goes, and all the rest is as it was pushed, on every replica.
    fleet.run(&["gc", "--grace", "0s"]).await;
    for url in fleet.replicas() {
        for client in &mut worked {
            client.check(&url).await;
        }
    }
    fleet.run(&["verify"]).await;
    let pushed: usize = worked.iter().map(|client| client.pushed).sum();
    let deleted: usize = worked.iter().map(|client| client.deleted).sum();
    println!("{pushed} images were pushed, {deleted} deleted, and all others are there");
    assert!(pushed > 0 && deleted > 0, "the clients did too little");
}
