//! Who can reach the node: addresses, and the rule that nothing listens beyond loopback with its door open.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::page::HttpPage;
use super::{ConfigError, HttpConfig};

/// Shortest token: one that is guessed in a day protects nothing.
const TOKEN_BYTES_MIN: usize = 16;

/// Reads an address that this build can dial or listen on: an IP address and a TCP port, or a UDP port and `/quic-v1` where the
/// build has QUIC, and `/p2p/…` after it.
///
/// # Errors
/// What is wrong with it.
pub fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    let address: Multiaddr = text.parse().map_err(|_| "not a multiaddr: write it like /ip4/192.0.2.1/tcp/4001".to_owned())?;
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(_) | Protocol::Ip6(_)), Some(Protocol::Tcp(_))) => {}
        (Some(Protocol::Ip4(_) | Protocol::Ip6(_)), Some(Protocol::Udp(_))) => match parts.next() {
            Some(Protocol::QuicV1) if cfg!(feature = "quic") => {}
            Some(Protocol::QuicV1) => {
                return Err("this build has no QUIC (the cargo feature `quic` is off): use /tcp/".to_owned());
            }
            _ => return Err("after a UDP port /quic-v1 must follow".to_owned()),
        },
        (Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)), _) => {
            return Err("names are not supported by this version yet: write the IP address".to_owned());
        }
        _ => return Err("write it like /ip4/192.0.2.1/tcp/4001".to_owned()),
    }
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Ok(address),
        _ => Err("after the port only /p2p/PEER_ID may follow".to_owned()),
    }
}

/// Refuses to listen beyond loopback where anyone could connect: unless a network key or an allow list keeps strangers out, or
/// the user says that it shall be so.
pub fn check_listen(listen: &[Multiaddr], guarded: bool) -> Result<(), ConfigError> {
    let open = listen.iter().find(|address| !is_loopback(address));
    match open {
        Some(address) if !guarded => Err(ConfigError(format!(
            "listening on {address} lets anyone who reaches it read and write every dataset: make a key with `anabranch \
             network-key` and start every node with --network-key FILE, or name the peers in `access.allow`, or listen on \
             loopback; --insecure-open says that the network itself keeps others out"
        ))),
        _ => Ok(()),
    }
}

/// Whether only this machine reaches an address.
pub fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// Judges `[http]`.
pub fn http(page: &HttpPage) -> Result<HttpConfig, ConfigError> {
    let text = page.addr.strip_prefix("localhost:").map_or(page.addr.clone(), |port| format!("127.0.0.1:{port}"));
    let addr: SocketAddr = text.parse().map_err(|_| {
        ConfigError(format!("`http.addr`: {:?} is not an address with a port: write it like 127.0.0.1:7070", page.addr))
    })?;
    let token = match &page.token_file {
        None if addr.ip().is_loopback() => None,
        None => {
            return Err(ConfigError(format!(
                "the HTTP API on {addr} is open to whoever reaches it: set `http.token_file` to a file with a secret of at least \
                 {TOKEN_BYTES_MIN} characters, or use a loopback address"
            )));
        }
        Some(file) => Some(read_token(file)?),
    };
    Ok(HttpConfig { addr, token })
}

fn read_token(file: &std::path::Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError(format!("`http.token_file`: can't read {}: {error}", file.display())))?;
    super::access::warn_if_shared(file, "the HTTP token");
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN || token.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(ConfigError(format!(
            "`http.token_file`: {} must hold at least {TOKEN_BYTES_MIN} printable characters without spaces",
            file.display()
        )));
    }
    Ok(token.to_owned())
}
