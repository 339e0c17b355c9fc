//! What a starting node says: who it is, where it listens, and a line that starts a second node beside it.

use std::path::{Path, PathBuf};

use anabranch_actors::node::DatasetSettings;
use anabranch_protocol::id::DatasetId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::config::Config;
use crate::node::NodePage;

/// The printout.
#[must_use]
pub fn text(config: &Config, page: &NodePage, program: &str) -> String {
    let mut lines = vec![format!("anabranch {}", page.version), format!("peer id    {}", page.peer_id)];
    lines.extend(page.listen.iter().map(|address| format!("listening  {address}")));
    lines.extend(page.http.iter().map(|addr| format!("http       http://{addr}")));
    lines.push(format!("data       {}", page.data_dir));
    for (id, dataset) in &config.datasets {
        lines.push(format!("dataset    {id} ({}) replicates {}", dataset.kind, replicated(dataset)));
    }
    for (id, disabled) in &config.disabled {
        lines.push(format!("dataset    {id} ({}) does not run; {}", disabled.kind, disabled.reason));
    }
    lines.push(String::new());
    lines.push("A second node beside it:".to_owned());
    lines.push(format!("  {}", second_node(config, page, program)));
    lines.join("\n")
}

fn replicated(dataset: &DatasetSettings) -> String {
    let registration = &dataset.registration;
    if registration.all {
        "every collection".to_owned()
    } else if registration.collections.is_empty() {
        "nothing: name collections, or '*'".to_owned()
    } else {
        names(dataset)
    }
}

fn names(dataset: &DatasetSettings) -> String {
    if dataset.registration.all {
        return "*".to_owned();
    }
    let names: Vec<_> = dataset.registration.collections.iter().map(|name| name.as_str()).collect();
    names.join(",")
}

/// The command line of a node with other ports and its own data, that dials this one and has the same datasets.
fn second_node(config: &Config, page: &NodePage, program: &str) -> String {
    let mut words = vec![program.to_owned(), "run".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), quoted(&value)]);
    option("--data-dir", next_dir(&config.data_dir).display().to_string());
    for address in &config.listen {
        option("--listen", next_port(address).to_string());
    }
    let mut http = config.http.addr;
    http.set_port(next(http.port()));
    option("--http", http.to_string());
    if let Some(address) = page.listen.first() {
        option("--peer", address.clone());
    }
    for file in &config.network_key_files {
        option("--network-key", file.display().to_string());
    }
    let is_default = |(id, dataset): (&DatasetId, &DatasetSettings)| {
        id.is_primary() && dataset.registration.all && dataset.kind == anabranch_protocol::wire::Kind::Documents
    };
    if config.datasets.len() != 1 || !config.datasets.iter().all(is_default) {
        for (id, dataset) in &config.datasets {
            option("--dataset", format!("{id}:{}={}", dataset.kind, names(dataset)));
        }
    }
    words.join(" ")
}

/// `dir` numbered: `data` is followed by `data-2`, that by `data-3`.
fn next_dir(dir: &Path) -> PathBuf {
    let text = dir.display().to_string();
    let text = text.trim_end_matches('/');
    let numbered = text.rsplit_once('-').and_then(|(stem, number)| Some((stem, number.parse::<u32>().ok()?.checked_add(1)?)));
    match numbered {
        Some((stem, number)) => PathBuf::from(format!("{stem}-{number}")),
        None => PathBuf::from(format!("{text}-2")),
    }
}

/// The port after it; a free one stays a free one.
fn next(port: u16) -> u16 {
    if port == 0 { 0 } else { port.checked_add(1).unwrap_or(0) }
}

fn next_port(address: &Multiaddr) -> Multiaddr {
    let after = |part| match part {
        Protocol::Tcp(port) => Protocol::Tcp(next(port)),
        Protocol::Udp(port) => Protocol::Udp(next(port)),
        other => other,
    };
    address.iter().map(after).collect()
}

/// As a shell reads it back as one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_node_has_its_own_ports_and_data() {
        assert_eq!(next_dir(Path::new("./anabranch-data")), Path::new("./anabranch-data-2"));
        assert_eq!(next_dir(Path::new("x-2/")), Path::new("x-3"));
        assert_eq!(next_port(&"/ip4/127.0.0.1/tcp/4001".parse().unwrap()).to_string(), "/ip4/127.0.0.1/tcp/4002");
        let quic = next_port(&"/ip4/127.0.0.1/udp/4001/quic-v1".parse().unwrap());
        assert_eq!(quic.to_string(), "/ip4/127.0.0.1/udp/4002/quic-v1");
        assert_eq!((next(0), next(7070), next(u16::MAX)), (0, 7071, 0));
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a/b:c=*"), "'a/b:c=*'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("/ip4/127.0.0.1/tcp/0"), "/ip4/127.0.0.1/tcp/0");
    }
}
