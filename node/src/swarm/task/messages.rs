//! What arrives on connections: requests, answers, announcements, pings and introductions.

use std::sync::Arc;

use anabranch_actors::transport::{TransportError, TransportEvent};
use anabranch_protocol::wire::{Refusal, RefusalCode, Request, Response};
use futures::FutureExt;
use libp2p::request_response::{self, OutboundFailure, ResponseChannel};
use libp2p::swarm::ConnectionId;
use libp2p::{PeerId, Stream, gossipsub, identify, ping};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument;

use super::SwarmTask;
use crate::swarm::allowance::Asking;
use crate::swarm::behaviour::{BehaviourEvent, MembersEvent};
use crate::swarm::bulk::{self, Inbound};
use crate::swarm::conduct::MALFORMED_POINTS;
use crate::swarm::control::{ControlRequest, ControlResponse};
use crate::swarm::counters::{MessageKind, count};
use crate::swarm::gossip;

/// Addresses believed of one introduction.
const IDENTIFIED_ADDRESSES_MAX: usize = 16;

/// What the node made of an inbound control request.
pub(super) struct Answered {
    connection: ConnectionId,
    channel: ResponseChannel<ControlResponse>,
    response: Option<Response>,
}

type ControlEvent = request_response::Event<ControlRequest, ControlResponse>;

impl SwarmTask {
    pub(super) fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Control(event) => self.on_control(event),
            BehaviourEvent::Members(event) => self.on_members_event(event),
            #[cfg(feature = "mdns")]
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            _ => {}
        }
    }

    fn on_members_event(&mut self, event: MembersEvent) {
        match event {
            MembersEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                self.on_announcement(propagation_source, &message_id, &message);
            }
            MembersEvent::Gossip(gossipsub::Event::SlowPeer { peer_id, .. }) => {
                tracing::debug!(peer = %peer_id, "announcements to a slow peer were dropped");
            }
            MembersEvent::Gossip(_) => {}
            MembersEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.on_identified(peer_id, info),
            MembersEvent::Identify(_) => {}
            MembersEvent::Ping(event) => self.on_ping(event),
            MembersEvent::Bulk(()) => {}
        }
    }

    fn on_control(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Message {
                peer,
                connection_id,
                message: request_response::Message::Request { request, channel, .. },
            } => {
                self.on_control_request(peer, connection_id, request, channel);
            }
            ControlEvent::Message { message: request_response::Message::Response { request_id, response }, .. } => {
                let Some(waiting) = self.waiting.remove(&request_id) else { return };
                let peer = waiting.peer;
                match response {
                    ControlResponse::Message(response) => self.answered(waiting, Ok(response)),
                    ControlResponse::Malformed(reason) => {
                        self.answered(waiting, Err(TransportError::Malformed(reason)));
                        self.on_malformed(peer);
                    }
                }
            }
            ControlEvent::OutboundFailure { request_id, error, .. } => {
                if let Some(waiting) = self.waiting.remove(&request_id) {
                    self.answered(waiting, Err(failure(&error)));
                }
            }
            ControlEvent::InboundFailure { peer, connection_id, error, .. } => {
                tracing::debug!(%peer, %error, "a control request was not answered");
                self.close_if_unwanted(connection_id);
            }
            ControlEvent::ResponseSent { connection_id, .. } => self.close_if_unwanted(connection_id),
        }
    }

    /// Closes a connection of a second live store of an identity, now that it was told why. The first one's stay.
    fn close_if_unwanted(&mut self, connection: ConnectionId) {
        if self.unwanted.remove(&connection) {
            self.swarm.close_connection(connection);
        }
    }

    fn on_control_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: ControlRequest,
        channel: ResponseChannel<ControlResponse>,
    ) {
        if !self.lists.let_in(&peer) {
            self.stranger_told(connection);
            return self.respond(channel, Response::Refused(self.lists.refusal(&peer)));
        }
        let (request, share) = match request {
            ControlRequest::Inbound { request, share } => (request, share),
            ControlRequest::Refused(refusal) => {
                tracing::warn!(%peer, %refusal, "control request refused");
                let malformed = refusal.code == RefusalCode::Malformed;
                self.respond(channel, Response::Refused(refusal));
                if malformed {
                    self.on_malformed(peer);
                }
                return;
            }
            // Ours; never read from a stream.
            ControlRequest::Outbound { .. } => return,
        };
        let Some(id) = self.peers.get(&peer).map(|state| state.id) else { return };
        let asking = if matches!(request, Request::Hello(_)) { Asking::Hello } else { Asking::Request };
        if !self.allowances.take(&peer, asking) {
            count(&self.counters.refused_busy);
            self.respond(channel, Response::Refused(Refusal::new(RefusalCode::Busy, "too many requests in a second")));
            return self.on_over_rate(peer);
        }
        if self.answers.len() >= self.limits.answers_waiting_max {
            count(&self.counters.refused_busy);
            return self.respond(channel, Response::Refused(Refusal::new(RefusalCode::Busy, "too many requests at once")));
        }
        let (reply, answer) = oneshot::channel();
        let deadline = self.limits.request_timeout;
        let waiting = async move {
            let response = timeout(deadline, answer).await.ok().and_then(Result::ok);
            drop(share);
            Answered { connection, channel, response }
        };
        self.answers.push(waiting.boxed());
        self.outbox.push(TransportEvent::Request { peer: id, request, reply });
    }

    pub(super) fn on_answered(&mut self, answered: Answered) {
        // Without an answer the channel is dropped, which closes the request.
        if let Some(response) = answered.response {
            if matches!(&response, Response::Refused(refusal) if refusal.code == RefusalCode::DuplicateIdentity) {
                self.unwanted.insert(answered.connection);
            }
            self.respond(answered.channel, response);
        }
    }

    fn respond(&mut self, channel: ResponseChannel<ControlResponse>, response: Response) {
        // An error says that the asker is gone or past its deadline.
        let _ = self.swarm.behaviour_mut().control.send_response(channel, ControlResponse::Message(response));
    }

    pub(super) fn on_bulk_stream(&mut self, peer: PeerId, stream: Stream) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        // Dropped, the stream is reset.
        if !self.allowances.take(&peer, Asking::Request) {
            return self.on_over_rate(peer);
        }
        let serving = bulk::serve(peer, stream, self.bulk_hand_over.clone(), self.limits.clone(), Arc::clone(&self.counters));
        let task = tokio::spawn(serving.instrument(tracing::debug_span!("bulk_server", %peer)));
        // An opener has one stream: a second one means that it gave the first up.
        if let Some(before) = state.server.replace(task.abort_handle()) {
            before.abort();
        }
    }

    pub(super) fn on_bulk_request(&mut self, inbound: Inbound) {
        let Some(id) = self.peers.get(&inbound.peer).map(|state| state.id) else { return };
        match inbound.asked {
            Some((request, reply)) => self.outbox.push(TransportEvent::Request { peer: id, request, reply }),
            None => self.on_malformed(inbound.peer),
        }
    }

    fn on_announcement(&mut self, forwarder: PeerId, id: &gossipsub::MessageId, message: &gossipsub::Message) {
        if !self.allowances.take(&forwarder, Asking::Announcement) {
            let ignored = gossipsub::MessageAcceptance::Ignore;
            self.swarm.behaviour_mut().gossip().report_message_validation_result(id, &forwarder, ignored);
            return count(&self.counters.announcements_dropped);
        }
        let acceptance = match gossip::decode(&self.network_keys, &message.data, &message.topic) {
            Ok(announce) => {
                self.counters.add_in(MessageKind::Announce, message.data.len());
                if let Some(state) = self.peers.get(&forwarder)
                    && !self.outbox.offer(TransportEvent::Announced { peer: state.id, announce })
                {
                    count(&self.counters.announcements_dropped);
                }
                gossipsub::MessageAcceptance::Accept
            }
            Err(reason) => {
                tracing::warn!(peer = %forwarder, reason, "malformed announcement");
                count(&self.counters.malformed);
                gossipsub::MessageAcceptance::Reject
            }
        };
        let malformed = matches!(acceptance, gossipsub::MessageAcceptance::Reject);
        self.swarm.behaviour_mut().gossip().report_message_validation_result(id, &forwarder, acceptance);
        if malformed {
            self.on_malformed(forwarder);
        }
    }

    fn on_malformed(&mut self, peer: PeerId) {
        self.on_misbehaved(peer, MALFORMED_POINTS, "malformed messages");
    }

    fn on_over_rate(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.over_rate += 1;
        if state.over_rate == self.limits.over_rate_max {
            self.shut_out(peer, Refusal::new(RefusalCode::Busy, "the peer floods this node with requests"));
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        tracing::debug!(%peer, agent = info.agent_version, "identified");
        state.identified = info.listen_addrs;
        state.identified.truncate(IDENTIFIED_ADDRESSES_MAX);
        // Accepted before it was identified, and without a word about its addresses.
        if state.accepted && self.redial.addresses(peer).is_empty() {
            self.accept(peer, &[]);
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                let Some(state) = self.peers.get_mut(&event.peer) else { return };
                state.rtt = Some(rtt);
                let id = state.id;
                self.show(event.peer);
                self.outbox.offer(TransportEvent::RoundTrip { peer: id, rtt });
            }
            // libp2p only reports it; a connection that doesn't answer would be used until TCP gives up, minutes later.
            Err(ping::Failure::Timeout) => {
                tracing::info!(peer = %event.peer, "closing a connection that doesn't answer pings");
                self.swarm.close_connection(event.connection);
            }
            Err(error) => tracing::debug!(peer = %event.peer, %error, "ping failed"),
        }
    }
}

fn failure(error: &OutboundFailure) -> TransportError {
    match error {
        OutboundFailure::Timeout => TransportError::Timeout,
        OutboundFailure::DialFailure => TransportError::NotConnected,
        OutboundFailure::ConnectionClosed | OutboundFailure::UnsupportedProtocols | OutboundFailure::Io(_) => {
            TransportError::Connection(error.to_string())
        }
    }
}
