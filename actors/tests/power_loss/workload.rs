//! What the recorded child does: a pure function of a seed, so that the judge in the parent knows every operation.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anabranch_actors::store::{SledEngine, StoreEngine};

/// File in the recorded directory, beside the store, to which the child writes what it was promised.
pub const ACKS: &str = "acks";
/// The store's directory in the recorded directory. It does not exist at first: creating it is part of the test.
pub const STORE: &str = "store";

/// One way to use a store.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub seed: u64,
    pub segment_bytes: usize,
    pub operations: u64,
    /// Operations between two barriers: at least this many, at most twice.
    pub batch: u64,
    /// Barriers between two openings of the store; every second one follows a death of the process.
    pub reopen_every: u64,
    pub keys: u64,
    pub value_bytes_max: u64,
}

/// Short batches as a lone writer makes them, in segments as they are shipped.
pub const SMALL_BATCHES: Workload = Workload {
    name: "small_batches",
    seed: 1,
    segment_bytes: anabranch_actors::store::sled::SEGMENT_BYTES,
    operations: 500,
    batch: 3,
    reopen_every: 20,
    keys: 60,
    value_bytes_max: 3_000,
};

/// Batches of several segments, with keys overwritten often enough that sled recycles segments in mid-batch.
pub const LONG_BATCHES: Workload = Workload {
    name: "long_batches",
    seed: 2,
    segment_bytes: 32 * 1024,
    operations: 12_000,
    batch: 400,
    reopen_every: 4,
    keys: 400,
    value_bytes_max: 250,
};

pub const WORKLOADS: [Workload; 2] = [SMALL_BATCHES, LONG_BATCHES];

/// A key and its new value, or `None` for a delete.
pub type Operation = (Vec<u8>, Option<Vec<u8>>);
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl Workload {
    pub fn engine(&self) -> SledEngine {
        SledEngine { segment_bytes: self.segment_bytes, ..SledEngine::default() }
    }

    /// The operation with this number, from 1. A value tells its number and is recognisably whole.
    pub fn operation(&self, number: u64) -> Operation {
        let mut dice = Dice(self.seed ^ (number << 20));
        let key = format!("key-{:05}", dice.below(self.keys)).into_bytes();
        if dice.below(5) == 0 {
            return (key, None);
        }
        let length = usize::try_from(dice.below(self.value_bytes_max)).expect("a small number");
        let mut value = number.to_be_bytes().to_vec();
        value.extend((0..length).map(|_| dice.byte()));
        (key, Some(value))
    }

    /// Whether the child calls the barrier after this operation.
    fn ends_batch(&self, number: u64) -> bool {
        number.is_multiple_of(self.batch + Dice(number / self.batch).below(self.batch)) || number == self.operations
    }
}

/// The child: writes, and acknowledges in the file [`ACKS`] what each barrier covered. It lives several lives; each ends
/// without closing the store, as `kill -9` would, and the next one writes again what was not acknowledged.
pub fn run(workload: &Workload, root: &Path, next_life: impl Fn() -> Command) {
    while acknowledged(root) < workload.operations {
        let ended = next_life().stdout(Stdio::null()).status().expect("a life begins");
        assert!(ended.success(), "a life ends without an error");
    }
}

/// One life of the child. Ends the process.
pub fn live(workload: &Workload, root: &Path) -> ! {
    let mut acks = OpenOptions::new().append(true).create(true).open(root.join(ACKS)).expect("the acknowledgements");
    let open = || workload.engine().open(&root.join(STORE), 1 << 20).expect("the store opens");
    let mut store = open();
    let begun = acknowledged(root);
    acks.write_all(format!("ack {begun}\n").as_bytes()).expect("acknowledged");
    let mut barriers = 0;
    for number in begun + 1..=workload.operations {
        match workload.operation(number) {
            (key, Some(value)) => store.put(&key, &value).expect("put"),
            (key, None) => store.delete(&key).expect("delete"),
        }
        if !workload.ends_batch(number) {
            continue;
        }
        if barriers == 2 * workload.reopen_every {
            break;
        }
        store.barrier().expect("barrier");
        acks.write_all(format!("ack {number}\n").as_bytes()).expect("acknowledged");
        barriers += 1;
        if barriers == workload.reopen_every {
            drop(store);
            store = open();
        }
    }
    // sled's threads get the time to finish the writes that they began; strace can't tell how far a killed one got.
    thread::sleep(Duration::from_millis(20));
    // Runs no destructor, so that the rest of the last batch is lost with the process.
    std::process::exit(0);
}

fn acknowledged(root: &Path) -> u64 {
    let acks = std::fs::read_to_string(root.join(ACKS)).unwrap_or_default();
    let last = acks.lines().last().and_then(|line| line.strip_prefix("ack "));
    last.map_or(0, |number| number.parse().expect("a number"))
}

/// Seeded randomness (SplitMix64), the same in the child and its judge.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
