//! The address book: who was accepted, and where to find them after a restart.
//!
//! One JSON file, replaced as a whole (temporary file, fsync, rename, fsync of the directory), so that a crash leaves the old or
//! the new one. Writing happens on a blocking thread, latest state wins: a slow disk never delays the network. A file that
//! can't be read is set aside, never deleted: the node starts with the peers it is told of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::address::ADDRESSES_PER_PEER_MAX;

/// Peers kept; past that the one accepted longest ago goes.
const PEERS_MAX: usize = 1_024;
/// Largest file that is read back.
const FILE_BYTES_MAX: u64 = 8 << 20;
const VERSION: u32 = 1;
/// Who may wait for the file to be written.
const WAITING_MAX: usize = 64;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    version: u32,
    peers: BTreeMap<String, Entry>,
}

/// A peer in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    addresses: Vec<Multiaddr>,
    /// Unix seconds.
    accepted_at: u64,
}

/// Hears once a change is on disk. Dropped: that is not known.
pub(super) type Written = oneshot::Sender<Result<(), String>>;

/// The address book of a running swarm.
#[derive(Debug)]
pub(super) struct AddressBook {
    page: Page,
    latest: watch::Sender<Page>,
    /// Who waits for the latest page.
    asked: mpsc::Sender<Written>,
    writer: JoinHandle<()>,
}

impl AddressBook {
    /// Reads the file and starts the task that writes it.
    pub(super) fn open(path: PathBuf) -> Self {
        let page = read_or_set_aside(&path);
        let (latest, changes) = watch::channel(page.clone());
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        let writer = tokio::spawn(write_latest(path, changes, waiting));
        Self { page, latest, asked, writer }
    }

    /// Everyone in it.
    pub(super) fn peers(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let entries = self.page.peers.iter();
        entries.filter_map(|(peer, entry)| Some((peer.parse().ok()?, entry.addresses.clone()))).collect()
    }

    /// Remembers an accepted peer and has the file written at once; who had to go for it.
    pub(super) fn accepted(&mut self, peer: &PeerId, mut addresses: Vec<Multiaddr>) -> Vec<PeerId> {
        let mut gone = Vec::new();
        addresses.truncate(ADDRESSES_PER_PEER_MAX);
        let accepted_at = seconds_now();
        self.page.peers.insert(peer.to_string(), Entry { addresses, accepted_at });
        while self.page.peers.len() > PEERS_MAX {
            let oldest = self.page.peers.iter().min_by_key(|(_, entry)| entry.accepted_at).map(|(peer, _)| peer.clone());
            let Some(oldest) = oldest else { break };
            self.page.peers.remove(&oldest);
            gone.extend(oldest.parse::<PeerId>());
        }
        self.latest.send_replace(self.page.clone());
        gone
    }

    /// Forgets a peer; `written` hears once the file does not name it, also where an earlier change was not written yet.
    pub(super) fn forget(&mut self, peer: &PeerId, written: Written) {
        if self.page.peers.remove(&peer.to_string()).is_some() {
            self.latest.send_replace(self.page.clone());
        }
        // While too many wait, nobody learns when it was written; it is all the same.
        let _ = self.asked.try_send(written);
    }

    /// Waits until the latest state is on disk.
    pub(super) async fn close(self) {
        drop((self.latest, self.asked));
        let _ = self.writer.await;
    }
}

/// Adds a peer that a user told of to the book in `path`, durably, so that it is dialed from the next start on. Its addresses come
/// before those that are known. Nobody else may have the book open.
pub(crate) fn introduce(path: &Path, peer: &PeerId, mut addresses: Vec<Multiaddr>) -> io::Result<()> {
    let mut page = read_or_set_aside(path);
    let known = page.peers.remove(&peer.to_string());
    for address in known.into_iter().flat_map(|entry| entry.addresses) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(ADDRESSES_PER_PEER_MAX);
    page.peers.insert(peer.to_string(), Entry { addresses, accepted_at: seconds_now() });
    write_atomically(path, &page)
}

/// Whether the book in `path` has a peer. One that can't be read has nobody.
pub(crate) fn knows(path: &Path, peer: &PeerId) -> bool {
    read(path).is_ok_and(|page| page.peers.contains_key(&peer.to_string()))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn write_latest(path: PathBuf, mut changes: watch::Receiver<Page>, mut asked: mpsc::Receiver<Written>) {
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            biased;
            Some(written) = asked.recv() => waiting.push(written),
            // It still reports an unseen value after the sender is gone.
            changed = changes.changed() => if changed.is_err() { return },
        }
        // Before the page is taken: whoever asked by now has made its change.
        waiting.extend(std::iter::from_fn(|| asked.try_recv().ok()));
        let page = changes.borrow_and_update().clone();
        let to = path.clone();
        let written = tokio::task::spawn_blocking(move || write_atomically(&to, &page)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &written {
            tracing::error!(%error, path = %path.display(), "the address book was not written");
        }
        for waiting in waiting {
            // Whoever does not wait any more does not need to know.
            let _ = waiting.send(written.as_ref().copied().map_err(ToString::to_string));
        }
    }
}

fn write_atomically(path: &Path, page: &Page) -> io::Result<()> {
    let page = Page { version: VERSION, ..page.clone() };
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(&page)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn read_or_set_aside(path: &Path) -> Page {
    match read(path) {
        Ok(page) => page,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Page::default(),
        Err(error) => {
            let aside = path.with_extension("json.unreadable");
            tracing::warn!(%error, path = %path.display(), aside = %aside.display(), "the address book is unreadable and set aside");
            if let Err(error) = fs::rename(path, &aside) {
                tracing::warn!(%error, "setting the address book aside failed");
            }
            Page::default()
        }
    }
}

fn read(path: &Path) -> io::Result<Page> {
    let bytes = fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{bytes} bytes are over the limit of {FILE_BYTES_MAX}")));
    }
    decode(&fs::read(path)?)
}

fn decode(bytes: &[u8]) -> io::Result<Page> {
    let page: Page = serde_json::from_slice(bytes)?;
    if page.version == VERSION { Ok(page) } else { Err(io::Error::other(format!("version {} is unknown", page.version))) }
}

/// What is read as an address book is written as one that reads the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(page) = decode(bytes) {
        let again = serde_json::to_vec_pretty(&page).expect("an address book is JSON");
        assert_eq!(decode(&again).expect("and reads as one"), page);
        for (peer, entry) in &page.peers {
            let _ = peer.parse::<PeerId>();
            super::address::fuzz(&entry.addresses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_accepted_is_read_back_and_rubbish_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("address_book.json");
        let (kept, gone) = (PeerId::random(), PeerId::random());
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();

        let mut book = AddressBook::open(path.clone());
        assert!(book.peers().is_empty());
        book.accepted(&kept, vec![address.clone()]);
        book.accepted(&gone, vec![address.clone()]);
        let (written, heard) = oneshot::channel();
        book.forget(&gone, written);
        assert_eq!(heard.await, Ok(Ok(())));
        assert!(knows(&path, &kept) && !knows(&path, &gone), "it is on the disk by then");
        fs::create_dir(path.with_extension("json.tmp")).unwrap();
        let (written, heard) = oneshot::channel();
        book.forget(&gone, written);
        assert!(heard.await.unwrap().is_err(), "what can't be written is not said to be");
        fs::remove_dir(path.with_extension("json.tmp")).unwrap();
        book.close().await;

        let book = AddressBook::open(path.clone());
        assert_eq!(book.peers(), [(kept, vec![address.clone()])]);
        book.close().await;

        let second: Multiaddr = "/ip4/127.0.0.1/tcp/4002".parse().unwrap();
        introduce(&path, &kept, vec![second.clone()]).unwrap();
        introduce(&path, &gone, vec![second.clone()]).unwrap();
        let book = AddressBook::open(path.clone());
        let told: BTreeMap<_, _> = book.peers().into_iter().collect();
        assert_eq!((&told[&kept], &told[&gone]), (&vec![second.clone(), address], &vec![second]));
        assert!(knows(&path, &gone) && !knows(&path, &PeerId::random()));
        book.close().await;

        fs::write(&path, "{").unwrap();
        assert!(AddressBook::open(path.clone()).peers().is_empty());
        assert!(!path.exists() && directory.path().join("address_book.json.unreadable").exists());
    }
}
