//! For how long a peer and this node have lacked something of each other, by this node's own clock.
//!
//! Stamps alone can't tell: a peer that lacks one commit of a quiet dataset is as far behind after a day as after a second. So what the
//! further one had when the other fell behind is marked, and counts until the other has all of that. Under a steady load a peer that
//! keeps up reaches each mark within its delay, and one that stands still never does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::id::PeerId;
use anabranch_protocol::vector::VersionVector;
use tokio::time::Instant;

/// What is to be reached, and since when.
#[derive(Debug)]
struct Mark {
    since: Instant,
    of: Arc<VersionVector>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Late {
    peers: BTreeMap<PeerId, Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    peer_lacks: Option<Mark>,
    we_lack: Option<Mark>,
}

impl Late {
    /// We have more than before: whoever had everything may lack something now. Looked at when its vector is heard of.
    pub fn grown<'a>(&mut self, peers: impl Iterator<Item = &'a PeerId>, ours: &Arc<VersionVector>, now: Instant) {
        for peer in peers {
            let marks = self.peers.entry(*peer).or_default();
            marks.peer_lacks.get_or_insert_with(|| Mark { since: now, of: ours.clone() });
        }
    }

    /// For how long one of the two has lacked something, as both are known to stand now.
    pub fn waited(&mut self, peer: PeerId, theirs: &Arc<VersionVector>, ours: &Arc<VersionVector>, now: Instant) -> Duration {
        let marks = self.peers.entry(peer).or_default();
        look(&mut marks.peer_lacks, theirs, ours, now).max(look(&mut marks.we_lack, ours, theirs, now))
    }

    pub fn forget(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }
}

fn look(mark: &mut Option<Mark>, behind: &VersionVector, ahead: &Arc<VersionVector>, now: Instant) -> Duration {
    if mark.as_ref().is_some_and(|mark| behind.covers(&mark.of)) {
        *mark = None;
    }
    if mark.is_none() && !behind.covers(ahead) {
        *mark = Some(Mark { since: now, of: ahead.clone() });
    }
    mark.as_ref().map_or(Duration::ZERO, |mark| now.saturating_duration_since(mark.since))
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::commit::Identity;
    use anabranch_protocol::hlc::Hlc;
    use anabranch_protocol::id::{Epoch, ShortHash, WriterId};
    use anabranch_protocol::vector::Head;

    use super::*;

    fn at(seq: u64) -> Arc<VersionVector> {
        let writer = WriterId { peer: Identity::from_secret(&[1; 32]).peer(), epoch: Epoch([1; 16]) };
        let mut vector = VersionVector::default();
        vector.set(writer, Head { seq, hash: ShortHash([1; 8]), hlc: Hlc(seq) });
        Arc::new(vector)
    }

    #[test]
    fn who_stands_still_is_later_each_second_and_who_keeps_up_is_not() {
        let (peer, start) = (Identity::from_secret(&[2; 32]).peer(), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        let mut late = Late::default();
        assert_eq!(late.waited(peer, &at(1), &at(1), start), Duration::ZERO);
        late.grown([peer].iter(), &at(2), second(1));
        late.grown([peer].iter(), &at(3), second(2));
        assert_eq!(late.waited(peer, &at(1), &at(3), second(9)), Duration::from_secs(8), "since it lacked the first");
        // It never has everything, but it always has what there was a second ago.
        for now in 10..20 {
            assert!(late.waited(peer, &at(now - 1), &at(now), second(now)) <= Duration::from_secs(1), "at {now}");
        }
        assert_eq!(late.waited(peer, &at(20), &at(20), second(20)), Duration::ZERO);
    }

    #[test]
    fn what_we_lack_counts_as_well_until_we_have_it() {
        let (peer, start) = (Identity::from_secret(&[2; 32]).peer(), Instant::now());
        let mut late = Late::default();
        late.waited(peer, &at(5), &at(1), start);
        let later = start + Duration::from_secs(7);
        assert_eq!(late.waited(peer, &at(5), &at(4), later), Duration::from_secs(7));
        assert_eq!(late.waited(peer, &at(5), &at(5), later), Duration::ZERO);
        late.forget(peer);
        assert!(late.peers.is_empty());
    }
}
