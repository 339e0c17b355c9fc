//! Joining by an invite: from what `--join` says to a data directory that needs no invite any more.
//!
//! Everything that could refuse is looked at before anything is written, HTTP's address too; the network alone starts after it, for
//! it starts with the key. Then the directory gets the lineages, the address of
//! the node that invites, and last the network key; each step is whole or not done, and joining again finishes what a crash cut
//! short.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anabranch_actors::api::LineageSetting;
use anabranch_actors::dataset::lineage;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::PeerId;
use anabranch_protocol::invite::{Invite, Untimely};
use anabranch_protocol::network_key::{Keyring, NetworkKey};
use libp2p::Multiaddr;

use crate::builder::ADDRESS_BOOK_FILE;
use crate::config::{Config, STORED_KEY_FILE};
use crate::process::Failure;
use crate::process::data_dir::write_whole;
use crate::swarm;
use crate::wall_time::rfc3339;

/// Largest file or input that is read as an invite, bytes.
const INPUT_MAX: u64 = 64 << 10;

/// The invite that `--join` names: the string itself, a file that holds it, or `-` for standard input.
///
/// # Errors
/// [`Failure::Usage`]; what was read is never quoted.
pub fn read(argument: &str) -> Result<Invite, Failure> {
    let text = if argument == "-" {
        read_all(std::io::stdin().lock()).map_err(|error| Failure::Usage(format!("--join -: can't read: {error}")))?
    } else if Invite::is_meant(argument) && !Path::new(argument).exists() {
        tracing::warn!("--join INVITE shows the invite, a secret, in the process list: give it as a file, or by --join -");
        argument.to_owned()
    } else {
        read_file(Path::new(argument))?
    };
    Invite::from_text(&text).map_err(|error| Failure::Usage(format!("--join: {error}")))
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let refused = |error: std::io::Error| {
        let hint = "an invite begins with `anabranch1`; `anabranch invite` on a running node makes one";
        // It may be a secret with a slip in it: not shown.
        Failure::Usage(format!("--join names neither an invite nor a file that can be read ({error}): {hint}"))
    };
    crate::config::warn_if_shared(path, "the invite");
    std::fs::File::open(path).and_then(read_all).map_err(refused)
}

fn read_all(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(INPUT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Refuses an invite that expired, unless the node joined by it before: the directory has the key it brought, or knows its node.
/// Changes nothing.
///
/// # Errors
/// [`Failure::Usage`].
pub fn check_time(invite: &Invite, data_dir: &Path, now: WallClock) -> Result<(), Failure> {
    let Err(untimely) = invite.check_time(now) else { return Ok(()) };
    let known = swarm::to_libp2p(invite.peer).is_some_and(|peer| swarm::knows(&data_dir.join(ADDRESS_BOOK_FILE), &peer));
    // Joining writes the key last; the node that invited may have been removed or forgotten since.
    if known || has_key_of(invite, data_dir) {
        tracing::info!("the node joined by this invite before; it needs no --join any more");
        return Ok(());
    }
    Err(Failure::Usage(format!("--join: {}", in_words(invite, untimely, now))))
}

fn has_key_of(invite: &Invite, data_dir: &Path) -> bool {
    let stored = std::fs::read_to_string(data_dir.join(STORED_KEY_FILE)).ok().and_then(|text| NetworkKey::from_text(&text).ok());
    invite.network_key.as_ref().is_some_and(|key| stored.is_some_and(|stored| Keyring::new([stored]).contains(key)))
}

fn in_words(invite: &Invite, untimely: Untimely, now: WallClock) -> String {
    let (now, made) = (rfc3339(now), rfc3339(invite.made_at));
    let expires = invite.expires_at.map(rfc3339).unwrap_or_default();
    match untimely {
        Untimely::Expired { ago } => format!(
            "the invite expired {} ago: it was made at {made}, ended at {expires}, and this machine's clock says {now}. Ask for a \
             new one (`anabranch invite`); if this clock is wrong, set it",
            span(ago)
        ),
        Untimely::ClockBehind { by } => format!(
            "this machine's clock says {now}, {} before the invite was made ({made}): with one of the two clocks wrong nobody can \
             tell whether it expired. Set the clock right",
            span(by)
        ),
    }
}

fn span(time: Duration) -> String {
    let whole = if time < Duration::from_secs(1) { time } else { Duration::from_secs(time.as_secs()) };
    humantime::format_duration(whole).to_string()
}

/// Writes into the data directory what the invite says, so that later starts need none. `config` is as it will run.
///
/// # Errors
/// [`Failure::Usage`] if the invite is this node's own or names nothing that can be dialed: nothing was changed.
/// [`Failure::Other`] if the file system refuses; joining again goes on.
pub fn join(invite: &Invite, me: PeerId, data_dir: &Path, config: &mut Config) -> Result<(), Failure> {
    if invite.peer == me {
        let own = "--join: this node made the invite itself: give it to another node, or name another --data-dir";
        return Err(Failure::Usage(own.to_owned()));
    }
    let (peer, addresses) = whom_to_dial(invite)?;
    let refused = |error: std::io::Error| Failure::other(format!("can't join: can't write in {}", data_dir.display()), error);
    for (dataset, line) in &invite.lineages {
        let open = config.datasets.get(dataset).is_some_and(|settings| settings.lineage == LineageSetting::Open);
        if open && lineage::expect(&data_dir.join("datasets").join(dataset.as_str()), *line).map_err(refused)? {
            tracing::info!(%dataset, "a new store of the dataset gets the lineage that the invite names");
        }
    }
    swarm::introduce(&data_dir.join(ADDRESS_BOOK_FILE), &peer, addresses).map_err(refused)?;
    if let Some(key) = invite.network_key.as_ref().filter(|_| config.network_key_files.is_empty()) {
        let file = data_dir.join(STORED_KEY_FILE);
        write_whole(&file, format!("{}\n", key.to_text()).as_bytes()).map_err(refused)?;
        config.network_key_files = vec![file];
    }
    tracing::info!(peer = %invite.peer, "joins by an invite; later starts need none");
    Ok(())
}

fn whom_to_dial(invite: &Invite) -> Result<(libp2p::PeerId, Vec<Multiaddr>), Failure> {
    let usable = |address: &String| crate::config::multiaddr(address).ok().map(|address| swarm::split_peer(&address).0);
    let addresses: Vec<_> = invite.addresses.iter().filter_map(usable).collect();
    match swarm::to_libp2p(invite.peer) {
        Some(peer) if !addresses.is_empty() => Ok((peer, addresses)),
        _ => Err(Failure::Usage("--join: the invite names no address that this build can dial".to_owned())),
    }
}
