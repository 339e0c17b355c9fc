//! What travels: the protocol's own messages, shared in memory instead of copied, each with the size of its real encoding.
//!
//! A frame or a statement that a thousand nodes get is one object here. Whoever gets it first decodes it and verifies its signature,
//! as every node would; the others find that done. All else is the protocol's rules, for each node anew.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Commit, FrameFault};
use anabranch_protocol::confirmation::{ConfirmationError, SignedStatement, Statement};
use anabranch_protocol::id::{DatasetId, Lineage, ShortHash};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{
    Announce, Confirm, Heads, HeadsReply, Hello, HelloReply, Page, Pull, Push, Refusal, RefusalCode, Request, Response, Round,
};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::node_set::NodeSet;

/// Kinds of messages, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `hello` and its answer.
    Hello,
    /// `round` and its answer.
    Round,
    /// `heads` and its answer.
    Heads,
    /// `push`: fresh commits.
    Push,
    /// `pushed`: a signed statement.
    Pushed,
    /// `pull`, and refusals of one.
    Pull,
    /// `page`: commits that were asked for.
    Page,
    /// `confirm`: statements, relayed ones among them, and `confirmed`.
    Confirm,
    /// Announcements by gossip.
    Announce,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] =
        [Self::Hello, Self::Round, Self::Heads, Self::Push, Self::Pushed, Self::Pull, Self::Page, Self::Confirm, Self::Announce];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Round => "round",
            Self::Heads => "heads",
            Self::Push => "push",
            Self::Pushed => "pushed",
            Self::Pull => "pull",
            Self::Page => "page",
            Self::Confirm => "confirm",
            Self::Announce => "announce",
        }
    }
}

/// A message on its way.
#[derive(Debug)]
pub(super) enum Message {
    /// By request-response or on the bulk stream.
    Direct(Box<Direct>),
    /// By gossip.
    Gossip(Rc<Announcement>),
}

#[derive(Debug)]
pub(super) enum Direct {
    Hello(Rc<Hello>),
    HelloReply(Rc<HelloReply>),
    Round(ShortHash),
    RoundReply(ShortHash),
    /// About the dataset with this index.
    About(usize, Body),
}

/// A message about one dataset.
#[derive(Debug)]
pub(super) enum Body {
    Heads(ShortHash),
    HeadsReply(Option<Rc<VersionVector>>),
    Push(Rc<[Rc<Frame>]>),
    Pushed {
        statement: Rc<Stated>,
        complete: bool,
    },
    Pull {
        wants: Vec<Want>,
        bytes_max: u64,
    },
    Page {
        frames: Vec<Rc<Frame>>,
        more: bool,
    },
    /// To a pull: too many pages are being read.
    Busy,
    Confirm(Statements),
    Confirmed,
}

/// A commit's frame.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: ByteBuf,
    opened: OnceCell<Commit>,
}

impl Frame {
    /// The frame of a commit that was just made. Its writer's own copy is not what others see: they open the bytes.
    pub fn of(commit: &Commit) -> Rc<Self> {
        Rc::new(Self { bytes: ByteBuf::from(commit.to_bytes()), opened: OnceCell::new() })
    }

    /// The commit, decoded and verified by whoever asks first.
    ///
    /// # Errors
    /// What is wrong with the frame.
    pub fn open(&self, dataset: &DatasetId, lineage: Lineage) -> Result<&Commit, FrameFault> {
        if let Some(commit) = self.opened.get() {
            return Ok(commit);
        }
        let commit = Commit::open(&self.bytes, dataset, lineage)?;
        Ok(self.opened.get_or_init(|| commit))
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A peer's statement.
#[derive(Debug)]
pub(super) struct Stated {
    /// Whose.
    pub about: u32,
    pub statement: Statement,
    /// Of the statement's vector.
    pub digest: ShortHash,
    /// As an item of a `confirm`, bytes.
    size: usize,
    /// Kept until somebody verified it.
    signed: RefCell<Option<SignedStatement>>,
    good: Cell<bool>,
}

impl Stated {
    pub fn new(about: u32, statement: Statement, digest: ShortHash, signed: SignedStatement) -> Rc<Self> {
        let size = codec::encoded_len(&signed);
        Rc::new(Self { about, statement, digest, size, signed: RefCell::new(Some(signed)), good: Cell::new(false) })
    }

    /// Whether its peer signed it; looked at by whoever asks first.
    pub fn holds(&self, dataset: &DatasetId, lineage: Lineage) -> bool {
        if let Some(signed) = self.signed.take() {
            let read: Result<Statement, ConfirmationError> = signed.verify(dataset, lineage);
            self.good.set(read.as_ref() == Ok(&self.statement));
        }
        self.good.get()
    }
}

/// The statements of one `confirm`: the sender's own, then relayed ones, a list that all its peers share; of it nobody gets the one
/// about itself.
#[derive(Debug)]
pub(super) struct Statements {
    own: Option<Rc<Stated>>,
    relayed: Rc<[Rc<Stated>]>,
    left_out: Option<usize>,
    most: usize,
}

impl Statements {
    /// For `peer`, at most `most` of the relayed ones, which are in the order of their peers.
    pub fn for_peer(peer: u32, own: Option<Rc<Stated>>, relayed: &Rc<[Rc<Stated>]>, most: usize) -> Self {
        let left_out = relayed.binary_search_by_key(&peer, |stated| stated.about).ok();
        Self { own, relayed: relayed.clone(), left_out, most }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Stated>> {
        let kept = self.relayed.iter().enumerate().filter(|(index, _)| Some(*index) != self.left_out);
        self.own.iter().chain(kept.map(|(_, stated)| stated).take(self.most))
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// An announcement, and which nodes saw it: gossip hands each one on once.
#[derive(Debug)]
pub(super) struct Announcement {
    pub dataset: usize,
    pub origin: u32,
    pub digest: ShortHash,
    pub heads: VersionVector,
    /// Bytes.
    pub size: usize,
    seen: RefCell<NodeSet>,
}

impl Announcement {
    pub fn new(dataset: usize, origin: u32, announce: Announce) -> Rc<Self> {
        let size = announce.encode().len();
        let mut seen = NodeSet::default();
        seen.insert(origin);
        let Announce { digest, heads, .. } = announce;
        Rc::new(Self { dataset, origin, digest, heads, size, seen: RefCell::new(seen) })
    }

    /// Notes that `node` has it; whether it had not before.
    pub fn first_seen_by(&self, node: u32) -> bool {
        self.seen.borrow_mut().insert(node)
    }
}

impl Direct {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) | Self::HelloReply(_) => Kind::Hello,
            Self::Round(_) | Self::RoundReply(_) => Kind::Round,
            Self::About(_, body) => match body {
                Body::Heads(_) | Body::HeadsReply(_) => Kind::Heads,
                Body::Push(_) => Kind::Push,
                Body::Pushed { .. } => Kind::Pushed,
                Body::Pull { .. } | Body::Busy => Kind::Pull,
                Body::Page { .. } => Kind::Page,
                Body::Confirm(_) | Body::Confirmed => Kind::Confirm,
            },
        }
    }

    /// Bytes of the real encoding, with the datasets' names.
    pub fn size(&self, datasets: &[DatasetId]) -> usize {
        match self {
            Self::Hello(hello) => codec::encoded_len(&Request::Hello((**hello).clone())),
            Self::HelloReply(reply) => codec::encoded_len(&Response::Hello((**reply).clone())),
            Self::Round(digest) => codec::encoded_len(&Request::Round(Round { digest: *digest })),
            Self::RoundReply(digest) => codec::encoded_len(&Response::Round(Round { digest: *digest })),
            Self::About(index, body) => body.size(datasets[*index].to_wire()),
        }
    }
}

impl Body {
    fn size(&self, dataset: Option<DatasetId>) -> usize {
        match self {
            Self::Heads(digest) => codec::encoded_len(&Request::Heads(Heads { dataset, digest: *digest })),
            Self::HeadsReply(heads) => {
                let heads = heads.as_ref().map(|heads| (**heads).clone());
                codec::encoded_len(&Response::Heads(HeadsReply { dataset, heads, held: Vec::new(), forks: Vec::new() }))
            }
            Self::Push(frames) => codec::encoded_len(&Request::Push(Push { dataset, frames: bytes_of(frames) })),
            Self::Pushed { statement, complete } => pushed_size(dataset, statement, *complete),
            Self::Pull { wants, bytes_max } => {
                let (registration, wants) = (Registration::all(), wants.clone());
                codec::encoded_len(&Request::Pull(Pull { dataset, registration, wants, bytes_max: *bytes_max }))
            }
            Self::Page { frames, more } => {
                let (frames, incomplete) = (bytes_of(frames), Vec::new());
                codec::encoded_len(&Response::Page(Page { dataset, frames, more: *more, incomplete }))
            }
            Self::Busy => {
                codec::encoded_len(&Response::Refused(Refusal::new(RefusalCode::Busy, "too many pages are being read")))
            }
            Self::Confirm(statements) => confirm_size(dataset, statements.iter().map(|stated| stated.size)),
            Self::Confirmed => codec::encoded_len(&Response::Confirmed),
        }
    }
}

fn bytes_of(frames: &[Rc<Frame>]) -> Vec<ByteBuf> {
    frames.iter().map(|frame| frame.bytes.clone()).collect()
}

/// What a `confirm` weighs whose statements weigh that: encoding a quarter of a megabyte each time would be most of the work.
fn confirm_size(dataset: Option<DatasetId>, sizes: impl Iterator<Item = usize>) -> usize {
    let around = codec::encoded_len(&Request::Confirm(Confirm { dataset, statements: Vec::new() }));
    let (count, bytes) = sizes.fold((0_usize, 0), |(count, bytes), size| (count + 1, bytes + size));
    around + bytes + longer_head(count)
}

/// By how much the head of a list of so many items is longer than that of an empty one.
fn longer_head(count: usize) -> usize {
    match count {
        0..24 => 0,
        24..256 => 1,
        256..65_536 => 2,
        _ => 4,
    }
}

/// As above: the statement in the middle is known.
fn pushed_size(dataset: Option<DatasetId>, statement: &Stated, complete: bool) -> usize {
    #[derive(Serialize)]
    struct Answer<'a> {
        pushed: Around<'a>,
    }
    #[derive(Serialize)]
    struct Around<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        d: &'a Option<DatasetId>,
        c: bool,
        o: bool,
    }
    // A boolean takes one byte, and the statement stands where `c` is.
    codec::encoded_len(&Answer { pushed: Around { d: &dataset, c: false, o: complete } }) - 1 + statement.size
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::commit::Identity;
    use anabranch_protocol::hlc::Hlc;
    use anabranch_protocol::id::{Epoch, Incarnation, PeerId, WriterId};
    use anabranch_protocol::vector::Head;
    use anabranch_protocol::wire::Pushed;

    use super::*;

    fn signed(about: u8, heads: u8) -> (Statement, SignedStatement) {
        let head = |n: u8| {
            let writer = WriterId { peer: PeerId([n; 32]), epoch: Epoch([n; 16]) };
            (writer, Head { seq: u64::from(n) * 40, hlc: Hlc(1 << 60), hash: ShortHash([n; 8]) })
        };
        let identity = Identity::from_secret(&[about; 32]);
        let statement = Statement {
            dataset: None,
            peer: identity.peer(),
            incarnation: Incarnation([about; 16]),
            counter: 1 << 40,
            registration: Registration::all(),
            vector: (1..=heads).map(head).collect(),
        };
        let signed = SignedStatement::sign(&statement, Lineage::ZERO, &identity);
        (statement, signed)
    }

    #[test]
    fn sizes_that_are_summed_up_are_those_of_the_real_encoding() {
        for dataset in [DatasetId::primary(), DatasetId::new("telemetry").unwrap()] {
            for count in [0_u16, 1, 23, 24, 255, 256, 257] {
                let all: Vec<_> = (0..count).map(|n| signed(u8::try_from(n % 250).unwrap() + 1, 3)).collect();
                let stated: Rc<[Rc<Stated>]> = all
                    .iter()
                    .map(|(statement, signed)| Stated::new(9, statement.clone(), ShortHash([0; 8]), signed.clone()))
                    .collect();
                let body = Body::Confirm(Statements::for_peer(1, None, &stated, 300));
                let statements = all.into_iter().map(|(_, signed)| signed).collect();
                let real = Request::Confirm(Confirm { dataset: dataset.to_wire(), statements }).encode().len();
                assert_eq!(body.size(dataset.to_wire()), real, "{count} statements of {dataset}");
            }
            let (statement, confirmation) = signed(1, 30);
            let stated = Stated::new(1, statement, ShortHash([0; 8]), confirmation.clone());
            let pushed = Pushed { dataset: dataset.to_wire(), confirmation, complete: true, held: Vec::new() };
            let body = Body::Pushed { statement: stated, complete: true };
            assert_eq!(body.size(dataset.to_wire()), Response::Pushed(pushed).encode().len());
        }
    }

    #[test]
    fn nobody_gets_the_statement_about_itself_and_nobody_more_than_the_most() {
        let stated = |about: u8| {
            let (statement, signed) = signed(about, 1);
            Stated::new(u32::from(about), statement, ShortHash([0; 8]), signed)
        };
        let relayed: Rc<[Rc<Stated>]> = [1, 3, 5, 7].map(stated).into();
        let gets = |peer: u32, most| -> Vec<u32> {
            Statements::for_peer(peer, Some(stated(9)), &relayed, most).iter().map(|stated| stated.about).collect()
        };
        assert_eq!(gets(3, 4), [9, 1, 5, 7]);
        assert_eq!(gets(2, 3), [9, 1, 3, 5]);
        assert_eq!(gets(3, 3), [9, 1, 5, 7]);
    }

    #[test]
    fn a_statement_that_its_peer_did_not_sign_does_not_hold() {
        let (statement, good) = signed(1, 2);
        let (_, other) = signed(2, 2);
        let primary = DatasetId::primary();
        let holds = |signed| Stated::new(1, statement.clone(), ShortHash([0; 8]), signed).holds(&primary, Lineage::ZERO);
        assert!(holds(good) && !holds(other));
    }
}
