//! What one dataset did since the node started, whatever its children went through meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anabranch_protocol::codec;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::{Announce, RefusalCode, Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::ledger::Committed;
use super::measures::Measures;
use crate::transport::{Class, SharedTransport, Transport, TransportError};

/// Bytes of messages of one kind, without the transport's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageBytes {
    /// Read.
    pub received: u64,
    /// Written.
    pub sent: u64,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commits that local writes became.
    pub commits_written: u64,
    /// Commits of peers taken in.
    pub commits_received: u64,
    /// Commits of peers refused.
    pub commits_refused: u64,
    /// Entries of the commits written.
    pub entries_written: u64,
    /// Entries of the commits received.
    pub entries_received: u64,
    /// By kind; a request and its answer count under one name.
    pub messages: BTreeMap<&'static str, MessageBytes>,
    /// What either side refused of this dataset, by code.
    pub refusals: BTreeMap<String, u64>,
}

/// Counts. Shared by the dataset's actors.
#[derive(Debug, Default)]
pub struct Counters {
    commits_written: AtomicU64,
    commits_received: AtomicU64,
    commits_refused: AtomicU64,
    entries_written: AtomicU64,
    entries_received: AtomicU64,
    messages: Mutex<BTreeMap<&'static str, MessageBytes>>,
    refusals: Mutex<BTreeMap<RefusalCode, u64>>,
    /// How long things took, and what waits.
    pub measures: Measures,
}

impl Counters {
    /// The numbers now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        Counts {
            commits_written: load(&self.commits_written),
            commits_received: load(&self.commits_received),
            commits_refused: load(&self.commits_refused),
            entries_written: load(&self.entries_written),
            entries_received: load(&self.entries_received),
            messages: self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            refusals: refusals.iter().map(|(code, count)| (code.to_string(), *count)).collect(),
        }
    }

    pub(super) fn wrote(&self, committed: &Committed) {
        add(&self.commits_written, committed.commits.len() as u64);
        add(&self.entries_written, entries(committed));
    }

    pub(super) fn received(&self, committed: &Committed, now: WallClock) {
        add(&self.commits_received, committed.commits.len() as u64);
        add(&self.entries_received, entries(committed));
        committed.commits.iter().for_each(|commit| self.measures.visible(commit.header().hlc, now));
    }

    pub(super) fn refused_commit(&self) {
        add(&self.commits_refused, 1);
    }

    pub(crate) fn refused(&self, code: RefusalCode) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    fn message(&self, kind: &'static str, count: impl FnOnce(&mut MessageBytes)) {
        count(self.messages.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default());
    }

    pub(super) fn asked(&self, request: &Request) -> &'static str {
        let kind = kind_of(request);
        self.message(kind, |bytes| bytes.received += codec::encoded_len(request) as u64);
        kind
    }

    pub(super) fn answered(&self, kind: &'static str, response: &Response) {
        self.message(kind, |bytes| bytes.sent += codec::encoded_len(response) as u64);
        if let Response::Refused(refusal) = response {
            self.refused(refusal.code);
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn entries(committed: &Committed) -> u64 {
    let sections = committed.commits.iter().flat_map(|commit| &commit.header().sections);
    sections.map(|section| u64::from(section.entries)).sum()
}

fn kind_of(request: &Request) -> &'static str {
    match request {
        Request::Hello(_) => "hello",
        Request::Heads(_) => "heads",
        Request::Round(_) => "round",
        Request::Pull(_) => "pull",
        Request::Push(_) => "push",
        Request::Confirm(_) => "confirm",
    }
}

/// A transport that counts what goes through it.
#[derive(Debug)]
pub(super) struct Counted {
    pub inner: SharedTransport,
    pub counters: Arc<Counters>,
}

impl Transport for Counted {
    fn request(&self, peer: PeerId, class: Class, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (kind, counters) = (kind_of(&request), self.counters.clone());
        counters.message(kind, |bytes| bytes.sent += codec::encoded_len(&request) as u64);
        let answer = self.inner.request(peer, class, request);
        async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                counters.message(kind, |bytes| bytes.received += codec::encoded_len(response) as u64);
            }
            answer
        }
        .boxed()
    }

    fn announce(&self, announce: Announce) {
        self.counters.message("announce", |bytes| bytes.sent += codec::encoded_len(&announce) as u64);
        self.inner.announce(announce);
    }

    fn subscribe(&self, dataset: DatasetId) {
        self.inner.subscribe(dataset);
    }

    fn unsubscribe(&self, dataset: DatasetId) {
        self.inner.unsubscribe(dataset);
    }

    fn accepted(&self, peer: PeerId, listen: Vec<String>) {
        self.inner.accepted(peer, listen);
    }

    fn disconnect(&self, peer: PeerId, reason: &str) {
        self.inner.disconnect(peer, reason);
    }

    fn misbehaved(&self, peer: PeerId, what: &str) {
        self.inner.misbehaved(peer, what);
    }

    fn listen_addresses(&self) -> Vec<String> {
        self.inner.listen_addresses()
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::wire::Refusal;

    use super::*;

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let counters = Counters::default();
        let refused = |code| counters.answered("pull", &Response::Refused(Refusal::new(code, "in words")));
        refused(RefusalCode::Busy);
        refused(RefusalCode::Forbidden);
        refused(RefusalCode::Busy);
        counters.answered("confirm", &Response::Confirmed);
        counters.refused_commit();
        let counts = counters.counts();
        assert_eq!(counts.refusals, [("busy".to_owned(), 2), ("forbidden".to_owned(), 1)].into());
        assert_eq!(counts.commits_refused, 1);
    }
}
