//! Images that leave while they are made.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use oci::{Compression, Descriptor, Reference};
use store::Lease;
use store::remote::{PushOptions, PushSession};

use super::super::environment::client_for;
use super::super::progress::Progress;
use super::super::transfer::Show;
use crate::output::{FinishedLayer, Form, Push};
use crate::solve::{Cancel, Guard};

/// How a push is shown: from its first layer on.
type Shown = Arc<Mutex<Option<Arc<Show<Arc<Progress>>>>>>;

/// One push to one repository, under way from the first layer on.
pub(super) struct Pushing<'a> {
    session: PushSession,
    names: Vec<Reference>,
    shown: Shown,
    progress: Arc<Progress>,
    _guard: Guard<'a>,
}

impl<'a> Pushing<'a> {
    /// Begins; all names are of one repository.
    pub(super) fn start(
        lease: &Lease,
        names: Vec<Reference>,
        form: &Form,
        push: Push,
        insecure: bool,
        progress: &Arc<Progress>,
        cancel: &'a Cancel,
    ) -> anyhow::Result<Self> {
        let first = names.first().context("a push has a name")?.clone();
        let client = Arc::new(client_for(&first, insecure || push.insecure));
        let canceller = Arc::clone(&client);
        let guard = cancel.on_stop(move || canceller.cancel());
        let shown = Shown::default();
        let (events, on_event) = (Arc::clone(&shown), Arc::clone(progress));
        let sink = Arc::new(move |event| show(&events, &on_event, &first).event(&event));
        let options = PushOptions {
            compression: form.compression.unwrap_or(Compression::Gzip),
            level: form.level,
            force_compression: form.force,
            by_digest: push.by_digest,
            ..PushOptions::default()
        };
        let session = PushSession::start(client, lease, &names[0], options, sink)?;
        Ok(Self { session, names, shown, progress: Arc::clone(progress), _guard: guard })
    }

    /// Sends a layer, and returns at once.
    pub(super) fn layer(&self, layer: &FinishedLayer) {
        self.session.add_layer(&layer.blob, layer.diff_id);
    }

    /// Sends what is missing and gives the image its names; returns what the registry has now.
    pub(super) fn publish(&self, image: &Descriptor) -> anyhow::Result<Descriptor> {
        let mut published = image.clone();
        for name in &self.names {
            let result = self.session.publish(image, name);
            let shown = show(&self.shown, &self.progress, &self.names[0]);
            shown.end(result.as_ref().err().map(ToString::to_string));
            published = result.with_context(|| format!("cannot push {}", name.familiar()))?;
        }
        Ok(published)
    }

    /// Returns the names that are pushed.
    pub(super) fn names(&self) -> &[Reference] {
        &self.names
    }
}

/// Returns the step that shows a push; it appears with the first thing to show.
fn show(shown: &Shown, progress: &Arc<Progress>, name: &Reference) -> Arc<Show<Arc<Progress>>> {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    let show = shown.get_or_insert_with(|| {
        Arc::new(Show::start(Arc::clone(progress), format!("pushing {}", name.familiar())))
    });
    Arc::clone(show)
}
