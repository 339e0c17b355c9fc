//! What is shown: tables on the terminal, `scale.json`, and `scale.html` with the same tables and plots, which needs no other file.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::measure::{Convergence, Measured, SETTLING};
use super::message::Kind;
use super::plot;
use super::traffic::PerNode;
use super::weights::Weights;
use crate::page::plot::PlotError;
use crate::page::table::{Table, heads};
use crate::page::{bytes, escaped, page, whole};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// How it is measured again.
    pub command: String,
    pub seed: u64,
    pub degree: u32,
    pub datasets: u32,
    pub sizes: Vec<Measured>,
    /// Where every node writes.
    pub weights: Vec<Weights>,
}

impl Report {
    /// Writes both files.
    ///
    /// # Errors
    /// When the directory or a file can't be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("scale.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(directory.join("scale.html"), self.html().map_err(io::Error::other)?)
    }

    /// The tables as text.
    pub fn text(&self) -> String {
        self.tables().iter().map(Table::text).collect::<Vec<_>>().join("\n")
    }

    fn html(&self) -> Result<String, PlotError> {
        let mut body = format!("{ABOUT}<p><code>{}</code></p><div class=\"plots\">", escaped(&self.command));
        plot::all(&self.sizes)?.iter().for_each(|plot| body.push_str(&plot.html()));
        body.push_str("</div>");
        self.tables().iter().for_each(|table| body.push_str(&table.html()));
        let _ = writeln!(body, "<p>Traces: {}.</p>", self.traces());
        Ok(page("Anabranch: how the protocol scales", &body))
    }

    fn traces(&self) -> String {
        let trace = |size: &Measured| format!("{} nodes <code>{}</code>", size.nodes, size.trace);
        self.sizes.iter().map(trace).collect::<Vec<_>>().join(", ")
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![times(&self.sizes), traffic(&self.sizes)];
        let burst = |size: &Measured| size.burst.clone();
        let join = |size: &Measured| size.join.clone();
        let returned = |size: &Measured| size.returned.clone();
        let seconds = SETTLING.as_secs();
        tables.push(by_kind(format!("Burst: bytes a node sent in the {seconds} s from the writes on"), &self.sizes, burst));
        tables.push(messages_by_kind(
            format!("Burst: messages a node sent in the {seconds} s from the writes on"),
            &self.sizes,
            burst,
        ));
        tables.push(by_kind(format!("Join: bytes a node sent in the first {seconds} s"), &self.sizes, join));
        tables.push(by_kind("Idle: bytes a node sent a second".to_owned(), &self.sizes, per_second));
        tables.push(by_kind(
            format!("Return of one node: bytes a node sent in the {seconds} s from then on"),
            &self.sizes,
            returned,
        ));
        tables.push(weights(&self.weights));
        tables
    }
}

/// Idle traffic, a second.
pub(super) fn per_second(size: &Measured) -> PerNode {
    let mut idle = size.idle.clone();
    for value in idle.bytes_by_kind.values_mut().chain(idle.messages_by_kind.values_mut()) {
        *value /= size.idle_s;
    }
    idle.bytes /= size.idle_s;
    idle.messages /= size.idle_s;
    idle
}

fn times(sizes: &[Measured]) -> Table {
    let row = |size: &Measured| {
        let reached = |of: Convergence| {
            if of.whole { format!("{:.0} / {:.0} / {:.0}", of.p50, of.p99, of.max) } else { "not all".to_owned() }
        };
        vec![
            size.nodes.to_string(),
            size.diameter.to_string(),
            size.join_ms.map_or_else(|| "not all".to_owned(), |ms| format!("{ms:.0}")),
            reached(size.documents),
            reached(size.records),
            size.return_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0}")),
            format!("{:.1}", size.confirmed_percent),
            format!("{:.1}", size.confirmed_later_percent),
            if size.equal { "yes" } else { "no" }.to_owned(),
        ]
    };
    Table {
        title: "Time, ms".to_owned(),
        note: "Documents and records: until half, 99 of 100, all nodes had every commit of the burst. Confirmed: of all pairs of \
               nodes, how many of which one knew by signed statement, 30 s after the burst, that the other has everything; later: after the \
               idle minutes."
            .to_owned(),
        heads: heads(&[
            "nodes",
            "hops",
            "all sessions up",
            "documents p50 / p99 / max",
            "records p50 / p99 / max",
            "return",
            "confirmed, %",
            "later, %",
            "equal",
        ]),
        rows: sizes.iter().map(row).collect(),
        words: false,
    }
}

fn traffic(sizes: &[Measured]) -> Table {
    let row = |size: &Measured| {
        let idle = per_second(size);
        vec![
            size.nodes.to_string(),
            bytes(size.join.bytes),
            count(size.burst.messages),
            bytes(size.burst.bytes),
            bytes(size.burst.bytes - confirming(&size.burst) - kind_bytes(&size.burst, Kind::Announce)),
            format!("{:.1}", size.neighbours),
            format!("{:.1}", idle.bytes),
            format!("{:.2}", idle.bytes / size.neighbours),
            format!("{:.2}", idle.messages),
            bytes(whole(size.returner)),
            bytes(size.returned.bytes * f64::from(size.nodes)),
        ]
    };
    Table {
        title: "Messages and bytes, mean of a node".to_owned(),
        note: "What a node sends; as much it receives. Burst: without `confirm`, `pushed` and `announce` it is what the commits \
               themselves cost. Return: what the one node sent and received, and what all nodes together sent meanwhile."
            .to_owned(),
        heads: heads(&[
            "nodes",
            "join bytes",
            "burst messages",
            "burst bytes",
            "of it for commits",
            "neighbours",
            "idle bytes/s",
            "to each neighbour",
            "idle messages/s",
            "return: the node",
            "return: all",
        ]),
        rows: sizes.iter().map(row).collect(),
        words: false,
    }
}

fn confirming(sent: &PerNode) -> f64 {
    kind_bytes(sent, Kind::Confirm) + kind_bytes(sent, Kind::Pushed)
}

pub(super) fn kind_bytes(sent: &PerNode, kind: Kind) -> f64 {
    sent.bytes_by_kind.get(&kind).copied().unwrap_or(0.0)
}

fn by_kind(title: String, sizes: &[Measured], of: impl Fn(&Measured) -> PerNode) -> Table {
    kinds(
        title,
        sizes,
        |size, kind| of(size).bytes_by_kind.get(&kind).copied(),
        |value| {
            if value < 100.0 { format!("{value:.1}") } else { bytes(value) }
        },
    )
}

fn messages_by_kind(title: String, sizes: &[Measured], of: impl Fn(&Measured) -> PerNode) -> Table {
    kinds(title, sizes, |size, kind| of(size).messages_by_kind.get(&kind).copied(), count)
}

fn kinds(
    title: String,
    sizes: &[Measured],
    value: impl Fn(&Measured, Kind) -> Option<f64>,
    shown: impl Fn(f64) -> String,
) -> Table {
    let used: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| sizes.iter().any(|size| value(size, *kind).is_some())).collect();
    let row = |size: &Measured| {
        let cells = used.iter().map(|kind| value(size, *kind).map_or_else(|| "0".to_owned(), &shown));
        std::iter::once(size.nodes.to_string()).chain(cells).collect()
    };
    let named = std::iter::once("nodes").chain(used.iter().map(|kind| kind.name()));
    let heads = named.map(str::to_owned).collect();
    Table { title, note: String::new(), heads, rows: sizes.iter().map(row).collect(), words: false }
}

fn weights(weights: &[Weights]) -> Table {
    let row = |one: &Weights| {
        let sizes = [one.round, one.hello, one.heads, one.statement];
        std::iter::once(one.writers.to_string()).chain(sizes.iter().map(|size| bytes(whole(*size as u64)))).collect()
    };
    Table {
        title: "One message where every node writes, bytes".to_owned(),
        note: "Vectors name every writer: what carries one grows with them.".to_owned(),
        heads: heads(&["writers", "round", "hello", "heads that differ", "one statement"]),
        rows: weights.iter().map(row).collect(),
        words: false,
    }
}

fn count(count: f64) -> String {
    if count < 10.0 { format!("{count:.1}") } else { format!("{count:.0}") }
}

const ABOUT: &str = "<p>The pure rules of the protocol, without actors, under virtual time. Links take 5 to 50 ms one way and lose \
nothing, bandwidth is unbounded; bytes are those of encoded messages, without what encryption, multiplexing and gossipsub add to them.</p>";
