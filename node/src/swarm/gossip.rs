//! Announcements: gossipsub, configured so that a hint never costs more than it is worth.
//!
//! - Topics are hashes, so that a peer that doesn't know a dataset's name learns nothing from a subscription. With network keys
//!   they are keyed, one for each: subscriptions are told to whoever connects, and names can be guessed.
//! - Messages are signed and checked strictly: 60 µs each, and nobody speaks in another's name.
//! - A message is forwarded only after it decoded and named the dataset of its topic.
//! - A peer whose `Hello` was not accepted is graylisted by its application score: nothing is published to it, nothing is
//!   taken from it, it joins no mesh. All other score terms are off; with small meshes they punish honest nodes.

use std::time::Duration;

use anabranch_protocol::id::DatasetId;
use anabranch_protocol::limits::{GOSSIP_BYTES_MAX, HELLO_DATASETS_MAX};
use anabranch_protocol::network_key::{Keyring, NETWORK_KEYS_MAX};
use anabranch_protocol::wire::{Announce, VERSION};
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, IdentityTransform, MaxCountSubscriptionFilter, MessageAuthenticity, PeerScoreParams,
    PeerScoreThresholds, Sha256Topic, TopicHash, ValidationMode,
};
use libp2p::identity::Keypair;

/// Room for signature, key, topic and framing around an announcement.
const ENVELOPE_BYTES_MAX: usize = 1 << 10;
/// Announcements waiting for one peer: fresher ones make older ones worthless, so the queue is short.
const QUEUE_MESSAGES_MAX: usize = 256;
/// An announcement that waited longer is dropped.
const QUEUE_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a pruned peer stays out of a mesh. Short, because two nodes accept each other at slightly different times.
const PRUNE_BACKOFF: Duration = Duration::from_secs(1);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Application score of a peer that was not accepted, and the threshold below which it is shut out.
const NOT_ACCEPTED_SCORE: f64 = -100.0;
const SHUT_OUT_BELOW: f64 = -1.0;

/// Gossipsub with a bound on subscriptions.
pub(super) type Gossip = gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

/// Builds the behaviour.
pub(super) fn behaviour(identity: &Keypair) -> Result<Gossip, String> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX + ENVELOPE_BYTES_MAX)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(HEARTBEAT_INTERVAL)
        .prune_backoff(PRUNE_BACKOFF)
        .graft_flood_threshold(Duration::ZERO)
        .connection_handler_queue_len(QUEUE_MESSAGES_MAX)
        .publish_queue_duration(QUEUE_AGE_MAX)
        .forward_queue_duration(QUEUE_AGE_MAX)
        .max_publish_messages(QUEUE_MESSAGES_MAX)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: HELLO_DATASETS_MAX * NETWORK_KEYS_MAX,
        max_subscriptions_per_request: HELLO_DATASETS_MAX * NETWORK_KEYS_MAX,
    };
    let authenticity = MessageAuthenticity::Signed(identity.clone());
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, config, filter).map_err(str::to_owned)?;
    gossip.with_peer_score(scores(), thresholds())?;
    Ok(gossip)
}

fn scores() -> PeerScoreParams {
    PeerScoreParams {
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        retain_score: Duration::ZERO,
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: SHUT_OUT_BELOW,
        publish_threshold: SHUT_OUT_BELOW,
        graylist_threshold: SHUT_OUT_BELOW,
        ..PeerScoreThresholds::default()
    }
}

/// Lets a peer into gossip, or shuts it out.
pub(super) fn set_accepted(gossip: &mut Gossip, peer: &libp2p::PeerId, accepted: bool) {
    gossip.set_application_score(peer, if accepted { 0.0 } else { NOT_ACCEPTED_SCORE });
}

/// The topics of a dataset; more than one while a network key is being rotated.
pub(super) fn topics(keys: &Keyring, dataset: &DatasetId) -> Vec<Sha256Topic> {
    let names = if keys.is_open() { vec![dataset.to_string()] } else { keys.topics(dataset) };
    names.into_iter().map(|name| Sha256Topic::new(format!("/anabranch/{VERSION}/{name}"))).collect()
}

/// Reads an announcement and checks that it belongs to the topic it came on.
pub(super) fn decode(keys: &Keyring, data: &[u8], came_on: &TopicHash) -> Result<Announce, String> {
    let announce = Announce::decode(data).map_err(|error| error.to_string())?;
    let dataset = DatasetId::from_wire(announce.dataset.as_ref()).ok_or("no dataset")?;
    let known = topics(keys, &dataset).iter().any(|topic| topic.hash() == *came_on);
    if known { Ok(announce) } else { Err(format!("{dataset} announced on another topic")) }
}
