//! Protocol constants: what a decoder may be made to allocate and a peer may be made to hold.
//!
//! They are part of the format: every node accepts exactly what these allow, so that whether a commit counts never depends on
//! one node's configuration. Configuration may tighten them for local writes only.

/// Longest dataset name, bytes.
pub const DATASET_ID_BYTES_MAX: usize = 63;
/// Longest collection name, bytes.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest value, bytes of deterministic CBOR.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and maps in a value.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Most entries in one commit.
pub const COMMIT_ENTRIES_MAX: usize = 4_096;
/// Most sections in one commit.
pub const COMMIT_SECTIONS_MAX: usize = 64;
/// Largest frame of one commit, bytes.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Largest header, bytes: a section table of the most sections, and the fixed fields.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// Greatest sequence number. A writer that makes a million commits a second reaches it after nine years.
pub const SEQ_MAX: u64 = 1 << 48;
/// Most writers in one version vector.
pub const VECTOR_WRITERS_MAX: usize = 8_192;
/// Most collections in one registration.
pub const REGISTRATION_COLLECTIONS_MAX: usize = 1_024;
/// Most peers of one dataset whose statements of what they have are kept and passed on.
pub const STATED_PEERS_MAX: usize = 8_192;
/// Most datasets in one `Hello`.
pub const HELLO_DATASETS_MAX: usize = 1_024;
/// Largest control message (request-response), bytes.
pub const CONTROL_BYTES_MAX: usize = 6 << 20;
/// Largest gossip message, bytes.
pub const GOSSIP_BYTES_MAX: usize = 32 << 10;
/// Largest proof of a fork, bytes: no two headers of valid commits take more.
pub const FORK_PROOF_BYTES_MAX: usize = 7_000;
/// Most forks of one dataset that are kept and sent.
pub const FORKS_MAX: usize = 64;
/// Most of them of one peer.
pub const FORKS_PER_PEER_MAX: usize = 8;
/// Most payload a page may carry, bytes; one frame may be larger and then travels alone.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Largest message on the bulk stream: a page of one frame and its envelope.
pub const BULK_BYTES_MAX: usize = FRAME_BYTES_MAX + PAGE_BYTES_MAX;
/// Most frames in one page or push.
pub const PAGE_FRAMES_MAX: usize = 4_096;
/// Most writers asked for in one `Pull`.
pub const PULL_WANTS_MAX: usize = 1_024;
/// Longest reason in words that travels with a refusal, bytes.
pub const REASON_BYTES_MAX: usize = 512;
