//! Ctrl-C and SIGTERM: the first asks for a clean stop, a second Ctrl-C aborts.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// Listens for both signals from the moment it is made.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

/// What shells expect of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

impl StopSignals {
    /// Takes the signals over from the default, which would end the process at once.
    ///
    /// # Errors
    /// [`Failure::Other`] if the system refuses.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::other("can't listen for signals", error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Resolves with the name of the first signal.
    pub async fn first(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Ends the process at once when Ctrl-C comes again while it stops. What was acknowledged is durable, so nothing is lost.
    pub async fn abort_on_second(mut self) {
        self.interrupt.recv().await;
        eprintln!("anabranch: stopped without waiting");
        std::process::exit(INTERRUPTED);
    }
}
