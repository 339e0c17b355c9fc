//! The groups under way: a few at once, submitted in order, settled in order.

use std::collections::VecDeque;

use actix_web::rt::{spawn, task::JoinHandle};
use anabranch_actors::api::{Confirmed, WriteError};
use anabranch_actors::node::NodeHandle;
use anabranch_protocol::id::DatasetId;
use anabranch_protocol::replica::{WriteRequest, Written};
use anabranch_protocol::token::Token;
use serde::Serialize;
use utoipa::ToSchema;

use super::group::Group;

/// Groups under way at once: enough that the next commit never waits for the client.
const GROUPS_MAX: usize = 4;

/// What was acknowledged so far.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: u64,
    commits: u64,
    token: Option<Token>,
    /// Nothing stayed local.
    all_replicated: bool,
    /// The first group that was not acknowledged. Groups submitted with it may have been, and are counted.
    pub failure: Option<WriteFailure>,
}

/// A group that was not acknowledged.
#[derive(Debug)]
pub struct WriteFailure {
    /// Its first line.
    pub line: u64,
    /// Why.
    pub error: WriteError,
}

/// The answer to a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct TallyPage {
    pub accepted: u64,
    pub commits: u64,
    /// The last commit's; null where everything stayed local.
    pub token: Option<String>,
    /// Peers known to have all of it durably; nobody is asked under `ack=local`.
    pub confirmed_by: Vec<String>,
}

impl TallyPage {
    pub fn confirmed(self, confirmed: &Confirmed) -> Self {
        Self { confirmed_by: confirmed.by.iter().map(ToString::to_string).collect(), ..self }
    }
}

impl Tally {
    pub fn page(&self) -> TallyPage {
        TallyPage {
            accepted: self.accepted,
            commits: self.commits,
            token: self.token.map(|token| token.to_string()),
            confirmed_by: Vec::new(),
        }
    }

    /// All of it as one write: a peer that has the last commit of a line has those before it.
    pub fn written(&self) -> Written {
        Written { token: self.token, stamp: None, key: None, created: false, replicated: self.all_replicated }
    }

    fn count(&mut self, lines: usize, token: Option<Token>) {
        self.accepted += lines as u64;
        // Groups may share a commit; each commit is counted once.
        if token.is_some() && token != self.token {
            self.commits += 1;
            self.token = token;
        }
    }

    fn settle(&mut self, first_line: u64, lines: usize, outcome: Result<Written, WriteError>) {
        match outcome {
            Ok(written) => {
                self.all_replicated = written.replicated && (self.all_replicated || self.accepted == 0);
                self.count(lines, written.token);
            }
            Err(error) if self.failure.is_none() => self.failure = Some(WriteFailure { line: first_line, error }),
            Err(_) => {}
        }
    }
}

/// A group under way.
#[derive(Debug)]
struct Flight {
    first_line: u64,
    lines: usize,
    outcome: JoinHandle<Result<Written, WriteError>>,
}

/// The window.
#[derive(Debug)]
pub struct Window {
    node: NodeHandle,
    dataset: DatasetId,
    flights: VecDeque<Flight>,
    tally: Tally,
}

impl Window {
    pub fn new(node: NodeHandle, dataset: DatasetId) -> Self {
        Self { node, dataset, flights: VecDeque::new(), tally: Tally::default() }
    }

    /// Whether groups are under way.
    pub fn is_busy(&self) -> bool {
        !self.flights.is_empty()
    }

    pub fn has_failed(&self) -> bool {
        self.tally.failure.is_some()
    }

    /// Submits a group once there is room, unless one failed meanwhile.
    pub async fn submit(&mut self, group: Group) {
        while self.flights.len() >= GROUPS_MAX {
            self.settle_one().await;
        }
        if group.may_be_refused() {
            self.write_alone(group).await;
        } else if !self.has_failed() {
            self.take_off(group);
        }
    }

    /// Waits for the oldest group. May be dropped and called again.
    pub async fn settle_one(&mut self) {
        let Some(flight) = self.flights.front_mut() else { return };
        let joined = (&mut flight.outcome).await;
        let (first_line, lines) = (flight.first_line, flight.lines);
        self.flights.pop_front();
        let outcome = joined.unwrap_or_else(|error| {
            Err(WriteError::Unknown { dataset: self.dataset.clone(), reason: format!("the request broke: {error}") })
        });
        self.tally.settle(first_line, lines, outcome);
    }

    /// Waits for all groups.
    pub async fn finish(mut self) -> Tally {
        while self.is_busy() {
            self.settle_one().await;
        }
        self.tally
    }

    fn take_off(&mut self, group: Group) {
        let (node, dataset) = (self.node.clone(), self.dataset.clone());
        let (first_line, lines) = (group.lines[0], group.lines.len());
        // A task of its own, so that it is under way while the next lines are read. Tasks of one thread start in order.
        let outcome = spawn(async move { node.write(&dataset, WriteRequest { ops: group.ops }).await });
        self.flights.push_back(Flight { first_line, lines, outcome });
    }

    /// Writes a group of which a line may be refused: nothing else is under way, so that the lines before the refused one can
    /// still be written, and none after it.
    async fn write_alone(&mut self, group: Group) {
        while self.is_busy() {
            self.settle_one().await;
        }
        let mut waiting = vec![group];
        while let Some(group) = waiting.pop() {
            if self.has_failed() {
                return;
            }
            let request = WriteRequest { ops: group.ops.clone() };
            match self.node.write(&self.dataset, request).await {
                Err(WriteError::Refused(_)) if group.lines.len() > 1 => {
                    let (first, second) = group.halves();
                    waiting.extend([second, first]);
                }
                outcome => self.tally.settle(group.lines[0], group.lines.len(), outcome),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::id::{Epoch, Hash, PeerId, WriterId};
    use anabranch_protocol::replica::WriteRefusal;

    use super::*;

    fn written(seq: u64) -> Result<Written, WriteError> {
        let token = Token::new(WriterId { peer: PeerId::ZERO, epoch: Epoch::ZERO }, seq, Hash([u8::try_from(seq).unwrap(); 32]));
        Ok(Written { token: Some(token), stamp: None, key: None, created: false, replicated: true })
    }

    #[test]
    fn groups_that_share_a_commit_count_it_once() {
        let mut tally = Tally::default();
        tally.settle(1, 10, written(1));
        tally.settle(11, 10, written(1));
        tally.settle(21, 5, written(2));
        let page = tally.page();
        assert_eq!((page.accepted, page.commits), (25, 2));
    }

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let mut tally = Tally::default();
        tally.settle(1, 10, Err(WriteError::Refused(WriteRefusal::AppendOnly)));
        tally.settle(11, 10, Err(WriteError::NoSpace { dataset: DatasetId::primary() }));
        tally.settle(21, 10, written(1));
        assert_eq!((tally.failure.as_ref().unwrap().line, tally.page().accepted), (1, 10));
    }
}
