//! Is what the store holds what it says it holds? Damage can be silent: an engine may skip what it can't read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anabranch_protocol::audit::places::Indexed;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::id::{Collection, Hash, Key, WriterId};
use anabranch_protocol::replica::{Line, Record};
use anabranch_protocol::wire::Kind;

use super::scans::scan_checked;
use super::{Ledger, META_CLOCK, saved};
use crate::dataset::layout;
use crate::dataset::log::{self, Found};
use crate::dataset::view::{commit_index_keys, local_index_keys, local_writer};
use crate::store::StoreError;

/// Records up to the newest that are read at every open.
const NEWEST_RECORDS: u64 = 16;

impl Ledger {
    /// Checks what is cheap at any size: each line's newest commit is in the log and hashes to what the line says, the newest
    /// records are whole and known to their lines, and clock and tallies are what they left.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] says what is damaged.
    pub fn check(&self) -> Result<(), StoreError> {
        let saved = saved(&*self.store)?;
        for (writer, line) in &saved.lines {
            let commit = self.commit_at(writer, line.head.seq)?;
            if commit != Some(*line) {
                return Err(damaged(format!("the newest commit of {writer} is not what its line says")));
            }
            if saved.clock < line.head.hlc {
                return Err(damaged(format!("the clock is behind the newest commit of {writer}")));
            }
        }
        if self.arrival > 0 && self.store.get(&layout::meta(META_CLOCK))?.is_none() {
            return Err(damaged("the clock is gone".to_owned()));
        }
        for arrival in self.arrival.saturating_sub(NEWEST_RECORDS) + 1..=self.arrival {
            let Some(record) = self.record_unless_moved(arrival)? else { continue };
            if let Some(commit) = &record.commit {
                let forked = !self.replica.forks().of(&commit.writer()).is_empty();
                let of_writer = |id: &WriterId| *id == commit.writer() || (forked && id.epoch.is_branch());
                let lines = saved.lines.iter().filter(|(id, _)| of_writer(id));
                if lines.map(|(_, line)| line.head.seq).max().unwrap_or(0) < commit.header().seq {
                    return Err(damaged(format!("the line of {} misses commits of the log", commit.writer())));
                }
            }
            let last = arrival == self.arrival;
            if last && record.effects.tallies.iter().any(|(collection, tally)| saved.tallies.get(collection) != Some(tally)) {
                return Err(damaged("tallies are not what the newest record left".to_owned()));
            }
        }
        Ok(())
    }

    /// Reads everything: each row by scan and by lookup, the log from its first record, every chain, every index row, every
    /// document.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] says what is damaged.
    pub fn audit(&self) -> Result<(), StoreError> {
        // First, for all that follows reads each row one way only.
        scan_checked(&*self.store, &[], &[u8::MAX], &mut |_, _| ControlFlow::Continue(()))?;
        let mut chains: BTreeMap<WriterId, (u64, Hash)> = BTreeMap::new();
        let mut tallies: BTreeMap<Collection, Tally> = BTreeMap::new();
        let mut records = RecordIndex::default();
        for arrival in 1..=self.arrival {
            let Some(record) = self.record_unless_moved(arrival)? else {
                // It stands in its chain where it was, and counts where it is.
                self.audit_chain(&self.record_after_moves(arrival)?, &mut chains)?;
                continue;
            };
            if let Some(commit) = &record.commit {
                self.audit_place(arrival, commit)?;
            }
            if record.effects.widens.is_none() {
                self.audit_chain(&record, &mut chains)?;
            }
            // Absolute results: the last one stands.
            tallies.extend(record.effects.tallies.iter().cloned());
            if self.replica.settings().kind == Kind::Append {
                let Indexed { unindexed, issues, .. } = self.index_of(arrival, &record)?;
                records.unindexed.extend(unindexed.into_iter().map(|collection| (arrival, collection)));
                records.issued.extend(issues);
            }
        }
        if !records.unindexed.is_subset(&records.issued) {
            return Err(damaged("local records are not in their index".to_owned()));
        }
        let settings = self.replica.settings();
        let saved = saved(&*self.store)?;
        let ends: BTreeMap<WriterId, (u64, Hash)> =
            saved.lines.iter().map(|(writer, line)| (*writer, (line.head.seq, line.hash))).collect();
        if chains != ends {
            return Err(damaged("the lines are not where the log ends".to_owned()));
        }
        if tallies != saved.tallies {
            return Err(damaged("the tallies are not where the log ends".to_owned()));
        }
        // An `append` dataset has rows of the reserved collection only.
        let has_rows = |collection: &Collection| settings.kind == Kind::Documents || collection.is_reserved();
        let mut of_rows = saved.tallies.iter().filter(|(collection, _)| has_rows(collection));
        of_rows.try_for_each(|(collection, tally)| self.audit_rows(collection, tally))
    }

    fn audit_chain(&self, record: &Record, chains: &mut BTreeMap<WriterId, (u64, Hash)>) -> Result<(), StoreError> {
        let Some(commit) = &record.commit else { return Ok(()) };
        let header = commit.header();
        let (writer, before) = self.line_in(commit, chains);
        if before != (header.seq.wrapping_sub(1), header.previous) {
            return Err(damaged(format!("commit {} of {writer} does not continue its chain", header.seq)));
        }
        chains.insert(writer, (header.seq, commit.hash()));
        Ok(())
    }

    /// The index leads to a commit where it is, or to a later copy of it that has more sections.
    pub(super) fn audit_place(&self, arrival: u64, commit: &Commit) -> Result<(), StoreError> {
        let (writer, seq) = (commit.writer(), commit.header().seq);
        let branches = self.replica.vector().iter().map(|(line, _)| *line);
        let branches = branches.filter(|line| line.peer == writer.peer && line.epoch.is_branch());
        for line in std::iter::once(writer).chain(branches) {
            let indexed = self.store.get(&layout::seq_index(&line, seq))?;
            let indexed = indexed.and_then(|place| place.try_into().ok()).map(u64::from_be_bytes);
            if let Some(indexed) = indexed
                && self.audit_copy(arrival, indexed, commit)?
            {
                return Ok(());
            }
        }
        Err(damaged(format!("commit {seq} of {writer} is not in its index")))
    }

    /// Whether what an index says of a commit at `arrival` is where it is, or a later copy of it.
    fn audit_copy(&self, arrival: u64, indexed: u64, commit: &Commit) -> Result<bool, StoreError> {
        if indexed <= arrival || indexed > self.arrival {
            return Ok(indexed == arrival);
        }
        let copy = self.record_unless_moved(indexed)?;
        Ok(copy.is_some_and(|copy| copy.effects.widens.is_some() && copy.commit.is_some_and(|copy| copy.hash() == commit.hash())))
    }

    /// `append`: what a record holds is found by key, unless a later one says it to everybody.
    pub(super) fn index_of(&self, arrival: u64, record: &Record) -> Result<Indexed, StoreError> {
        let lost = || damaged(format!("records of log record {arrival} are not in their index"));
        let mut indexed = Indexed::default();
        for key in commit_index_keys(record) {
            match self.leads_to(&key, arrival, record)? {
                Some(true) => indexed.keys.push(key),
                Some(false) => {}
                None => return Err(lost()),
            }
        }
        for (collection, key) in local_index_keys(record, local_writer(self.replica.settings().identity.peer())) {
            match self.store.get(&key)? {
                Some(place) if place == arrival.to_be_bytes() => indexed.keys.push(key),
                Some(_) => return Err(lost()),
                None => indexed.unindexed.push(collection),
            }
        }
        if let (Some(local), Some(commit)) = (record.effects.issues, &record.commit) {
            indexed.issues.extend(commit.sections().map(|section| (local, section.collection.clone())));
        }
        Ok(indexed)
    }

    /// Whether an index row leads to a record itself, or to a later copy of its commit; nothing where it leads to neither.
    fn leads_to(&self, key: &[u8], arrival: u64, record: &Record) -> Result<Option<bool>, StoreError> {
        let places = self.store.get(key)?.unwrap_or_default();
        let places: Vec<u64> = places.as_chunks::<8>().0.iter().map(|place| u64::from_be_bytes(*place)).collect();
        if places.contains(&arrival) {
            return Ok(Some(true));
        }
        let Some(commit) = &record.commit else { return Ok(None) };
        for place in places {
            if self.audit_copy(arrival, place, commit)? {
                return Ok(Some(false));
            }
        }
        Ok(None)
    }

    /// The line that a commit is a part of now, and the end of what it continues.
    fn line_in(&self, commit: &Commit, chains: &BTreeMap<WriterId, (u64, Hash)>) -> (WriterId, (u64, Hash)) {
        let (writer, header) = (commit.writer(), commit.header());
        let forks = self.replica.forks();
        let follows = (header.seq.wrapping_sub(1), header.previous);
        let of_writer = |id: &WriterId| *id == writer || (id.peer == writer.peer && id.epoch.is_branch());
        if forks.parts(&writer, header.seq, &header.previous) {
            let whole = header.seq == 1 || chains.iter().any(|(id, end)| of_writer(id) && *end == follows);
            return (commit.branch(), if whole { follows } else { (0, Hash::ZERO) });
        }
        let own = chains.get(&writer).copied().unwrap_or((0, Hash::ZERO));
        if own == follows || forks.of(&writer).is_empty() {
            return (writer, own);
        }
        let branch = chains.iter().find(|(id, end)| of_writer(id) && **end == follows);
        branch.map_or((writer, own), |(id, end)| (*id, *end))
    }

    /// Every row is whole, and together they are what the tally says.
    fn audit_rows(&self, collection: &Collection, tally: &Tally) -> Result<(), StoreError> {
        let base = layout::row_prefix(collection);
        let hasher = RowHasher::new(&self.replica.settings().dataset, collection);
        let mut keys = Vec::new();
        self.store.scan(&base, &layout::after_prefix(&base), &mut |key, _| {
            keys.push(std::str::from_utf8(&key[base.len()..]).ok().and_then(|key| Key::new(key).ok()));
            ControlFlow::Continue(())
        })?;
        let mut found = Tally::default();
        for key in keys {
            let key = key.ok_or_else(|| damaged("a row's key is no key".to_owned()))?;
            if let Some(row) = self.view.load_row(collection, &key)?
                && row.value.is_some()
            {
                found.add(hasher.hash(&key, &row.stamp, &row.content));
            }
        }
        if found.counts_as(tally) {
            Ok(())
        } else {
            Err(damaged(format!("the rows of {collection} are not what their tally says")))
        }
    }

    /// What the log has at the place that the index says.
    fn commit_at(&self, writer: &WriterId, seq: u64) -> Result<Option<Line>, StoreError> {
        let Some(place) = self.store.get(&layout::seq_index(writer, seq))? else { return Ok(None) };
        let arrival = place.try_into().map(u64::from_be_bytes).map_err(|_| damaged("an index row".to_owned()))?;
        let of_line =
            |commit: &Commit| commit.writer() == *writer || (writer.epoch.is_branch() && commit.writer().peer == writer.peer);
        let commit = self.record_at(arrival)?.commit.filter(of_line);
        Ok(commit.map(|commit| Line::of(&commit)))
    }

    pub(super) fn record_at(&self, arrival: u64) -> Result<Record, StoreError> {
        let moved = || damaged(format!("log record {arrival} moved, but its index does not say so"));
        self.record_unless_moved(arrival)?.ok_or_else(moved)
    }

    fn record_unless_moved(&self, arrival: u64) -> Result<Option<Record>, StoreError> {
        match log::read(&*self.store, arrival)? {
            Found::Record(stored) => stored.decode(self.replica.settings().lineage).map(Some),
            Found::Moved(_) => Ok(None),
            Found::Broken => Err(damaged(format!("log record {arrival} is missing or broken"))),
        }
    }

    /// What is at the end of the stubs that begin at `arrival`.
    pub(super) fn record_after_moves(&self, mut arrival: u64) -> Result<Record, StoreError> {
        while let Found::Moved(now) = log::read(&*self.store, arrival)? {
            if now <= arrival || now > self.arrival {
                return Err(damaged(format!("log record {arrival} moved to {now}, where the log is not")));
            }
            arrival = now;
        }
        self.record_at(arrival)
    }
}

/// Local records of an `append` dataset that their index does not know, and those that were issued; by arrival and collection.
#[derive(Debug, Default)]
struct RecordIndex {
    unindexed: BTreeSet<(u64, Collection)>,
    issued: BTreeSet<(u64, Collection)>,
}

fn damaged(what: String) -> StoreError {
    StoreError::Corrupt(what)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use anabranch_protocol::commit::Identity;
    use anabranch_protocol::hlc::WallClock;
    use anabranch_protocol::id::{DatasetId, Lineage};
    use anabranch_protocol::registration::Registration;
    use anabranch_protocol::replica::{Op, ReplicaSettings, WriteOp, WriteRequest};
    use anabranch_protocol::value::Value;

    use super::*;
    use crate::store::{MemoryEngine, Row};

    fn ledger(kind: Kind) -> Ledger {
        let settings = ReplicaSettings {
            dataset: DatasetId::primary(),
            lineage: Lineage::ZERO,
            kind,
            identity: Identity::from_secret(&[7; 32]),
            registration: Registration::of([Collection::new("a").unwrap()]),
            writers: anabranch_protocol::access::Peers::All,
            max_clock_skew: Duration::from_secs(300),
        };
        let mut seed = 0;
        let mut entropy = |bytes: &mut [u8]| {
            seed += 1;
            bytes.fill(seed);
        };
        let mut ledger = Ledger::open(&MemoryEngine::default(), Path::new("/d"), 0, settings, &mut entropy).unwrap();
        for n in 0..24_usize {
            // Beyond one part now and then, and to a collection that doesn't replicate.
            let value = Value::Text("x".repeat(if n % 5 == 0 { 20_000 } else { n })).encode();
            let op = |collection: &str| {
                let op = match kind {
                    Kind::Append => Op::Append { value: value.clone() },
                    Kind::Documents => Op::Put { key: Key::new(&format!("k{}", n % 7)).unwrap(), value: value.clone() },
                };
                WriteOp { collection: Collection::new(collection).unwrap(), op }
            };
            let request = WriteRequest::new(vec![op("a"), op("local")]);
            ledger.write(WallClock(1_700_000_000_000 + n as u64), &[request], &mut entropy).unwrap();
        }
        if kind == Kind::Documents {
            // And a drop, of which one document is removed, before the last ones.
            let ops = |ops: Vec<Op>| {
                let collection = Collection::new("a").unwrap();
                WriteRequest::new(ops.into_iter().map(|op| WriteOp { collection: collection.clone(), op }).collect())
            };
            let put = |key: &str| Op::Put { key: Key::new(key).unwrap(), value: Value::Text("y".repeat(20_000)).encode() };
            let drop = ops(vec![Op::Truncate, put("k0"), put("k1")]);
            ledger.write(WallClock(1_700_000_000_100), &[drop], &mut entropy).unwrap();
            while ledger.sweep().unwrap().1 {}
        }
        ledger.settle().unwrap();
        ledger
    }

    fn rows(ledger: &Ledger) -> Vec<Row> {
        let mut rows = Vec::new();
        ledger
            .store
            .scan(b"d", b"z", &mut |key, value| {
                // Facts about the store are looked at where they are used.
                if key[0] != b'm' {
                    rows.push((key.to_vec(), value.to_vec()));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        rows
    }

    /// Which prefixes hold rows whose loss or older value `found` notices, and which hold others.
    fn noticed(ledger: &Ledger, found: impl Fn(&Ledger) -> bool, damage: impl Fn(&Row) -> Option<Vec<u8>>) -> [String; 2] {
        let mut noticed = [String::new(), String::new()];
        for (key, value) in rows(ledger) {
            match damage(&(key.clone(), value.clone())) {
                Some(other) => ledger.store.put(&key, &other).unwrap(),
                None => ledger.store.delete(&key).unwrap(),
            }
            let prefixes = &mut noticed[usize::from(!found(ledger))];
            if !prefixes.ends_with(char::from(key[0])) {
                prefixes.push(char::from(key[0]));
            }
            ledger.store.put(&key, &value).unwrap();
        }
        noticed
    }

    fn flipped((_, value): &Row) -> Option<Vec<u8>> {
        let mut value = value.clone();
        *value.last_mut()? ^= 1;
        Some(value)
    }

    #[test]
    fn no_row_is_lost_or_changed_unnoticed() {
        // What was swept already only costs another sweep to find out.
        for (kind, prefixes, harmless) in [(Kind::Documents, "lprstv", "d"), (Kind::Append, "lstvx", "")] {
            let ledger = ledger(kind);
            let found = |ledger: &Ledger| matches!(ledger.check().and_then(|()| ledger.audit()), Err(StoreError::Corrupt(_)));
            assert!(!found(&ledger));
            assert_eq!(noticed(&ledger, found, |_| None), [prefixes.to_owned(), harmless.to_owned()], "{kind} lost");
            assert_eq!(noticed(&ledger, found, flipped), [prefixes.to_owned(), harmless.to_owned()], "{kind} changed");
            assert!(!found(&ledger));
        }
    }

    #[test]
    fn the_newest_of_everything_is_checked_at_any_size() {
        let ledger = ledger(Kind::Documents);
        let found = |ledger: &Ledger| matches!(ledger.check(), Err(StoreError::Corrupt(_)));
        assert!(!found(&ledger));
        let newest = |(key, value): &Row| {
            let old = match key[0] {
                b'l' => layout::parse_log_part(key).unwrap().0 <= ledger.arrival - NEWEST_RECORDS,
                b's' => *value != ledger.arrival.to_be_bytes(),
                b't' | b'v' => false,
                _ => true,
            };
            old.then(|| value.clone())
        };
        assert_eq!(noticed(&ledger, found, newest)[0], "lstv");
        ledger.store.delete(&layout::meta(META_CLOCK)).unwrap();
        assert!(found(&ledger));
    }
}
