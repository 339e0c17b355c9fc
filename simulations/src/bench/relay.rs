//! A TCP relay that counts what passes: what two nodes say to each other, with everything below it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A port that leads to another one.
#[derive(Debug)]
pub struct Relay {
    /// Where to dial.
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// A relay in front of `target`, until the program ends.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let Ok(there) = TcpStream::connect(target) else { continue };
                join(&here, &there, &counted);
            }
        });
        Self { address, bytes }
    }

    /// Bytes that passed so far, both ways, without the headers of TCP and IP.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn join(here: &TcpStream, there: &TcpStream, bytes: &Arc<AtomicU64>) {
    for (from, to) in [(here, there), (there, here)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let counted = Arc::clone(bytes);
        // Loopback waits for nothing, so neither may the relay.
        let _ = to.set_nodelay(true);
        std::thread::spawn(move || pump(from, to, &counted));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Both);
}
