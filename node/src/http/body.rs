//! Request bodies: read whole up to a limit, and drained a little further so that a client that is still sending can read why it
//! was refused.

use std::time::Duration;

use actix_web::web::Payload;
use futures::StreamExt as _;

use super::problem::Problem;

/// Largest body that is one JSON value: JSON is at most about four times its CBOR in what people send.
pub const VALUE_BODY_MAX: usize = 4 << 20;
/// Largest body of a batch, whose commit may hold 3 MiB.
pub const BATCH_BODY_MAX: usize = 12 << 20;
/// Read and thrown away before a refusal is sent; who sends more finds the connection closed.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The whole body.
pub async fn read(payload: &mut Payload, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            drop(body);
            drain(payload).await;
            return Err(Problem::too_large(format!("the body is over the limit of {limit} bytes; nothing was written")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Throws away what the client still sends, within bounds.
pub async fn drain(payload: &mut Payload) {
    let discard = async {
        let mut drained = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            drained += chunk.len();
            if drained > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // Past the time limit the answer is sent all the same.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, discard).await;
}
