//! A push that begins before its image is complete: layers leave while later steps still run.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use oci::{Descriptor, DiffId, Reference};
use tokio::sync::{mpsc, oneshot};

use super::client::Client;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::Event;
use super::push::{Push, PushOptions};
use super::upload;
use crate::lease::Lease;

/// Receives events as long as somebody is interested, from several threads at once.
pub type SharedSink = Arc<dyn Fn(Event) + Send + Sync>;

/// A push to one repository that is under way.
///
/// Blobs can be added from any thread, in any order and more than once; they are compressed and
/// sent in the background. [`publish`](Self::publish) sends what is missing, and gives the image its
/// name. Dropping the session stops what is on its way: nothing is published then.
pub struct PushSession {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    has_failed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    repository: Reference,
}

/// What the background is told.
enum Job {
    Layer { layer: Descriptor, diff_id: DiffId },
    Blob(Descriptor),
    Publish { image: Descriptor, name: Reference, reply: oneshot::Sender<Result<Descriptor>> },
}

impl PushSession {
    /// Begins a push to the repository of a reference. Nothing is sent before something is added.
    ///
    /// # Errors
    ///
    /// If there can be no further thread.
    pub fn start(
        client: Arc<Client>,
        lease: &Lease,
        to: &Reference,
        options: PushOptions,
        sink: SharedSink,
    ) -> Result<Self> {
        let (jobs, received) = mpsc::unbounded_channel();
        let has_failed = Arc::new(AtomicBool::new(false));
        let session = Session {
            lease: lease.clone(),
            to: to.clone(),
            options,
            sink,
            has_failed: Arc::clone(&has_failed),
        };
        let thread = std::thread::Builder::new()
            .name("push".to_owned())
            .spawn(move || {
                // Cancelled: whoever waits for an answer sees the channel closed.
                let _stopped = client.run(session.serve(&client, received));
            })
            .map_err(|error| Error::Setup {
                what: "a thread for a push".to_owned(),
                reason: error.to_string(),
            })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { jobs: Some(jobs), has_failed, thread, repository: to.clone() })
    }

    /// Sends a layer, compressed as the options say, and returns at once.
    pub fn add_layer(&self, layer: &Descriptor, diff_id: DiffId) {
        self.tell(Job::Layer { layer: layer.clone(), diff_id });
    }

    /// Sends a blob as it is, and returns at once.
    pub fn add_blob(&self, blob: &Descriptor) {
        self.tell(Job::Blob(blob.clone()));
    }

    /// Whether something could not be sent. [`publish`](Self::publish) says what, and why.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Waits for what was added, sends the rest of an image of the store, and gives it its name.
    ///
    /// It may be called once for each name in the repository. Returns what the registry now has
    /// under the name.
    ///
    /// # Errors
    ///
    /// The first error of anything that was added, or of what is still to be sent. What arrived
    /// stays: another attempt goes on from there.
    pub fn publish(&self, image: &Descriptor, name: &Reference) -> Result<Descriptor> {
        let repository = |name: &Reference| (name.registry().to_owned(), name.repository().clone());
        if repository(name) != repository(&self.repository) {
            let reason = format!("{name} is not in the repository that the push began with");
            return Err(Error::NotPushable { reason });
        }
        let (reply, answer) = oneshot::channel();
        self.tell(Job::Publish { image: image.clone(), name: name.clone(), reply });
        answer.blocking_recv().unwrap_or(Err(Error::Cancelled))
    }

    /// Tells the background; once it was cancelled, it does not listen any more.
    fn tell(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ended = jobs.send(job);
        }
    }
}

impl Drop for PushSession {
    /// Stops the background, and waits for its end: a lease is not held by anybody afterwards.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there has been printed, and there is nobody to tell.
        let _panicked = thread.map(JoinHandle::join);
    }
}

impl fmt::Debug for PushSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSession").field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// The background of a session.
struct Session {
    lease: Lease,
    to: Reference,
    options: PushOptions,
    sink: SharedSink,
    has_failed: Arc<AtomicBool>,
}

impl Session {
    /// Serves one connection after the other: a failure ends one, and what comes next begins
    /// another.
    async fn serve(&self, client: &Client, mut jobs: mpsc::UnboundedReceiver<Job>) -> Result<()> {
        while let Some(first) = jobs.recv().await {
            self.connected(client, first, &mut jobs).await;
        }
        Ok(())
    }

    /// Connects for the sake of a job, and serves until nobody asks any more.
    async fn connected(
        &self,
        client: &Client,
        first: Job,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
    ) {
        let transport = &client.transport;
        let host = match transport.hosts.of(&self.to).await {
            Ok(host) => host,
            Err(error) => return self.refuse(error, first, jobs).await,
        };
        let (repository, lease) = (self.to.repository(), &self.lease);
        let (scope, sink) = (&upload::scope(repository), &*self.sink);
        let journey = Journey { transport, host: &host, repository, scope, lease, sink };
        let push = match Push::new(journey, &self.to, &self.options) {
            Ok(push) => push,
            Err(error) => return self.refuse(error, first, jobs).await,
        };
        let mut under_way =
            UnderWay { push: &push, running: FuturesUnordered::new(), failed: None };
        let mut added = BTreeSet::new();
        let mut next = Some(first);
        loop {
            if let Some(Job::Publish { image, name, reply }) = next.take_if(is_publish) {
                // Whoever asked may have given up.
                let _unheard = reply.send(under_way.publish(&image, &name).await);
            }
            if let Some(job) = next.take() {
                under_way.begin(job, &mut added);
            }
            tokio::select! {
                biased;
                Some(result) = under_way.running.next() => {
                    if let Err(error) = result {
                        self.has_failed.store(true, Ordering::Relaxed);
                        under_way.failed.get_or_insert(error);
                    }
                }
                job = jobs.recv() => match job {
                    Some(job) => next = Some(job),
                    None => return,
                },
            }
        }
    }

    /// Answers the next request to publish with an error; what is added until then is in vain.
    async fn refuse(&self, error: Error, first: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        self.has_failed.store(true, Ordering::Relaxed);
        let mut next = Some(first);
        while let Some(job) = next {
            if let Job::Publish { reply, .. } = job {
                let _unheard = reply.send(Err(error));
                return;
            }
            next = jobs.recv().await;
        }
    }
}

fn is_publish(job: &mut Job) -> bool {
    matches!(job, Job::Publish { .. })
}

/// What is being sent at the moment.
struct UnderWay<'a> {
    push: &'a Push<'a>,
    running: FuturesUnordered<BoxFuture<'a, Result<()>>>,
    /// The first failure, for whoever wants to publish.
    failed: Option<Error>,
}

impl UnderWay<'_> {
    /// Begins to send something, unless it was added before.
    fn begin(&mut self, job: Job, added: &mut BTreeSet<oci::Digest>) {
        let push = self.push;
        match job {
            Job::Layer { layer, diff_id } if added.insert(layer.digest) => {
                let send = async move { push.layer(None, &layer, Some(&diff_id)).await.map(drop) };
                self.running.push(send.boxed());
            }
            Job::Blob(blob) if added.insert(blob.digest) => {
                self.running.push(async move { push.blob(&blob).await }.boxed());
            }
            Job::Layer { .. } | Job::Blob(_) | Job::Publish { .. } => {}
        }
    }

    async fn publish(&mut self, image: &Descriptor, name: &Reference) -> Result<Descriptor> {
        while let Some(result) = self.running.next().await {
            if let Err(error) = result {
                self.failed.get_or_insert(error);
            }
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.push.publish(image, name).await,
        }
    }
}
