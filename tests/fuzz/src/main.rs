//! One fuzzer for all targets: `ANABRANCH_FUZZ` names the decoder that it feeds. See `tests/fuzz/run`.
#![no_main]

use std::alloc::System;
use std::sync::OnceLock;

use cap::Cap;

/// Counts what the decoders allocate; libFuzzer itself is C++ and not counted.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What one input may make a decoder hold at once: so much for each of its bytes, and so much in any case. Text of one-byte
/// items is what costs most.
const BYTES_PER_BYTE: usize = 96;
const BYTES_BASE: usize = 4 << 20;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let name = std::env::var("ANABRANCH_FUZZ").expect("ANABRANCH_FUZZ names a target");
    let all = [anabranch_protocol::fuzzing::TARGETS, anabranch_actors::dataset::fuzzing::TARGETS, anabranch_node::fuzzing::TARGETS];
    let found = all.into_iter().flatten().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("{name} is not a target")).1
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let run = TARGET.get_or_init(chosen);
    // Past the limit an allocation fails, which aborts: a finding like any other.
    let limit = MEMORY.allocated() + BYTES_BASE + BYTES_PER_BYTE * data.len();
    MEMORY.set_limit(limit).expect("it is above what is allocated");
    run(data);
    MEMORY.set_limit(usize::MAX).expect("nothing is above it");
});
