//! Bugs to be planted, one at a time: each is a known mistake that the simulation has to catch (`docs/simulation.md`, *Planted bugs*).
//!
//! Compiled only with the feature `planted`, which nothing turns on but the test of the simulation's checkers.

use std::cell::Cell;

/// A mistake that an implementation of these rules, or of the lives around them, can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A write is acknowledged before the barrier.
    AckBeforeFlush,
    /// The mark says that rows are durable which no barrier was made for.
    MarkAhead,
    /// What the log has past the mark is not taken in after a crash.
    SkipRedo,
    /// A commit whose predecessors are missing is taken in.
    AcceptGap,
    /// A commit is taken for the next one by its number, whatever it says of the one before it.
    AcceptFork,
    /// Signatures are not checked.
    SkipSignature,
    /// Neither tags nor signatures bind a commit to its dataset.
    AnyDataset,
    /// The clock does not take part in what is received.
    SkipReceiveClock,
    /// A stamp may be as far ahead as it likes.
    SkipSkewBound,
    /// The last entry of a received section with several entries is left out.
    HalfACommit,
    /// A put wins over a delete, whatever their stamps.
    LostTombstone,
    /// What arrives last wins.
    ArrivalOrder,
    /// What was dropped or truncated comes back.
    ForgetFloor,
    /// Idempotency keys are not remembered.
    ForgetKeys,
    /// A collection that is registered nowhere is written into commits and sent.
    LeakCollection,
    /// A peer gets all sections, whatever it registered.
    SendAllSections,
    /// A node states to have what it heard that others have.
    ConfirmAhead,
    /// A receipt counts peers that have an earlier commit of the writer.
    ReceiptTooSoon,
    /// Nothing is pulled.
    NeverPull,
    /// A peer that a pull from failed once is not pulled from again.
    GiveUp,
    /// What was lost on its way is not said again: no rounds, and no statement twice.
    SayOnce,
    /// A dataset that is restarted takes the node's others with it.
    SpreadPanics,
    /// Checksums and content hashes of what is on the disk are not looked at.
    SkipChecksums,
    /// However much of peers waits for the disk, more is taken in.
    TakeEverything,
}

impl Bug {
    /// All of them, with what each does.
    pub const ALL: [(Self, &'static str); 24] = [
        (Self::AckBeforeFlush, "a write is acknowledged before the barrier"),
        (Self::MarkAhead, "the mark says that rows are durable which no barrier was made for"),
        (Self::SkipRedo, "what the log has past the mark is not taken in after a crash"),
        (Self::AcceptGap, "a commit whose predecessors are missing is taken in"),
        (Self::AcceptFork, "a commit is the next one by its number alone, whatever hash of the one before it it names"),
        (Self::SkipSignature, "signatures are not checked"),
        (Self::AnyDataset, "neither tags nor signatures bind a commit to its dataset"),
        (Self::SkipReceiveClock, "the clock does not take part in what is received"),
        (Self::SkipSkewBound, "a stamp may be as far ahead as it likes"),
        (Self::HalfACommit, "the last entry of a received section with several entries is left out"),
        (Self::LostTombstone, "a put wins over a delete, whatever their stamps"),
        (Self::ArrivalOrder, "what arrives last wins, whatever its stamp"),
        (Self::ForgetFloor, "what was dropped or truncated comes back"),
        (Self::ForgetKeys, "idempotency keys are not remembered"),
        (Self::LeakCollection, "a collection that is registered nowhere is written into commits and sent"),
        (Self::SendAllSections, "a peer gets all sections, whatever it registered"),
        (Self::ConfirmAhead, "a node states to have what it heard that others have"),
        (Self::ReceiptTooSoon, "a receipt counts peers that have any commit of the writer"),
        (Self::NeverPull, "nothing is pulled"),
        (Self::GiveUp, "a peer that a pull from failed once is not pulled from again"),
        (Self::SayOnce, "what was lost on its way is not said again: no rounds, and no statement twice"),
        (Self::SpreadPanics, "a dataset that is restarted takes the node's others with it"),
        (Self::SkipChecksums, "checksums and content hashes of what is on the disk are not looked at"),
        (Self::TakeEverything, "however much of peers waits for the disk, more is taken in"),
    ];
}

thread_local! {
    /// A world runs on one thread, and others beside it may have another bug, or none.
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug on this thread in place of the one before it, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted on this thread.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
