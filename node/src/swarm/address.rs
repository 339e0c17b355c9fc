//! Multiaddrs and peer ids: what this build can dial, and what a peer's word about its own addresses is worth.
//!
//! An address is usable when it is an IP address and a TCP port, or, with the cargo feature `quic`, a UDP port and `/quic-v1`.

use std::net::{IpAddr, SocketAddr};

use anabranch_protocol::id::PeerId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Addresses kept of one peer.
pub(super) const ADDRESSES_PER_PEER_MAX: usize = 8;

/// A node's id as libp2p has it; `None` where the bytes are no libp2p id.
pub(crate) fn to_libp2p(peer: PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(&peer.to_multihash()).ok()
}

/// A libp2p id as the protocol has it; `None` for keys other than ed25519.
pub(super) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_multihash(&peer.to_bytes())
}

/// Takes a trailing `/p2p/<peer id>` off an address.
pub(crate) fn split_peer(address: &Multiaddr) -> (Multiaddr, Option<libp2p::PeerId>) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (bare, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carrier {
    Tcp,
    Quic,
}

/// Carrier and socket address of a multiaddr; `None` where this build can neither listen on it nor dial it.
pub(super) fn socket(address: &Multiaddr) -> Option<(Carrier, SocketAddr)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let (carrier, port) = match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None) => (Carrier::Tcp, port),
        (Protocol::Udp(port), Some(Protocol::QuicV1)) if cfg!(feature = "quic") => (Carrier::Quic, port),
        _ => return None,
    };
    parts.next().is_none().then_some((carrier, SocketAddr::new(ip, port)))
}

/// The carrier of a usable address.
pub(super) fn carrier(address: &Multiaddr) -> Option<Carrier> {
    socket(address).map(|(carrier, _)| carrier)
}

fn multiaddr(carrier: Carrier, ip: IpAddr, port: u16) -> Multiaddr {
    let address = Multiaddr::empty().with(Protocol::from(ip));
    match carrier {
        Carrier::Tcp => address.with(Protocol::Tcp(port)),
        Carrier::Quic => address.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    }
}

/// The remote IP of a connection.
pub(super) fn remote_ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// What of a peer's own listen addresses is worth dialing, seen from where it connected from.
///
/// An unspecified IP becomes the observed one; loopback means the peer's own host, so it counts only if the peer is on ours;
/// addresses that name another peer, or that this build can't dial, are left out.
pub(super) fn worth_dialing(told: &[Multiaddr], peer: &libp2p::PeerId, observed: Option<IpAddr>) -> Vec<Multiaddr> {
    let mut worth = Vec::new();
    for address in told {
        let (bare, named) = split_peer(address);
        let Some((carrier, socket)) = socket(&bare) else { continue };
        if named.is_some_and(|named| named != *peer) || socket.port() == 0 {
            continue;
        }
        let ip = match (socket.ip().is_unspecified(), observed) {
            (true, Some(observed)) => observed,
            (true, None) => continue,
            (false, _) => socket.ip(),
        };
        if ip.is_loopback() && observed.is_some_and(|observed| !observed.is_loopback()) {
            continue;
        }
        let dialable = multiaddr(carrier, ip, socket.port());
        if !worth.contains(&dialable) {
            worth.push(dialable);
        }
    }
    worth.truncate(ADDRESSES_PER_PEER_MAX);
    worth
}

/// What is worth dialing can be dialed, and is little.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(told: &[Multiaddr]) {
    let peer = libp2p::PeerId::from_bytes(&PeerId([1; 32]).to_multihash()).expect("a peer id");
    for observed in [None, Some(IpAddr::from([127, 0, 0, 1])), Some(IpAddr::from([192, 0, 2, 1]))] {
        let worth = worth_dialing(told, &peer, observed);
        assert!(worth.len() <= ADDRESSES_PER_PEER_MAX && worth.iter().all(|address| socket(address).is_some()));
    }
    told.iter().for_each(|address| {
        let _ = (split_peer(address), remote_ip(address));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn unspecified_addresses_take_the_observed_ip() {
        let peer = libp2p::PeerId::random();
        let told = addresses(&["/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/4001", "/ip4/10.0.0.9/udp/4001", "/dns4/a/tcp/1"]);
        let worth = worth_dialing(&told, &peer, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(worth, addresses(&["/ip4/10.0.0.9/tcp/4001"]));
    }

    #[test]
    fn quic_addresses_count_where_the_build_has_quic() {
        let peer = libp2p::PeerId::random();
        let told = addresses(&[
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip4/10.0.0.9/udp/0/quic-v1",
            "/ip4/10.0.0.9/udp/1/quic-v1/webtransport",
        ]);
        let worth = worth_dialing(&told, &peer, Some("10.0.0.9".parse().unwrap()));
        let expected: &[&str] = if cfg!(feature = "quic") { &["/ip4/10.0.0.9/udp/4001/quic-v1"] } else { &[] };
        assert_eq!(worth, addresses(expected));
    }

    #[test]
    fn loopback_counts_only_on_this_host_and_other_peers_never() {
        let peer = libp2p::PeerId::random();
        let other = libp2p::PeerId::random();
        let mut told = addresses(&["/ip4/127.0.0.1/tcp/4001"]);
        told.push(format!("/ip4/10.0.0.1/tcp/1/p2p/{other}").parse().unwrap());
        told.push(format!("/ip4/10.0.0.1/tcp/2/p2p/{peer}").parse().unwrap());
        let worth = worth_dialing(&told, &peer, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(worth, addresses(&["/ip4/127.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/2"]));
    }
}
