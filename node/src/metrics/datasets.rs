//! Series of each dataset.

use std::collections::BTreeSet;

use anabranch_actors::api::{Counts, DatasetContents, DatasetSample, DatasetState, Measured, Queue};
use anabranch_protocol::id::DatasetId;

use super::page::Page;
use super::series as s;
use crate::seen::Seen;

const STATES: [DatasetState; 5] =
    [DatasetState::Running, DatasetState::Restarting, DatasetState::Failed, DatasetState::Paused, DatasetState::Importing];

/// `answered` are those that told what they hold just now.
pub fn add(page: &mut Page, seen: &Seen, answered: &BTreeSet<DatasetId>) {
    for sample in &seen.datasets {
        let dataset = sample.info.dataset.as_str();
        stands(page, dataset, sample);
        page.set(&s::ANSWERED, &[dataset], answered.contains(&sample.info.dataset));
        if let Some(contents) = &sample.info.contents {
            holds(page, dataset, contents);
        }
        did(page, dataset, &sample.info.counts);
        took(page, dataset, &sample.measured);
        page.set(&s::QUEUE, &[dataset, "reads"], sample.waiting.reads);
        page.set(&s::QUEUED_BYTES, &[dataset], sample.waiting.write_kib << 10);
    }
    for info in &seen.disabled {
        let dataset = info.dataset.as_str();
        page.set_one_of(&s::STATE, &[dataset], STATES.map(DatasetState::as_str), info.state.as_str());
        page.set(&s::ENABLED, &[dataset], false);
    }
}

/// Whether it runs, and what is wrong.
fn stands(page: &mut Page, dataset: &str, sample: &DatasetSample) {
    page.set_one_of(&s::STATE, &[dataset], STATES.map(DatasetState::as_str), sample.info.state.as_str());
    page.set(&s::ENABLED, &[dataset], true);
    page.set(&s::READ_ONLY, &[dataset], sample.read_only);
    page.set(&s::RESTARTS, &[dataset], sample.info.restarts);
    page.set(&s::SET_ASIDE, &[dataset], sample.info.set_aside.len() as u64);
    if let Some(peers) = &sample.peers {
        page.set(&s::OWN_CLOCK, &[dataset], peers.own_clock_suspect);
        page.set(&s::FORKED, &[dataset], peers.forked);
        page.set(&s::UNREADABLE, &[dataset], peers.unreadable);
        page.set(&s::SOURCELESS, &[dataset], peers.sourceless);
    }
}

fn holds(page: &mut Page, dataset: &str, contents: &DatasetContents) {
    page.set(&s::DOCUMENTS, &[dataset], contents.documents);
    page.set(&s::COMMITS, &[dataset], contents.commits);
    page.set(&s::OPLOG_BYTES, &[dataset], contents.oplog_bytes);
    page.set(&s::DISK_BYTES, &[dataset], contents.disk_bytes);
    page.set(&s::HELD, &[dataset], contents.held.len() as u64);
}

/// What it did since the node started.
fn did(page: &mut Page, dataset: &str, counts: &Counts) {
    page.set(&s::WRITTEN_COMMITS, &[dataset], counts.commits_written);
    page.set(&s::WRITTEN_ENTRIES, &[dataset], counts.entries_written);
    page.set(&s::RECEIVED_COMMITS, &[dataset], counts.commits_received);
    page.set(&s::RECEIVED_ENTRIES, &[dataset], counts.entries_received);
    page.set(&s::REFUSED_COMMITS, &[dataset], counts.commits_refused);
    for (reason, count) in &counts.refusals {
        page.set(&s::REFUSALS, &[dataset, reason], *count);
    }
    for (kind, bytes) in &counts.messages {
        page.set(&s::MESSAGE_RECEIVED, &[dataset, kind], bytes.received);
        page.set(&s::MESSAGE_SENT, &[dataset, kind], bytes.sent);
    }
}

/// How long things took, and what waits.
fn took(page: &mut Page, dataset: &str, measured: &Measured) {
    page.distribution(&s::COMMIT_LATENCY, &[dataset], &measured.commit_latency);
    page.distribution(&s::VISIBLE, &[dataset], &measured.visible);
    page.set(&s::STAMPED_AHEAD, &[dataset], measured.stamped_ahead);
    page.set(&s::CONFIRMATIONS, &[dataset], measured.statements);
    page.set(&s::ACKS, &[dataset, "confirmed"], measured.confirmed);
    page.set(&s::ACKS, &[dataset, "timeout"], measured.unconfirmed);
    for (queue, depth) in Queue::ALL.iter().zip(measured.queues) {
        page.set(&s::QUEUE, &[dataset, queue.name()], depth);
    }
}
