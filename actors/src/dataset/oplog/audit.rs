//! When the rows of an open store are audited: a slice at a time, as a chore that takes turns with writes and commits of peers.
//!
//! A store that was not read as a whole when it was opened is walked over soon after, with short pauses. Then, and in all other
//! stores from the start, one slice follows the other at the dataset's maintenance interval.

use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::hlc::WallClock;

use super::Oplog;
use super::chores::Afterwards;
use crate::dataset::ledger::Ledger;

/// How long a store is left alone that was just opened, and was not read as a whole.
const AUDIT_AFTER: Duration = Duration::from_secs(10);
/// Between two slices of the first walk over such a store. A slice takes 3 ms from memory and some 30 from a disk: most of the
/// time is left to others.
const SLICE_PAUSE: Duration = Duration::from_millis(100);

/// How fast rows are audited.
#[derive(Debug, Clone, Copy)]
pub(in crate::dataset) struct AuditPace {
    /// The store was not read as a whole, and no walk came to its end.
    pub unread: bool,
    /// Between two slices otherwise.
    pub interval: Duration,
}

impl AuditPace {
    /// From opening to the first slice.
    fn first(self) -> Duration {
        if self.unread { AUDIT_AFTER.min(self.interval) } else { self.interval }
    }

    /// From one slice to the next.
    fn pause(self) -> Duration {
        if self.unread { SLICE_PAUSE.min(self.interval) } else { self.interval }
    }
}

/// A slice was read.
#[derive(Message)]
#[rtype(result = "()")]
struct SliceRead {
    /// It was the last of a walk.
    ended: bool,
}

impl Oplog {
    pub(super) fn start_audit(&mut self, ctx: &mut Context<Self>) {
        self.audit_after(self.audit.first(), ctx);
    }

    fn audit_after(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(pause, Self::audit_slice);
    }

    fn audit_slice(&mut self, ctx: &mut Context<Self>) {
        let myself = ctx.address();
        let job = move |ledger: &mut Ledger, now: WallClock| {
            let ended = ledger.audit_on(now)?;
            let next: Afterwards = Box::new(move || myself.do_send(SliceRead { ended }));
            Ok((ledger.nothing_committed(), next))
        };
        self.later(Box::new(job), ctx);
    }
}

impl Handler<SliceRead> for Oplog {
    type Result = ();
    fn handle(&mut self, SliceRead { ended }: SliceRead, ctx: &mut Context<Self>) {
        self.audit.unread &= !ended;
        self.audit_after(self.audit.pause(), ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_read_is_walked_over_soon_and_all_else_slowly() {
        let interval = Duration::from_secs(60);
        let unread = AuditPace { unread: true, interval };
        assert_eq!((unread.first(), unread.pause()), (AUDIT_AFTER, SLICE_PAUSE));
        let read = AuditPace { unread: false, interval };
        assert_eq!((read.first(), read.pause()), (interval, interval));
        // Never slower than the other stores.
        let hurried = AuditPace { unread: true, interval: Duration::from_millis(1) };
        assert_eq!((hurried.first(), hurried.pause()), (hurried.interval, hurried.interval));
    }
}
