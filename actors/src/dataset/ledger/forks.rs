//! Forks in the ledger: a proof becomes durable, then the line that it is about parts.
//!
//! The frames stay where they are in the log: only their index moves from the line to the branch. Each step is behind a barrier of
//! its own and is done again at the next start if a crash came between.

use std::ops::ControlFlow;
use std::sync::Arc;

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Commit, Fork, ForkError, ForkProof, Forks};
use anabranch_protocol::coverage::Scope;
use anabranch_protocol::id::{DatasetId, Hash, Lineage, WriterId};
use anabranch_protocol::replica::{Cut, Parting, Record, WriterState};

use super::Ledger;
use crate::dataset::layout;
use crate::dataset::log::{self, Found};
use crate::store::{Store, StoreError};

/// Index rows that are moved at a time.
const MOVED_MAX: usize = 4_096;

/// What is known of forks, for those who are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parted {
    /// To be passed on.
    pub proofs: Arc<Vec<ForkProof>>,
    /// The lowest fork of each writer.
    pub lowest: Vec<(WriterId, u64)>,
    /// Lines that go no further.
    pub cuts: Vec<Cut>,
}

impl Ledger {
    /// Verifies proofs and takes in those that are new; how many were, and what was wrong with the first bad one.
    ///
    /// # Errors
    /// [`StoreError`]: what was made durable is taken in at the next start.
    pub(super) fn learn_forks(&mut self, proofs: Vec<ForkProof>) -> Result<(usize, Option<ForkError>), StoreError> {
        let (mut learned, mut wrong) = (0, None);
        for proof in proofs.into_iter().filter(|proof| !self.parted.proofs.contains(proof)).collect::<Vec<_>>() {
            let settings = self.replica.settings();
            match proof.verify(&settings.dataset, settings.lineage) {
                Ok(fork) => learned += usize::from(self.learn_fork(fork)?),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        if learned > 0 {
            self.parted = self.parted_now(true);
            self.publish();
        }
        Ok((learned, wrong))
    }

    fn learn_fork(&mut self, fork: Fork) -> Result<bool, StoreError> {
        let mut known = self.replica.forks().clone();
        if !known.insert(fork.clone()) {
            return Ok(false);
        }
        // Records past the mark say of which line they are a part as things were: none of them is taken in again from here on.
        self.settle()?;
        if self.is_ours(&fork) {
            self.close_writer()?;
        }
        self.store.put(&layout::fork_key(&fork), &layout::sealed(codec::encode(fork.proof())))?;
        self.store.barrier()?;
        self.replica.learn_fork(fork.clone());
        self.part(&fork)?;
        self.look_at_held()?;
        Ok(true)
    }

    /// Parts what `fork` is about, as far as it is here, and removes what a crash left of an earlier try.
    pub(super) fn part(&mut self, fork: &Fork) -> Result<(), StoreError> {
        // With three branches in one place the first parting leaves nothing to part; a branch may part again, once for each fork.
        if let Some(parting) = self.replica.parting(fork, &*self.view)? {
            let imported = self.part_coverage(&parting);
            self.move_index(&parting, &imported)?;
            self.replica.part(&parting);
        }
        for cut in self.replica.cuts().iter().filter(|cut| cut.line.peer == fork.writer.peer) {
            self.drop_index(cut)?;
        }
        Ok(())
    }

    /// What is imported of the line is imported of the branch from the fork on; of which scopes.
    fn part_coverage(&mut self, parting: &Parting) -> Vec<Scope> {
        self.coverages.part(&parting.line, parting.end.map_or(0, |end| end.head.seq), &parting.branch)
    }

    /// `imported` are the scopes whose spans part with the line: the branch's before the line ends, the line's with its end.
    fn move_index(&self, parting: &Parting, imported: &[Scope]) -> Result<(), StoreError> {
        let spans_of = |writer: WriterId| imported.iter().map(|scope| (scope.clone(), writer)).collect();
        let Some(last) = self.replica.line(&parting.line) else { return Ok(()) };
        let view = self.view.clone();
        let mut applying = view.applying();
        let (mut from, end) = (parting.from_seq, layout::seq_index(&parting.line, last.head.seq + 1));
        loop {
            // What there is, not every number up to the last: a damaged line may say any.
            let mut moved = Vec::new();
            self.store.scan(&layout::seq_index(&parting.line, from), &end, &mut |key, arrival| {
                moved.extend(layout::parse_seq(key).map(|seq| (seq, arrival.to_vec())));
                if moved.len() < MOVED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some((last, _)) = moved.last() else { break };
            from = last + 1;
            for (seq, arrival) in moved {
                self.store.put(&layout::seq_index(&parting.branch, seq), &arrival)?;
            }
        }
        self.store.put(&layout::line_key(&parting.branch), &layout::encode_line(&last))?;
        self.put_spans(&spans_of(parting.branch))?;
        self.store.barrier()?;
        if !imported.is_empty() {
            // Before the line ends: where it has ended, a start finds nothing left to part.
            self.put_spans(&spans_of(parting.line))?;
            for (scope, coverage) in self.coverages.scopes.iter().filter(|(scope, _)| imported.contains(scope)) {
                self.put_head(scope, coverage)?;
            }
            self.store.barrier()?;
        }
        match parting.end {
            Some(end) => self.store.put(&layout::line_key(&parting.line), &layout::encode_line(&end))?,
            None => self.store.delete(&layout::line_key(&parting.line))?,
        }
        self.store.barrier()?;
        applying.done();
        Ok(())
    }

    /// Removes index rows past a line's end.
    fn drop_index(&self, cut: &Cut) -> Result<(), StoreError> {
        let mut past = Vec::new();
        let from = layout::seq_index(&cut.line, cut.end.map_or(0, |end| end.seq) + 1);
        self.store.scan(&from, &layout::seq_index(&cut.line, u64::MAX), &mut |key, _| {
            past.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        past.iter().try_for_each(|key| self.store.delete(key))
    }

    /// Whether it is the line under which this node writes that forked.
    fn is_ours(&self, fork: &Fork) -> bool {
        self.writes_under(&fork.writer)
    }

    /// What the index of records says under a key: the arrival of `record`. Two branches of one writer may have read the same clock
    /// and so share a key; then it is the arrivals of both, in the order of their hashes.
    pub(super) fn places(&self, key: &[u8], arrival: u64, record: &Record) -> Result<Vec<u8>, StoreError> {
        let place = arrival.to_be_bytes();
        let forked = |commit: &&Commit| !self.replica.forks().of(&commit.writer()).is_empty();
        let others = match record.commit.as_ref().filter(forked) {
            Some(_) => self.store.get(key)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut places: Vec<[u8; 8]> = others.chunks_exact(8).filter_map(|place| place.try_into().ok()).collect();
        // A copy with more sections takes the place of the one before it.
        places.retain(|place| record.effects.widens != Some(u64::from_be_bytes(*place)));
        if !places.contains(&place) {
            places.push(place);
        }
        if places.len() > 1 {
            let mut sorted = Vec::new();
            for place in places {
                let known = record.commit.as_ref().filter(|_| place == arrival.to_be_bytes()).map(Commit::hash);
                let hash = known.map_or_else(|| self.hash_at(u64::from_be_bytes(place)), |hash| Ok(Some(hash)))?;
                sorted.push((hash, place));
            }
            sorted.sort_unstable();
            places = sorted.into_iter().map(|(_, place)| place).collect();
        }
        Ok(places.concat())
    }

    fn hash_at(&self, arrival: u64) -> Result<Option<Hash>, StoreError> {
        let Found::Record(stored) = log::read(&*self.store, arrival)? else {
            return Err(StoreError::Corrupt(format!("log record {arrival} is missing or broken")));
        };
        Ok(stored.commit(self.replica.settings().lineage)?.map(|commit| commit.hash()))
    }

    /// After a start: parts again what a crash may have left whole, and goes on under no line that forked.
    pub(super) fn part_again(&mut self) -> Result<(), StoreError> {
        let forks: Vec<Fork> = self.replica.forks().iter().cloned().collect();
        for fork in &forks {
            self.part(fork)?;
        }
        if !forks.is_empty() {
            self.store.barrier()?;
            if forks.iter().any(|fork| self.is_ours(fork)) {
                self.replica.start_writer(WriterState::Closed);
                self.put_epoch(None)?;
                self.store.barrier()?;
            }
            self.parted = self.parted_now(true);
        }
        Ok(())
    }

    /// What is told of forks as things stand.
    pub(super) fn parted_now(&self, proofs: bool) -> Arc<Parted> {
        let forks = self.replica.forks();
        if forks.is_empty() {
            return self.parted.clone();
        }
        let collected = || Arc::new(forks.iter().map(|fork| fork.proof().clone()).collect());
        Arc::new(Parted {
            proofs: if proofs { collected() } else { self.parted.proofs.clone() },
            lowest: forks.lowest().map(|fork| (fork.writer, fork.seq)).collect(),
            cuts: self.replica.cuts(),
        })
    }
}

/// The proofs that a store holds.
pub(super) fn stored(store: &dyn Store, dataset: &DatasetId, lineage: Lineage) -> Result<Forks, StoreError> {
    let (mut forks, mut damaged) = (Forks::default(), None);
    store.scan(b"f", b"g", &mut |key, value| {
        let proof = layout::unsealed(value).and_then(|bytes| ForkProof::decode(bytes).ok());
        match proof.and_then(|proof| proof.verify(dataset, lineage).ok()).filter(|fork| layout::fork_key(fork) == key) {
            Some(fork) => drop(forks.insert(fork)),
            None => damaged = Some("the proof of a fork fails its checksum"),
        }
        ControlFlow::Continue(())
    })?;
    damaged.map_or(Ok(forks), |what| Err(StoreError::Corrupt(what.into())))
}

/// A proof as it is stored, under the key that it says itself; what is read back is what is written again.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::dataset) fn fuzz(data: &[u8]) {
    use crate::store::StoreEngine as _;
    let (dataset, lineage) = (DatasetId::primary(), Lineage::ZERO);
    let Ok(fork) = ForkProof::decode(data).map_err(ForkError::from).and_then(|proof| proof.verify(&dataset, lineage)) else {
        return;
    };
    let store = crate::store::MemoryEngine::default().open(std::path::Path::new("/fuzz"), 0).expect("memory opens");
    let (key, value) = (layout::fork_key(&fork), layout::sealed(codec::encode(fork.proof())));
    assert_eq!(layout::unsealed(&value), Some(data), "one encoding, small enough to be sealed");
    store.put(&key, &value).expect("memory takes what is small enough");
    let read = stored(&*store, &dataset, lineage).expect("what was stored is read");
    assert!(read.iter().eq([&fork]));
    store.put(&[&key[..], &[0]].concat(), &value).expect("as before");
    assert!(stored(&*store, &dataset, lineage).is_err(), "under another key it is damage");
}

#[cfg(test)]
mod tests;
