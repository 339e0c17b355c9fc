//! How far the log once was, in a file beside the store: an engine that comes up without its newest records, all of them whole and
//! consistent up to an earlier time, is found out.
//!
//! The file is written when the store is opened and when it is closed, after a barrier, so it never says more than what is durable. It
//! is a lower bound: a store that lost only what came after it passes, as one does that was killed before its newest barrier.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::Ledger;
use crate::store::StoreError;

const FILE: &str = "reached";

impl Ledger {
    /// Checks the log against what was noted in `directory`, and notes from now on how far it is.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the log ends earlier than it once did.
    pub fn compare_reached(&mut self, directory: &Path) -> Result<(), StoreError> {
        let path = directory.join(FILE);
        let noted = fs::read_to_string(&path).ok().and_then(|text| parse(&text)).unwrap_or(0);
        if self.arrival < noted {
            let reason = format!("the log ends at record {}, but record {noted} was durable", self.arrival);
            return Err(StoreError::Corrupt(reason));
        }
        self.reached = directory.is_dir().then_some(path);
        if self.arrival > noted {
            self.note_reached();
        }
        Ok(())
    }

    /// Notes how far the log is. Only after a barrier.
    pub(super) fn note_reached(&self) {
        let Some(path) = self.reached.as_ref().filter(|_| !self.read_only) else { return };
        if let Err(error) = replace(path, &text(self.durable)) {
            // What was noted before is true all the same.
            tracing::debug!(path = %path.display(), %error, "how far the log is could not be noted");
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(next, path)
}

/// The number and a checksum: a flipped bit must not make a whole store look damaged.
fn text(arrival: u64) -> String {
    format!("{arrival} {:08x}\n", crc32fast::hash(&arrival.to_be_bytes()))
}

fn parse(found: &str) -> Option<u64> {
    let arrival = found.split(' ').next()?.parse().ok()?;
    (text(arrival) == found).then_some(arrival)
}

/// A note has one spelling.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::dataset) fn fuzz(found: &str) {
    if let Some(arrival) = parse(found) {
        assert_eq!(text(arrival), found);
    }
    // No fuzzer makes a checksum.
    if let Ok(arrival) = found.parse() {
        assert_eq!(parse(&text(arrival)), Some(arrival));
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::id::{Collection, Key};
    use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
    use anabranch_protocol::wire::Kind;

    use super::super::tests::{entropy, now, settings};
    use super::*;
    use crate::store::{MemoryEngine, StoreEngine};

    fn open(engine: &dyn StoreEngine, directory: &Path) -> Ledger {
        Ledger::open(engine, directory, 0, settings(Kind::Documents), &mut entropy(&mut 0)).unwrap()
    }

    fn write(ledger: &mut Ledger, n: u32) {
        let op = Op::Put { key: Key::new("k").unwrap(), value: vec![0] };
        let request = WriteRequest::new(vec![WriteOp { collection: Collection::new("orders").unwrap(), op }]);
        ledger.write(now(n), &[request], &mut entropy(&mut u8::try_from(n).unwrap())).unwrap();
    }

    /// Whole and consistent, and as it was some time ago.
    #[test]
    fn a_log_that_ends_earlier_than_it_once_did_is_damage() {
        let (place, engine) = (tempfile::tempdir().unwrap(), MemoryEngine::default());
        let noted = || parse(&fs::read_to_string(place.path().join(FILE)).unwrap_or_default());
        let mut ledger = open(&engine, place.path());
        ledger.compare_reached(place.path()).unwrap();
        write(&mut ledger, 1);
        assert_eq!(noted(), None, "a write is not slower for it");
        ledger.settle().unwrap();
        assert_eq!(noted(), Some(1), "closing notes it");
        let older = engine.snapshot();
        write(&mut ledger, 2);
        write(&mut ledger, 3);
        drop(ledger);
        let mut ledger = open(&engine, place.path());
        ledger.compare_reached(place.path()).unwrap();
        assert_eq!(noted(), Some(3), "opening notes it, of a store that nobody closed");
        drop(ledger);
        ledger = open(&older, place.path());
        ledger.check().and_then(|()| ledger.audit()).unwrap();
        let damaged = ledger.compare_reached(place.path()).unwrap_err();
        assert!(matches!(&damaged, StoreError::Corrupt(_)), "{damaged}");
        assert!(damaged.to_string().contains("the log ends at record 1, but record 3 was durable"), "{damaged}");
        assert_eq!(noted(), Some(3));
    }

    #[test]
    fn a_note_that_is_not_whole_says_nothing() {
        assert_eq!(parse(&text(17)), Some(17));
        for bad in ["", "17", "17 ", "18 00000000\n", &text(17)[1..]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
