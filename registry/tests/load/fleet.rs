//! Replicas of the registry over one storage, as processes that are killed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::random::Random;
use crate::support::client;
use crate::support::servers::{Server, Store, free_port};

/// How long a collector leaves alone what was just pushed.
const GRACE: &str = "5s";

pub(crate) struct Fleet {
    /// Arguments and variables that name the storage.
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
    replicas: Vec<Replica>,
    /// Stands in front of several replicas.
    balancer: Option<Server>,
    url: String,
    killed_replicas: AtomicUsize,
    killed_collectors: AtomicUsize,
}

struct Replica {
    address: String,
    /// Held while it is killed and started, so that it is always there for who holds it.
    process: Mutex<Child>,
}

/// How many processes were killed.
pub(crate) struct Counts {
    pub(crate) replicas: usize,
    pub(crate) collectors: usize,
}

impl Fleet {
    /// One process over a directory: another could not listen on its port.
    pub(crate) async fn on_directory(root: &Path) -> Self {
        let arguments = vec!["--root".into(), root.join("root").into()];
        Self::start(arguments, Vec::new(), 1).await
    }

    /// Three processes over a bucket, behind nginx.
    pub(crate) async fn on_bucket(store: &Store) -> Self {
        let arguments = vec!["--storage".into(), Store::url("i").into()];
        let mut fleet = Self::start(arguments, store.variables().to_vec(), 3).await;
        let addresses: Vec<&str> = fleet.replicas.iter().map(|replica| &*replica.address).collect();
        let settings = "proxy_buffering off; proxy_set_header Host $http_host;";
        let balancer = Server::nginx(&addresses, settings).await;
        fleet.url = format!("http://{}", balancer.address());
        fleet.balancer = Some(balancer);
        fleet
    }

    async fn start(
        arguments: Vec<OsString>,
        variables: Vec<(&'static str, String)>,
        replicas: usize,
    ) -> Self {
        let mut fleet = Self {
            arguments,
            variables,
            replicas: Vec::new(),
            balancer: None,
            url: String::new(),
            killed_replicas: AtomicUsize::new(0),
            killed_collectors: AtomicUsize::new(0),
        };
        for _ in 0..replicas {
            let address = format!("127.0.0.1:{}", free_port());
            let process = Mutex::new(fleet.serve(&address).await);
            fleet.replicas.push(Replica { address, process });
        }
        fleet.url = format!("http://{}", fleet.replicas[0].address);
        fleet
    }

    /// Where clients go.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where each replica is.
    pub(crate) fn replicas(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| format!("http://{}", replica.address)).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            replicas: self.killed_replicas.load(Ordering::Relaxed),
            collectors: self.killed_collectors.load(Ordering::Relaxed),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rregistry"));
        command
            .args(words)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts a replica and waits until it answers.
    async fn serve(&self, address: &str) -> Child {
        let process = self.command(&["serve", "--listen", address]).spawn().unwrap();
        let url = format!("http://{address}/healthz");
        for _ in 0..600 {
            if client().get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
                return process;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a replica does not start");
    }

    /// Kills one replica after the other, and starts it again.
    pub(crate) async fn kill_replicas(self: Arc<Self>, mut random: Random) {
        loop {
            tokio::time::sleep(random.milliseconds(300..1500)).await;
            let replica =
                &self.replicas[usize::try_from(random.below(self.replicas.len() as u64)).unwrap()];
            let mut process = replica.process.lock().await;
            process.kill().await.unwrap();
            self.killed_replicas.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(random.milliseconds(0..200)).await;
            *process = self.serve(&replica.address).await;
        }
    }

    /// Collects again and again, and kills one collector in three.
    pub(crate) async fn collect_and_kill(self: Arc<Self>, mut random: Random) {
        loop {
            tokio::time::sleep(random.milliseconds(100..500)).await;
            let mut collector = self.command(&["gc", "--grace", GRACE]).spawn().unwrap();
            if random.below(3) == 0 {
                tokio::time::sleep(random.milliseconds(1..100)).await;
                collector.kill().await.unwrap();
                self.killed_collectors.fetch_add(1, Ordering::Relaxed);
            } else {
                let status = collector.wait().await.unwrap();
                assert!(status.success(), "a collector fails: {status}");
            }
        }
    }

    /// Starts what was killed and not started again.
    pub(crate) async fn restore(&self) {
        for replica in &self.replicas {
            let mut process = replica.process.lock().await;
            process.kill().await.unwrap();
            *process = self.serve(&replica.address).await;
        }
    }

    /// Runs a command on the storage, which must succeed.
    pub(crate) async fn run(&self, words: &[&str]) {
        let output =
            self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output().await;
        let output = output.unwrap();
        let texts = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&texts));
    }
}
