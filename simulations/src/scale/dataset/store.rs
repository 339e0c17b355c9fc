//! What a dataset has on its disk: commits and rows.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

use anabranch_protocol::conflict::Row;
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::floor::Floor;
use anabranch_protocol::id::{Collection, Key, KeyHash, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::plan::Want;
use anabranch_protocol::replica::{Line, RowWrite, Rows};

use crate::scale::message::Frame;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Store {
    rows: BTreeMap<(Collection, Key), Row>,
    commits: BTreeMap<(WriterId, u64), (Line, Rc<Frame>)>,
}

impl Store {
    pub fn write(&mut self, rows: &[RowWrite]) {
        self.rows.extend(rows.iter().map(|write| ((write.collection.clone(), write.key.clone()), write.row.clone())));
    }

    pub fn keep(&mut self, writer: WriterId, line: Line, frame: Rc<Frame>) {
        self.commits.insert((writer, line.head.seq), (line, frame));
    }

    /// A page of what is wanted, and whether there is more of it.
    pub fn page(&self, wants: &[Want], bytes_max: usize, frames_max: usize) -> (Vec<Rc<Frame>>, bool) {
        let (mut page, mut bytes) = (Vec::new(), 0);
        for want in wants {
            let line = self.commits.range((want.writer, want.from_seq)..=(want.writer, u64::MAX));
            for (_, frame) in line.map(|(_, kept)| kept) {
                if !page.is_empty() && (bytes + frame.len() > bytes_max || page.len() >= frames_max) {
                    return (page, true);
                }
                bytes += frame.len();
                page.push(frame.clone());
            }
        }
        (page, false)
    }
}

impl Rows for Store {
    type Error = Infallible;

    fn row(&self, collection: &Collection, key: &Key) -> Result<Option<Row>, Infallible> {
        Ok(self.rows.get(&(collection.clone(), key.clone())).cloned())
    }

    fn above(&self, _: &Collection, _: &Floor) -> Result<Tally, Infallible> {
        unreachable!("nobody drops a collection here")
    }

    fn commit(&self, line: &WriterId, seq: u64) -> Result<Option<Line>, Infallible> {
        Ok(self.commits.get(&(*line, seq)).map(|(line, _)| *line))
    }

    fn remembered(&self, _: &KeyHash) -> Result<Option<Remembered>, Infallible> {
        Ok(None)
    }
}
