//! Frames on their way in: decoded and verified off the actor's thread, then handed to the oplog.

use actix::Addr;
use anabranch_protocol::commit::{Commit, FrameFault};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Lineage, WriterId};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::super::oplog::chores::Widen;
use super::super::oplog::{Oplog, Receive, Received};
use crate::runtime::Blocking;

/// Why frames of a peer were not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// The peer sent something that no writer made.
    #[error("the peer sent a bad commit: {0}")]
    Frame(FrameFault),
    /// The dataset is going down.
    #[error("the dataset is not running")]
    Down,
}

/// What a message of frames comes to.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Good commits, in the order in which they came, each writer's up to its first bad frame.
    pub commits: Vec<Commit>,
    /// The first fault of each writer, and of frames that name none.
    pub faults: Vec<FrameFault>,
}

/// Up to this many frames of together [`INLINE_BYTES_MAX`] are verified where they arrive: a signature takes 40 µs, a thread for
/// it takes longer.
const INLINE_FRAMES_MAX: usize = 4;
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Faults in one message: past it nothing more of the message is looked at.
const FAULTS_MAX: usize = 16;

/// Verifies frames. A bad one costs only itself and what would leave a gap after it.
pub(super) async fn verify(
    frames: Vec<ByteBuf>,
    dataset: DatasetId,
    lineage: Lineage,
    blocking: Blocking,
) -> Result<Opened, IntakeError> {
    let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
    if frames.len() <= INLINE_FRAMES_MAX && bytes <= INLINE_BYTES_MAX {
        return Ok(verify_all(&frames, &dataset, lineage));
    }
    let verified = blocking.run(move || verify_all(&frames, &dataset, lineage));
    verified.await.map_err(|_| IntakeError::Down)
}

fn verify_all(frames: &[ByteBuf], dataset: &DatasetId, lineage: Lineage) -> Opened {
    let mut opened = Opened::default();
    for frame in frames {
        match Commit::open(frame, dataset, lineage) {
            Ok(commit) if opened.faults.iter().all(|fault| fault.writer() != Some(commit.writer())) => {
                opened.commits.push(commit);
            }
            Ok(_) => {}
            Err(fault) => {
                let known = opened.faults.iter().any(|other| other.writer() == fault.writer());
                if !known {
                    opened.faults.push(fault);
                }
                if opened.faults.len() >= FAULTS_MAX {
                    break;
                }
            }
        }
    }
    opened
}

/// What a commit is, once it was handed on.
pub(super) fn summary(commits: &[Commit]) -> Vec<(WriterId, u64, Hlc)> {
    commits.iter().map(|commit| (commit.writer(), commit.header().seq, commit.header().hlc)).collect()
}

/// Hands verified commits to the oplog; the returned receiver resolves after its barrier.
pub(super) fn hand_over(
    oplog: &Addr<Oplog>,
    commits: Vec<Commit>,
) -> oneshot::Receiver<Result<Received, crate::store::StoreError>> {
    let (reply, received) = oneshot::channel();
    oplog.do_send(Receive { commits, proofs: Vec::new(), reply });
    received
}

/// Hands copies of commits that are here to the oplog, for the sections they bring.
pub(super) fn hand_over_past(
    oplog: &Addr<Oplog>,
    commits: Vec<Commit>,
) -> oneshot::Receiver<Result<Received, crate::store::StoreError>> {
    let (reply, received) = oneshot::channel();
    oplog.do_send(Widen { commits, before: (Vec::new(), 0), reply });
    received
}

/// Waits for the oplog's verdicts.
pub(super) async fn verdicts(
    received: oneshot::Receiver<Result<Received, crate::store::StoreError>>,
) -> Result<Received, IntakeError> {
    received.await.map_err(|_| IntakeError::Down)?.map_err(|_| IntakeError::Down)
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::commit::{Change, Draft, Entry, Identity};
    use anabranch_protocol::id::{Collection, Epoch, Hash, Key, Salt};
    use proptest::prelude::*;

    use super::*;

    fn frame(writer: u8, seq: u64) -> Vec<u8> {
        let entry = Entry { index: 0, change: Change::Put { key: Key::new("k").unwrap(), value: vec![0] } };
        let draft = Draft {
            dataset: &DatasetId::primary(),
            lineage: Lineage::ZERO,
            epoch: Epoch([writer; 16]),
            seq,
            previous: if seq == 1 { Hash::ZERO } else { Hash([9; 32]) },
            parent: None,
            hlc: Hlc(seq),
            sections: vec![(Collection::new("c").unwrap(), Salt::ZERO, vec![entry])],
        };
        draft.seal(&Identity::from_secret(&[writer; 32])).to_bytes()
    }

    /// What is done to a frame on its way.
    #[derive(Debug, Clone, Copy)]
    enum Harm {
        None,
        /// Its last byte, which a digest covers, or the signature's.
        Flip,
        Cut,
    }

    fn harm() -> impl Strategy<Value = Harm> {
        prop_oneof![6 => Just(Harm::None), 1 => Just(Harm::Flip), 1 => Just(Harm::Cut)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        /// Each writer's good frames up to its first bad one are taken in, in order; other writers lose nothing.
        #[test]
        fn a_bad_frame_costs_only_its_writer(order in proptest::collection::vec((0_u8..4, harm()), 0..12)) {
            let (mut seqs, mut broken) = ([0_u64; 4], [false; 4]);
            let (mut frames, mut expected, mut nameless) = (Vec::new(), Vec::new(), false);
            for (writer, harm) in order {
                let at = usize::from(writer);
                seqs[at] += 1;
                let mut bytes = frame(writer + 1, seqs[at]);
                match harm {
                    Harm::None if !broken[at] => expected.push((writer + 1, seqs[at])),
                    Harm::None => {}
                    Harm::Flip => {
                        *bytes.last_mut().unwrap() ^= 1;
                        broken[at] = true;
                    }
                    // Nothing in it can be read: it names no writer.
                    Harm::Cut => {
                        bytes.truncate(40);
                        nameless = true;
                    }
                }
                frames.push(ByteBuf::from(bytes));
            }
            let opened = verify_all(&frames, &DatasetId::primary(), Lineage::ZERO);
            let taken: Vec<(u8, u64)> =
                opened.commits.iter().map(|commit| (commit.writer().epoch.0[0], commit.header().seq)).collect();
            prop_assert_eq!(taken, expected);
            let blamed = broken.iter().filter(|broken| **broken).count() + usize::from(nameless);
            prop_assert_eq!(opened.faults.len(), blamed);
            prop_assert!(opened.faults.iter().all(FrameFault::blames_sender));
        }
    }

    #[test]
    fn a_message_of_nothing_but_faults_is_not_read_to_its_end() {
        let frames: Vec<ByteBuf> = (1..=100)
            .map(|writer| {
                ByteBuf::from({
                    let mut bytes = frame(writer, 1);
                    *bytes.last_mut().unwrap() ^= 1;
                    bytes
                })
            })
            .chain([ByteBuf::from(frame(200, 1))])
            .collect();
        let opened = verify_all(&frames, &DatasetId::primary(), Lineage::ZERO);
        assert_eq!((opened.commits.len(), opened.faults.len()), (0, FAULTS_MAX));
    }
}
