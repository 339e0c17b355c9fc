//! How far a long command is: a bar on a terminal, and a last line with the rate.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// See the module documentation. Everything goes to standard error.
pub struct Progress {
    bar: ProgressBar,
    since: Instant,
}

const TICK: Duration = Duration::from_millis(120);

impl Progress {
    /// Progress through a known number of bytes.
    pub fn of_bytes(total: Option<u64>) -> Self {
        Self::new(total, "{bar:30} {bytes}/{total_bytes} {msg} {eta}", "{spinner} {bytes} {msg}")
    }

    /// Progress through a number of documents.
    pub fn of_documents(total: Option<u64>) -> Self {
        Self::new(total, "{bar:30} {human_pos}/{human_len} documents {rate} {eta}", "{spinner} {human_pos} documents {rate}")
    }

    fn new(total: Option<u64>, bar: &str, spinner: &str) -> Self {
        let since = Instant::now();
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), since };
        }
        let (bar, style) = match total {
            Some(total) => (ProgressBar::new(total), ProgressStyle::with_template(bar)),
            None => (ProgressBar::new_spinner(), ProgressStyle::with_template(spinner)),
        };
        let per_second = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that can't be drawn is nobody's failure.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.expect("a fixed, valid template").with_key("rate", per_second));
        bar.enable_steady_tick(TICK);
        Self { bar, since }
    }

    /// So much more is done.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    /// What to say beside the bar.
    pub fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Takes the bar away and says how long it took.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.since.elapsed()
    }
}

/// `1,234 documents in 1.2 s (1028/s)`, for `what` of one document
pub fn rate(count: u64, what: &str, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    // A rate over no time says nothing.
    let per_second = if seconds > 0.001 { format!(" ({:.0}/s)", count as f64 / seconds) } else { String::new() };
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural} in {seconds:.1} s{per_second}", HumanCount(count))
}
