//! Reads of a dataset: only what is durable, and no half of a commit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anabranch_protocol::commit::{Change, Commit, Header};
use anabranch_protocol::conflict::{Row, Stamp};
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::floor::Floor;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Key, KeyHash, Lineage, PeerId, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::limits::PAGE_FRAMES_MAX;
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::TagSet;
use anabranch_protocol::replica::{Line, Record, ReplicaSettings, Rows, parse_record_key, record_key, record_key_prefix};
use anabranch_protocol::token::Token;
use anabranch_protocol::wire::{Incomplete, Kind, Page};
use serde_bytes::ByteBuf;

use super::damage::Damage;
use super::layout;
use super::ledger::count_above;
use super::log::{self, Found};
use super::registered::Registered;
use crate::api::{Document, ListQuery, Listing};
use crate::store::{Store, StoreError};

/// Payload of one listing page, bytes; a single larger document travels alone.
const LISTING_BYTES_MAX: usize = 4 << 20;
/// Longest listing page, documents.
const LISTING_LIMIT_MAX: usize = 10_000;

/// A dataset's store, for readers on any thread.
#[derive(Debug)]
pub struct View {
    store: Arc<dyn Store>,
    dataset: DatasetId,
    lineage: Lineage,
    kind: Kind,
    local_writer: WriterId,
    /// Written while rows of a turn are applied, read by each read call: a commit's entries become visible together. Holds
    /// whether the rows are those of whole commits: not after a turn that broke off.
    whole: RwLock<bool>,
    /// Who is told when a checksum fails; nobody while the ledger is being opened.
    damage: OnceLock<Damage>,
    registered: Arc<Registered>,
    /// Written while rows of a turn are applied: what a drop hides vanishes together with what its commit writes.
    floors: RwLock<BTreeMap<Collection, Floor>>,
}

impl View {
    pub(super) fn new(store: Arc<dyn Store>, settings: &ReplicaSettings) -> Self {
        Self {
            registered: Arc::new(Registered::new(settings)),
            store,
            dataset: settings.dataset.clone(),
            lineage: settings.lineage,
            kind: settings.kind,
            local_writer: local_writer(settings.identity.peer()),
            whole: RwLock::new(true),
            damage: OnceLock::new(),
            floors: RwLock::default(),
        }
    }

    /// What is registered, now and later.
    #[must_use]
    pub fn registered(&self) -> &Arc<Registered> {
        &self.registered
    }

    /// From now on what fails its checksum is reported.
    pub(super) fn report_damage_to(&self, damage: Damage) {
        // Set once per open store.
        let _ = self.damage.set(damage);
    }

    pub(super) fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match self.damage.get() {
            Some(damage) => damage.noting(result),
            None => result,
        }
    }

    /// Held while rows are applied. Dropped before it is [`Applying::done`], it leaves nothing to be read.
    pub(super) fn applying(&self) -> Applying<'_> {
        // Whatever another holder broke off, the value says.
        let mut whole = self.whole.write().unwrap_or_else(PoisonError::into_inner);
        *whole = false;
        Applying(whole)
    }

    /// From now on what this floor hides is not there. Whether it is a greater one than before.
    pub(super) fn raise_floor(&self, collection: &Collection, floor: Floor) -> bool {
        let mut floors = self.floors.write().unwrap_or_else(PoisonError::into_inner);
        let raised = floors.get(collection) < Some(&floor);
        if raised {
            floors.insert(collection.clone(), floor);
        }
        raised
    }

    /// Whether a row with this stamp is one that was dropped and is yet to be removed.
    pub(super) fn hides(&self, collection: &Collection, stamp: &Stamp) -> bool {
        let floors = self.floors.read().unwrap_or_else(PoisonError::into_inner);
        floors.get(collection).is_some_and(|floor| floor.hides(stamp))
    }

    fn reading(&self) -> Result<RwLockReadGuard<'_, bool>, StoreError> {
        let whole = self.whole.read().unwrap_or_else(PoisonError::into_inner);
        if *whole { Ok(whole) } else { Err(StoreError::Poisoned) }
    }

    /// The state of a document, checked.
    pub(super) fn load_row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, StoreError> {
        match self.store.get(&layout::row_key(collection, key))? {
            None => Ok(None),
            Some(head) => self.finish_row(collection, key, &head),
        }
    }

    /// The whole of a row, unless it was dropped.
    fn finish_row(&self, collection: &Collection, key: &Key, head: &[u8]) -> Result<Option<Row>, StoreError> {
        let damaged = || StoreError::Corrupt(format!("row {key:?} of {collection:?} fails its checksum"));
        let (mut row, mut missing) = layout::decode_row_head(head).ok_or_else(damaged)?;
        if self.hides(collection, &row.stamp) {
            return Ok(None);
        }
        let mut part = 0;
        while let (Some(value), true) = (&mut row.value, missing > 0) {
            let chunk = self.store.get(&layout::row_part(collection, key, part))?.ok_or_else(damaged)?;
            missing = missing.checked_sub(chunk.len()).ok_or_else(damaged)?;
            value.extend_from_slice(&chunk);
            part += 1;
        }
        if layout::row_is_whole(&row) { Ok(Some(row)) } else { Err(damaged()) }
    }

    /// A document or record.
    ///
    /// # Errors
    /// When the store can't be read, or what it holds fails its checksum.
    pub fn get(&self, collection: &Collection, key: &Key) -> Result<Option<Document>, StoreError> {
        let _reading = self.reading()?;
        if self.kind == Kind::Append {
            return self.noting(self.get_record(collection, key));
        }
        let row = self.noting(self.load_row(collection, key))?;
        Ok(row.and_then(|row| row.value.map(|value| Document { key: key.clone(), value, stamp: row.stamp })))
    }

    /// What is remembered of an idempotency key, over or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, StoreError> {
        let _reading = self.reading()?;
        self.noting(self.load_remembered(key))
    }

    pub(super) fn load_remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, StoreError> {
        let Some(value) = self.store.get(&layout::remembered_key(key))? else { return Ok(None) };
        let damaged = || StoreError::Corrupt("what is remembered of an idempotency key fails its checksum".to_owned());
        layout::decode_remembered(&value).map(Some).ok_or_else(damaged)
    }

    fn get_record(&self, collection: &Collection, key: &Key) -> Result<Option<Document>, StoreError> {
        let Some((prefix, _)) = parse_record_key(key) else { return Ok(None) };
        let row = layout::record_index(collection, &prefix);
        let Some(arrivals) = self.store.get(&row)? else { return Ok(None) };
        let records = self.records(&row, &arrivals, collection)?;
        Ok(records.into_iter().find(|document| document.key == *key))
    }

    /// The records of a collection in the log records an index row points to, in key order: one, or more where branches of a
    /// forked line share a key.
    fn records(&self, row: &[u8], arrivals: &[u8], collection: &Collection) -> Result<Vec<Document>, StoreError> {
        let (places, rest) = arrivals.as_chunks::<8>();
        if places.is_empty() || !rest.is_empty() {
            return Err(StoreError::Corrupt("an index row".into()));
        }
        let mut documents = Vec::new();
        for arrival in places.iter().map(|place| u64::from_be_bytes(*place)) {
            let Found::Record(stored) = log::read(&*self.store, arrival)? else { return Err(broken(arrival)) };
            let record = stored.decode(self.lineage)?;
            // The row has no checksum: with a flipped bit it may point to another log record, which is whole.
            if record_index_keys(&record, self.local_writer).iter().all(|key| key != row) {
                return Err(StoreError::Corrupt(format!("the index of {collection} points to another log record, {arrival}")));
            }
            documents.extend(records_of(&record, collection, self.local_writer));
        }
        documents.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(documents)
    }

    /// A page of a collection.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn list(&self, collection: &Collection, query: &ListQuery) -> Result<Listing, StoreError> {
        let _reading = self.reading()?;
        let mut page = PageOfDocuments::new(query.limit.clamp(1, LISTING_LIMIT_MAX));
        match self.kind {
            Kind::Documents => self.noting(self.list_rows(collection, query, &mut page))?,
            Kind::Append => self.noting(self.list_records(collection, query, &mut page))?,
        }
        Ok(page.finish())
    }

    fn list_rows(&self, collection: &Collection, query: &ListQuery, page: &mut PageOfDocuments) -> Result<(), StoreError> {
        let base = layout::row_prefix(collection);
        let prefix = [&base[..], query.prefix.as_bytes()].concat();
        let start = match &query.after {
            // The first key after `after` itself.
            Some(after) => prefix.clone().max([&base[..], after.as_bytes(), &[0]].concat()),
            None => prefix.clone(),
        };
        let mut failed = None;
        self.store.scan(&start, &layout::after_prefix(&prefix), &mut |key, head| {
            let document = self.scanned_row(collection, &key[base.len()..], head);
            match document {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(document)) => page.push(document),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn scanned_row(&self, collection: &Collection, key: &[u8], head: &[u8]) -> Result<Option<Document>, StoreError> {
        let (key, row) = self.checked_row(collection, key, head)?;
        Ok(row.and_then(|row| row.value.map(|value| Document { key, value, stamp: row.stamp })))
    }

    /// A row as a scan comes upon it: the end of its key and its first part. Of one that was dropped the key alone.
    pub(super) fn checked_row(&self, collection: &Collection, key: &[u8], head: &[u8]) -> Result<(Key, Option<Row>), StoreError> {
        let key = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok());
        let key = key.ok_or_else(|| StoreError::Corrupt("a row's key is not text".into()))?;
        let row = self.finish_row(collection, &key, head)?;
        Ok((key, row))
    }

    fn list_records(&self, collection: &Collection, query: &ListQuery, page: &mut PageOfDocuments) -> Result<(), StoreError> {
        let base = layout::record_index_prefix(collection);
        let time = |wall| [&base[..], &Hlc::at(wall).0.to_be_bytes()].concat();
        let mut start = query.from.map_or_else(|| base.clone(), time);
        let end = query.to.map_or_else(|| layout::after_prefix(&base), time);
        let after = query.after.as_deref().and_then(|after| Key::new(after).ok());
        if let Some((prefix, _)) = after.as_ref().and_then(parse_record_key) {
            start = start.max(layout::record_index(collection, &prefix));
        }
        let mut failed = None;
        self.store.scan(&start, &end, &mut |key, arrivals| match self.records(key, arrivals, collection) {
            Ok(records) => {
                let wanted = records.into_iter().filter(|document| {
                    document.key.as_str().starts_with(&query.prefix) && after.as_ref().is_none_or(|after| document.key > *after)
                });
                for document in wanted {
                    if page.push(document).is_break() {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Commits for a peer that registered `tags`: in seq order per writer, until `bytes_max`; at least one frame if there is one.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn page(&self, wants: &[Want], tags: &TagSet, bytes_max: usize) -> Result<Page, StoreError> {
        self.noting(self.read_page(wants, tags, bytes_max))
    }

    fn read_page(&self, wants: &[Want], tags: &TagSet, bytes_max: usize) -> Result<Page, StoreError> {
        let mut page = Page { dataset: self.dataset.to_wire(), frames: Vec::new(), more: false, incomplete: Vec::new() };
        let mut bytes = 0;
        for want in wants {
            let mut seq = self.first_from(want)?;
            while let Some(stored) = self.stored(&want.writer, seq)? {
                match self.frame_for(&stored, &(want.writer, seq), tags)? {
                    Ok(frame) => {
                        if !page.frames.is_empty() && (bytes + frame.len() > bytes_max || page.frames.len() >= PAGE_FRAMES_MAX) {
                            page.more = true;
                            return Ok(page);
                        }
                        bytes += frame.len();
                        page.frames.push(ByteBuf::from(frame));
                    }
                    Err(tags) => {
                        page.incomplete.push(Incomplete { writer: want.writer, from_seq: seq, tags });
                        break;
                    }
                }
                seq += 1;
            }
        }
        Ok(page)
    }

    /// Where to begin with a want: a branch has no commits below its fork.
    fn first_from(&self, want: &Want) -> Result<u64, StoreError> {
        let mut first = want.from_seq;
        if want.writer.epoch.is_branch() {
            let start = layout::seq_index(&want.writer, want.from_seq);
            self.store.scan(&start, &layout::seq_index(&want.writer, u64::MAX), &mut |key, _| {
                first = layout::parse_seq(key).unwrap_or(first);
                ControlFlow::Break(())
            })?;
        }
        Ok(first)
    }

    /// Which commits are here, by line and number, as the index has them.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn indexed(&self) -> Result<Vec<(WriterId, u64)>, StoreError> {
        let _reading = self.reading()?;
        let mut commits = Vec::new();
        self.store.scan(b"s", b"t", &mut |key, _| {
            commits.extend(layout::parse_seq_index(key));
            ControlFlow::Continue(())
        })?;
        Ok(commits)
    }

    /// The commit `seq` of a line.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Commit>, StoreError> {
        self.noting(self.load_commit(line, seq))
    }

    fn load_commit(&self, line: &WriterId, seq: u64) -> Result<Option<Commit>, StoreError> {
        let Some(stored) = self.stored(line, seq)? else { return Ok(None) };
        let commit = stored.commit(self.lineage)?.ok_or_else(no_commit)?;
        is_asked_for(commit.header(), &(*line, seq))?;
        Ok(Some(commit))
    }

    /// A commit's record.
    fn stored(&self, writer: &WriterId, seq: u64) -> Result<Option<log::StoredRecord>, StoreError> {
        let Some(arrival) = self.arrival(writer, seq)? else { return Ok(None) };
        if let Found::Record(stored) = log::read(&*self.store, arrival)? {
            return Ok(Some(stored));
        }
        // It may have moved since its place was looked up. Nothing moves while this is held.
        let _reading = self.reading()?;
        let Some(arrival) = self.arrival(writer, seq)? else { return Ok(None) };
        let Found::Record(stored) = log::read(&*self.store, arrival)? else { return Err(broken(arrival)) };
        Ok(Some(stored))
    }

    /// Where a commit is in the log.
    pub(super) fn arrival(&self, writer: &WriterId, seq: u64) -> Result<Option<u64>, StoreError> {
        let index = layout::seq_index(writer, seq);
        let mut found = self.store.get(&index)?;
        if found.is_none() && !writer.epoch.is_branch() {
            let key = layout::line_key(writer);
            let line = self.store.get(&key)?.and_then(|line| layout::decode_line(&key, &line));
            if line.is_some_and(|(_, line)| line.head.seq >= seq) {
                // The index row is put before the line, so it is there by now, unless the store has lost it: the commit may have
                // been taken in between the first look and the line.
                found = self.store.get(&index)?;
                if found.is_none() {
                    return Err(StoreError::Corrupt(format!("commit {seq} of {writer} is not in its index")));
                }
            }
        }
        Ok(found.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    }

    /// The first bytes of a commit's hash, as tokens name it; none where it isn't here.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn token_hash(&self, writer: &WriterId, seq: u64) -> Result<Option<[u8; 4]>, StoreError> {
        let commit = self.commit(writer, seq)?;
        Ok(commit.map(|commit| Token::new(commit.writer(), seq, commit.hash()).hash))
    }

    /// A frame as a peer with `tags` may have it, or the tags that are missing here or no longer registered.
    fn frame_for(
        &self,
        stored: &log::StoredRecord,
        wanted: &(WriterId, u64),
        tags: &TagSet,
    ) -> Result<Result<Vec<u8>, Vec<anabranch_protocol::id::Tag>>, StoreError> {
        // Looked at for each frame: what is unregistered leaves no more from then on.
        let ours = self.registered.now();
        if let (true, TagSet::All, TagSet::All, Some(frame)) = (stored.is_whole(), tags, &ours.tags, stored.frame()) {
            let header = Header::in_frame(frame).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            is_asked_for(&header, wanted)?;
            return Ok(Ok(frame.to_vec()));
        }
        let commit = stored.commit(self.lineage)?.ok_or_else(no_commit)?;
        is_asked_for(commit.header(), wanted)?;
        let missing = commit.unservable(tags, &ours.tags);
        Ok(if missing.is_empty() { Ok(commit.bytes_for(tags)) } else { Err(missing) })
    }

    /// Bytes on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

/// Whether a row of the index led to what it is for. It has no checksum, and with a flipped bit it may lead to another record,
/// which is whole.
fn is_asked_for(header: &Header, (line, seq): &(WriterId, u64)) -> Result<(), StoreError> {
    let writer = header.writer();
    let of_line = writer == *line || (line.epoch.is_branch() && writer.peer == line.peer);
    if of_line && header.seq == *seq {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("the index of commit {seq} of {line} names another one")))
}

fn no_commit() -> StoreError {
    StoreError::Corrupt("an index row names no commit".to_owned())
}

fn broken(arrival: u64) -> StoreError {
    StoreError::Corrupt(format!("log record {arrival} is missing or broken"))
}

/// Rows of a turn are being applied.
pub(super) struct Applying<'a>(RwLockWriteGuard<'a, bool>);

impl Applying<'_> {
    /// All of them are there.
    pub fn done(&mut self) {
        *self.0 = true;
    }
}

impl Rows for View {
    type Error = StoreError;
    fn row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, StoreError> {
        self.noting(self.load_row(collection, key))
    }
    fn above(&self, collection: &Collection, floor: &Floor) -> Result<Tally, StoreError> {
        self.noting(count_above(&*self.store, RowHasher::new(&self.dataset, collection), collection, floor))
    }
    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, StoreError> {
        Ok(Self::commit(self, line, seq)?.map(|commit| Line::of(&commit)))
    }
    fn remembered(&self, key: &KeyHash) -> Result<Option<Remembered>, StoreError> {
        self.noting(self.load_remembered(key))
    }
}

/// A listing in the making.
struct PageOfDocuments {
    documents: Vec<Document>,
    limit: usize,
    bytes: usize,
    more: bool,
}

impl PageOfDocuments {
    fn new(limit: usize) -> Self {
        Self { documents: Vec::new(), limit, bytes: 0, more: false }
    }

    fn push(&mut self, document: Document) -> ControlFlow<()> {
        let full = self.documents.len() >= self.limit || self.bytes + document.value.len() > LISTING_BYTES_MAX;
        // The next page begins after the last key: records of two branches under one key stay together.
        if full && self.documents.last().is_some_and(|last| last.key != document.key) {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.bytes += document.value.len();
        self.documents.push(document);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Listing {
        let next = self.documents.last().filter(|_| self.more).map(|document| document.key.to_string());
        Listing { documents: self.documents, next }
    }
}

/// The records of a collection in a log record, in key order.
fn records_of(record: &Record, collection: &Collection, local_writer: WriterId) -> Vec<Document> {
    let mut documents = Vec::new();
    if let Some(commit) = &record.commit {
        for section in commit.sections().filter(|section| section.collection == *collection) {
            for entry in &section.entries {
                push_record(&mut documents, commit_stamp(commit, entry.index), &entry.change);
            }
        }
    }
    if let Some(local) = &record.local {
        for (_, entry) in local.entries.iter().filter(|(named, _)| named == collection) {
            push_record(&mut documents, Stamp { hlc: local.hlc, writer: local_writer, index: entry.index }, &entry.change);
        }
    }
    documents
}

fn commit_stamp(commit: &Commit, index: u32) -> Stamp {
    Stamp { hlc: commit.header().hlc, writer: commit.writer(), index }
}

fn push_record(documents: &mut Vec<Document>, stamp: Stamp, change: &Change) {
    if let Change::Append { value } = change {
        documents.push(Document { key: record_key(&stamp), value: value.clone(), stamp });
    }
}

/// Index rows of a log record in an append dataset: where the records of each collection are found by key.
pub(super) fn record_index_keys(record: &Record, local_writer: WriterId) -> Vec<Vec<u8>> {
    let local = local_index_keys(record, local_writer).into_values();
    commit_index_keys(record).into_iter().chain(local).collect()
}

/// Those of the record's commit.
pub(super) fn commit_index_keys(record: &Record) -> Vec<Vec<u8>> {
    let Some(commit) = &record.commit else { return Vec::new() };
    let prefix = record_key_prefix(&commit_stamp(commit, 0));
    commit.sections().map(|section| layout::record_index(&section.collection, &prefix)).collect()
}

/// Those of what the record keeps local, by collection.
pub(super) fn local_index_keys(record: &Record, local_writer: WriterId) -> BTreeMap<Collection, Vec<u8>> {
    let Some(local) = &record.local else { return BTreeMap::new() };
    let prefix = record_key_prefix(&Stamp { hlc: local.hlc, writer: local_writer, index: 0 });
    let records = local.entries.iter().filter(|(_, entry)| layout::is_record(entry));
    records.map(|(collection, _)| (collection.clone(), layout::record_index(collection, &prefix))).collect()
}

/// The writer that stamps rows which don't replicate.
pub(super) fn local_writer(peer: PeerId) -> WriterId {
    WriterId { peer, epoch: Epoch::ZERO }
}
