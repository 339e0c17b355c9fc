//! Fences: up to where the commits of a peer that may no longer write stay valid.
//!
//! Taking a peer out of `writers` must not take back what it wrote, also not for a node that joins later and has nothing of it
//! yet. So whoever may write and holds commits of such a peer says, in a document of the reserved collection, where each of its
//! lines ends here. A line's fence is the greatest of all that count; up to it commits are admitted on every path, past it they are
//! refused. A fence counts only if who set it wrote it itself and is among the `writers`: a removed peer can't set its own, and
//! neither can one that nobody trusts to write.
//!
//! ```text
//! key   = fence/REMOVED PEER/PEER THAT SETS IT
//! value = {"lines": {EPOCH: {"hash": hex of the commit's hash, "seq": number}, …}}
//! ```

use std::collections::BTreeMap;

use crate::access::Peers;
use crate::conflict::{ConflictPolicy as _, LastWriterWins, Row};
use crate::id::{Collection, Epoch, Hash, Key, PeerId, WriterId};
use crate::limits::{SEQ_MAX, VECTOR_WRITERS_MAX};
use crate::registration::CONTROL_COLLECTION;
use crate::replica::Line;
use crate::value::{self, MapKey, Value};

/// What keys of fences begin with.
pub const FENCE_KEYS: &str = "fence/";

/// Where a line ends: a number and the hash of the commit that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Post {
    /// The last number that counts.
    pub seq: u64,
    /// The commit's hash: the chain has to lead there.
    pub hash: Hash,
}

/// What one peer says of the lines of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence(pub BTreeMap<Epoch, Post>);

/// All fences of a dataset that count here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fences {
    /// The newest state of each document; a deleted or malformed one has no fence.
    documents: BTreeMap<(PeerId, PeerId), (Row, Fence)>,
    /// Of each line, every post that some fence names.
    posts: BTreeMap<WriterId, BTreeMap<Post, usize>>,
}

/// What a fence says of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// It lies within.
    Within,
    /// It has the number of a post, and another hash: this chain does not lead to the fence.
    AnotherChain,
    /// It lies beyond, or no fence knows the line.
    Beyond,
}

impl Fence {
    /// As it is written.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let line = |(epoch, post): (&Epoch, &Post)| {
            let hash = Value::Text(data_encoding::HEXLOWER.encode(&post.hash.0));
            let post = [(MapKey("seq".to_owned()), Value::Integer(i128::from(post.seq))), (MapKey("hash".to_owned()), hash)];
            (MapKey(epoch.to_string()), Value::Map(post.into()))
        };
        Value::Map([(MapKey("lines".to_owned()), Value::Map(self.0.iter().map(line).collect()))].into())
    }

    /// Reads what [`Fence::to_value`] wrote, and nothing else: what it does not know it must not half believe.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        let lines = fields(value, ["lines"])?[0];
        let Value::Map(lines) = lines else { return None };
        if lines.len() > VECTOR_WRITERS_MAX {
            return None;
        }
        lines.iter().map(|(epoch, post)| Some((epoch.0.parse().ok()?, Post::from_value(post)?))).collect::<Option<_>>().map(Self)
    }
}

impl Post {
    fn from_value(value: &Value) -> Option<Self> {
        let [seq, hash] = fields(value, ["seq", "hash"])?;
        let (Value::Integer(seq), Value::Text(hash)) = (seq, hash) else { return None };
        let seq = u64::try_from(*seq).ok().filter(|seq| (1..=SEQ_MAX).contains(seq))?;
        let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
        Some(Self { seq, hash: Hash(hash.try_into().ok()?) })
    }
}

/// The fields of an object that has these and no others.
fn fields<'a, const N: usize>(value: &'a Value, names: [&str; N]) -> Option<[&'a Value; N]> {
    let Value::Map(map) = value else { return None };
    let found = names.map(|name| map.get(&MapKey(name.to_owned())));
    let all = map.len() == N && found.iter().all(Option::is_some);
    all.then(|| found.map(|field| field.expect("each is there")))
}

/// The key of the fence that `by` sets for `removed`.
#[must_use]
pub fn key(removed: &PeerId, by: &PeerId) -> Key {
    Key::new(&format!("{FENCE_KEYS}{removed}/{by}")).expect("two peer ids fit a key")
}

/// For whom, and by whom, the fence with this key is.
#[must_use]
pub fn parse_key(key: &Key) -> Option<(PeerId, PeerId)> {
    let (removed, by) = key.as_str().strip_prefix(FENCE_KEYS)?.split_once('/')?;
    Some((removed.parse().ok()?, by.parse().ok()?))
}

/// The reserved collection.
#[must_use]
pub fn control_collection() -> Collection {
    Collection::new(CONTROL_COLLECTION).expect("a fixed, valid name")
}

impl Fences {
    /// Takes in the state of a document of the reserved collection, as the conflict policy joins it with what is known; whether
    /// it changed a fence that counts.
    pub fn take_in(&mut self, key: &Key, row: Row, writers: &Peers) -> bool {
        let Some(place @ (removed, by)) = parse_key(key) else { return false };
        // Where everybody may write nobody is fenced, and what other peers say of a fence is no fence.
        let counts = *writers != Peers::All && by != removed && writers.contains(&by) && row.stamp.writer.peer == by;
        if !counts {
            return false;
        }
        let known = self.documents.remove(&place);
        let row = match &known {
            Some((known, _)) => LastWriterWins.join(known.clone(), row),
            None => row,
        };
        let read = |bytes: &Vec<u8>| value::decode(bytes).ok().and_then(|value| Fence::from_value(&value));
        let fence = row.value.as_ref().and_then(read).unwrap_or_default();
        let before = known.map(|(_, fence)| fence).unwrap_or_default();
        let changed = before != fence;
        self.count(&removed, &before, false);
        self.count(&removed, &fence, true);
        self.documents.insert(place, (row, fence));
        changed
    }

    fn count(&mut self, removed: &PeerId, fence: &Fence, add: bool) {
        for (epoch, post) in &fence.0 {
            let writer = WriterId { peer: *removed, epoch: *epoch };
            let posts = self.posts.entry(writer).or_default();
            let named = posts.entry(*post).or_default();
            *named = if add { *named + 1 } else { named.saturating_sub(1) };
            posts.retain(|_, named| *named > 0);
            if posts.is_empty() {
                self.posts.remove(&writer);
            }
        }
    }

    /// The last number of a line that counts; 0 where no fence knows it.
    #[must_use]
    pub fn end(&self, writer: &WriterId) -> u64 {
        self.posts.get(writer).and_then(|posts| posts.last_key_value()).map_or(0, |(post, _)| post.seq)
    }

    /// What the fences say of a commit of a peer that may not write.
    #[must_use]
    pub fn judge(&self, writer: &WriterId, seq: u64, hash: &Hash) -> Fenced {
        if seq > self.end(writer) {
            return Fenced::Beyond;
        }
        let Some(posts) = self.posts.get(writer) else { return Fenced::Beyond };
        let mut here = posts.keys().filter(|post| post.seq == seq).peekable();
        if here.peek().is_none() || here.any(|post| post.hash == *hash) { Fenced::Within } else { Fenced::AnotherChain }
    }

    /// Whether commits of `writer` from `seq` on may be asked for.
    #[must_use]
    pub fn admits(&self, writers: &Peers, writer: &WriterId, seq: u64) -> bool {
        writers.contains(&writer.peer) || seq <= self.end(writer)
    }

    /// The fences that `me`, who may write, has to set: for every peer that may not and of whose lines more is held here than
    /// the fences know, all its lines. Nothing once they are set.
    #[must_use]
    pub fn to_set(&self, me: &PeerId, writers: &Peers, lines: &BTreeMap<WriterId, Line>) -> Vec<(Key, Fence)> {
        if *writers == Peers::All || !writers.contains(me) {
            return Vec::new();
        }
        let mut held: BTreeMap<PeerId, Fence> = BTreeMap::new();
        let mut wanting = Vec::new();
        for (writer, line) in lines.iter().filter(|(writer, _)| !writers.contains(&writer.peer)) {
            let post = Post { seq: line.head.seq, hash: line.hash };
            held.entry(writer.peer).or_default().0.insert(writer.epoch, post);
            let ahead = post.seq > self.end(writer) || self.judge(writer, post.seq, &post.hash) != Fenced::Within;
            if ahead && !wanting.contains(&writer.peer) {
                wanting.push(writer.peer);
            }
        }
        wanting.iter().filter_map(|peer| Some((key(peer, me), held.remove(peer)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflict::Stamp;
    use crate::hlc::Hlc;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn fence(seq: u64, hash: u8) -> Fence {
        Fence([(Epoch([7; 16]), Post { seq, hash: Hash([hash; 32]) })].into())
    }

    fn row(by: u8, hlc: u64, value: Option<Vec<u8>>) -> Row {
        Row::new(Stamp { hlc: Hlc(hlc), writer: WriterId { peer: peer(by), epoch: Epoch([1; 16]) }, index: 0 }, value)
    }

    fn set(fences: &mut Fences, removed: u8, by: u8, hlc: u64, fence: &Fence) -> bool {
        let writers = Peers::Only([peer(1), peer(2)].into());
        fences.take_in(&key(&peer(removed), &peer(by)), row(by, hlc, Some(fence.to_value().encode())), &writers)
    }

    fn removed() -> WriterId {
        WriterId { peer: peer(9), epoch: Epoch([7; 16]) }
    }

    #[test]
    fn a_fence_reads_as_it_was_written_and_nothing_else_is_one() {
        let fence = fence(5, 3);
        assert_eq!(Fence::from_value(&fence.to_value()), Some(fence.clone()));
        assert_eq!(
            fence.to_value().to_json(),
            format!(r#"{{"lines":{{"0s3ge1o70s3ge1o70s3ge1o70s":{{"seq":5,"hash":"{}"}}}}}}"#, "03".repeat(32))
        );
        for bad in [
            "{}".to_owned(),
            r#"{"lines":{},"more":1}"#.to_owned(),
            r#"{"lines":{"x":{"seq":1,"hash":""}}}"#.to_owned(),
            fence.to_value().to_json().replace(":5,", ":0,"),
            fence.to_value().to_json().replace(":5,", ":281474976710657,"),
            fence.to_value().to_json().replace("\"hash", "\"hush"),
        ] {
            assert_eq!(Fence::from_value(&Value::from_json(bad.as_bytes()).unwrap()), None, "{bad}");
        }
        assert_eq!(parse_key(&key(&peer(9), &peer(1))), Some((peer(9), peer(1))));
        assert_eq!(parse_key(&Key::new("fence/x/y").unwrap()), None);
    }

    #[test]
    fn the_greatest_fence_counts_and_each_post_is_a_hash_on_the_way() {
        let mut fences = Fences::default();
        assert_eq!(fences.judge(&removed(), 1, &Hash::ZERO), Fenced::Beyond);
        assert!(set(&mut fences, 9, 1, 10, &fence(5, 5)) && set(&mut fences, 9, 2, 10, &fence(8, 8)));
        assert_eq!(fences.end(&removed()), 8);
        assert_eq!(fences.judge(&removed(), 4, &Hash([4; 32])), Fenced::Within);
        assert_eq!(fences.judge(&removed(), 5, &Hash([5; 32])), Fenced::Within);
        assert_eq!(fences.judge(&removed(), 5, &Hash([6; 32])), Fenced::AnotherChain);
        assert_eq!(fences.judge(&removed(), 8, &Hash([9; 32])), Fenced::AnotherChain);
        assert_eq!(fences.judge(&removed(), 9, &Hash([9; 32])), Fenced::Beyond);
    }

    #[test]
    fn only_who_may_write_sets_a_fence_and_only_its_own() {
        let mut fences = Fences::default();
        assert!(!set(&mut fences, 9, 9, 10, &fence(100, 1)), "the removed peer itself");
        assert!(!set(&mut fences, 9, 3, 10, &fence(100, 1)), "a peer that may not write");
        let writers = Peers::Only([peer(1), peer(2)].into());
        let forged = row(2, 99, Some(fence(100, 1).to_value().encode()));
        assert!(!fences.take_in(&key(&peer(9), &peer(1)), forged, &writers), "another writer under this key");
        assert_eq!(fences.end(&removed()), 0);
        assert!(!fences.take_in(&key(&peer(9), &peer(1)), row(1, 1, Some(fence(5, 5).to_value().encode())), &Peers::All));
    }

    #[test]
    fn documents_join_in_whatever_order_they_come() {
        let (mut one, mut other) = (Fences::default(), Fences::default());
        set(&mut one, 9, 1, 10, &fence(5, 5));
        set(&mut one, 9, 1, 20, &fence(7, 7));
        set(&mut other, 9, 1, 20, &fence(7, 7));
        assert!(!set(&mut other, 9, 1, 10, &fence(5, 5)), "an older state changes nothing");
        assert_eq!(one, other);
        assert_eq!(one.end(&removed()), 7);
        let writers = Peers::Only([peer(1)].into());
        assert!(one.take_in(&key(&peer(9), &peer(1)), row(1, 30, None), &writers), "deleted");
        assert_eq!(one.end(&removed()), 0);
    }
}
