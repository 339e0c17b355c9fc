//! What fuzzers feed: configuration, flags, files of the data directory and of imports, framing, and HTTP requests, with what must
//! hold of whatever is accepted.
//!
//! `tests/fuzz` runs the targets under libFuzzer; its corpora are replayed by this module's tests.

use crate::{cli, config, http, process, swarm};

/// A decoder under test: what its corpus is called, and what is run.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder of this crate.
pub const TARGETS: &[Target] = &[
    ("node-address-book", swarm::fuzz_address_book),
    ("node-batch", http::fuzz_batch),
    ("node-bulk-frames", swarm::fuzz_bulk_frames),
    ("node-cells", |data| text(data, cli::fuzz_cells)),
    ("node-config", |data| text(data, config::fuzz_page)),
    ("node-control", swarm::fuzz_control),
    ("node-dataset-flag", |data| text(data, config::fuzz_dataset_flag)),
    ("node-definition", config::fuzz_definition),
    ("node-identity", process::fuzz_identity),
    ("node-import", cli::fuzz_import),
    ("node-incarnation", |data| text(data, process::fuzz_incarnation)),
    ("node-ingest", http::fuzz_ingest),
    ("node-multiaddr", |data| text(data, config::fuzz_multiaddr)),
    ("node-path", |data| text(data, http::fuzz_path)),
    ("node-request", http::fuzz_request),
];

fn text(data: &[u8], run: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        run(text);
    }
}

#[cfg(test)]
mod tests {
    /// Inputs that fuzzers found worth keeping, and every one that once broke a rule.
    #[test]
    fn the_corpora_are_replayed() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, run) in super::TARGETS {
            let inputs = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name} has a corpus: {error}"));
            let mut count = 0;
            for input in inputs {
                run(&std::fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has inputs");
        }
    }
}
