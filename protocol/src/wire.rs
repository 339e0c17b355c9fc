//! What two nodes say to each other.
//!
//! Control messages go by request-response, bulk pages in the same shapes on one long-lived framed stream, announcements by
//! gossip. Every message about a dataset carries its id; a missing id reads as `primary`, and `primary` is never spelled out.
//! Messages are CBOR maps with short keys; decoding is strict ([`crate::codec`]) and bounded ([`crate::limits`]). Golden bytes in
//! `tests/fixtures/wire/` pin every shape.

mod hello;
mod message;

pub use hello::{DatasetHello, DatasetReply, Hello, HelloReply, Kind, PolicyScope};
pub use message::{
    Announce, Confirm, Heads, HeadsReply, Held, Incomplete, Page, Pull, Push, Pushed, Refusal, RefusalCode, Request, Response,
    Round,
};

use crate::codec::{self, DecodeError};
use crate::limits::{BULK_BYTES_MAX, CONTROL_BYTES_MAX, GOSSIP_BYTES_MAX};

/// libp2p protocol of control messages.
pub const CONTROL_PROTOCOL: &str = "/anabranch/control/1";
/// libp2p protocol of the bulk stream.
pub const BULK_PROTOCOL: &str = "/anabranch/bulk/1";
/// The protocol version this node speaks; `Hello` names all that a node can.
pub const VERSION: u64 = 1;

impl Request {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_with_capacity(self, self.weight() + 256)
    }

    /// Decodes and checks a request.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let request: Self = codec::decode(bytes, CONTROL_BYTES_MAX)?;
        request.check()?;
        Ok(request)
    }
}

impl Response {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_with_capacity(self, self.weight() + 256)
    }

    /// Decodes and checks a response.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let response: Self = codec::decode(bytes, BULK_BYTES_MAX)?;
        response.check()?;
        Ok(response)
    }
}

impl Announce {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes an announcement.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let announce: Self = codec::decode(bytes, GOSSIP_BYTES_MAX)?;
        message::dataset_is_valid(announce.dataset.as_ref())?;
        Ok(announce)
    }
}
