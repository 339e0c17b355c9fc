//! Log lines of a dataset's threads carry its name, also those of code that does not know it.

use std::cell::RefCell;

use anabranch_protocol::id::DatasetId;
use tracing::Span;
use tracing::span::EnteredSpan;

thread_local! {
    static ENTERED: RefCell<Option<EnteredSpan>> = const { RefCell::new(None) };
}

/// The span of a dataset. Of the highest level, so that no filter on levels takes the name from a line that it lets through.
pub(crate) fn of(dataset: &DatasetId) -> Span {
    tracing::error_span!("dataset", %dataset)
}

/// The span of what is done for a peer, inside the dataset's.
pub(super) fn with_peer(peer: anabranch_protocol::id::PeerId) -> Span {
    tracing::error_span!("session", %peer)
}

/// Puts this thread into a span, for as long as it belongs to the dataset.
pub(super) fn enter_thread(span: Span) {
    ENTERED.set(Some(span.entered()));
}

/// Takes this thread out of its span, before it ends: what a thread still holds then may outlive what it is reported to.
pub(super) fn leave_thread() {
    drop(ENTERED.take());
}
