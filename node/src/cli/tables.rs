//! Answers of a node as tables for people.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

/// Keys that are longer push their values to the right.
const KEY_WIDTH_MAX: usize = 40;

/// Of a table of datasets: how large the log is, which is a part of what is on disk.
const LOG_COLUMN: usize = 5;
/// Between two columns.
const GAP: &str = "  ";
/// A name in the first column is not cut shorter than this.
const NAME_WIDTH_MIN: usize = 12;

/// A row per dataset, and below them what there is to say.
pub fn datasets(datasets: &Json, width: usize) -> String {
    let mut grid = Grid::new(&["DATASET", "KIND", "STATE", ">DOCUMENTS", ">COMMITS", ">LOG", ">DISK", ">WRITERS", "REPLICATES"]);
    let mut notes = Vec::new();
    for dataset in items(datasets) {
        let collections: Vec<_> = items(&dataset["collections"]).iter().map(text).collect();
        let name = text(&dataset["dataset_id"]);
        notes.extend(note(dataset).map(|note| wrapped(&note, &format!("{name}: "), width)));
        grid.row([
            name,
            text(&dataset["kind"]),
            state(dataset),
            text(&dataset["documents"]),
            text(&dataset["commits"]),
            size(&dataset["oplog_bytes"]),
            size(&dataset["disk_bytes"]),
            dataset["vector"].as_object().map_or_else(|| "-".to_owned(), |vector| vector.len().to_string()),
            if collections.is_empty() { "nothing".to_owned() } else { collections.join(",") },
        ]);
    }
    let table = if grid.fits(width) {
        grid.fitted(width)
    } else {
        // What is replicated can be long and is words: it goes below.
        let known = |(name, replicated): (String, String)| (replicated != "nothing").then_some((name, replicated));
        let replicated = grid.take_last().into_iter().filter_map(known);
        let lines = replicated.map(|(name, replicated)| wrapped(&replicated, &format!("{name} replicates: "), width));
        notes.splice(0..0, lines);
        grid.or_without(&[LOG_COLUMN], width).fitted(width)
    };
    if notes.is_empty() { table } else { format!("{table}\n\n{}", notes.join("\n")) }
}

/// A block per peer, a line of it per dataset: a peer's id fills most of a line, and is shown whole for it is what commands take.
pub fn peers(peers: &Json, width: usize) -> String {
    if items(peers).is_empty() {
        return "No peers yet: `anabranch invite` makes a string that lets another node join.".to_owned();
    }
    let blocks: Vec<_> = items(peers).iter().map(|peer| peer_block(peer, width)).collect();
    blocks.join("\n\n")
}

fn peer_block(peer: &Json, width: usize) -> String {
    let connected = match (peer["disabled"].as_bool(), peer["connected"].as_bool(), peer["rtt_ms"].as_f64()) {
        (Some(true), _, _) => "disabled".to_owned(),
        (_, Some(true), Some(rtt)) => format!("connected, {rtt:.1} ms"),
        (_, Some(true), None) => "connected".to_owned(),
        _ => "not connected".to_owned(),
    };
    let mut lines = vec![format!("{}  {connected}", text(&peer["peer_id"]))];
    let addresses: Vec<_> = items(&peer["addresses"]).iter().map(text).collect();
    if !addresses.is_empty() {
        lines.push(wrapped(&addresses.join(" "), "  at ", width));
    }
    let member = |name: &String| {
        let has = |field: &str| items(&peer[field]).iter().any(|dataset| dataset == name);
        if has("enrolled") {
            "enrolled"
        } else if has("demoted") {
            "demoted"
        } else {
            "-"
        }
    };
    let states: BTreeMap<&String, &Json> = peer["datasets"].as_object().into_iter().flatten().collect();
    let refused = peer["refused"].as_str();
    let mut names: BTreeSet<String> = states.keys().map(|name| (*name).clone()).collect();
    names.extend(["enrolled", "demoted"].iter().flat_map(|field| items(&peer[*field])).map(text));
    let mut grid = Grid::new(&[]);
    let mut reasons = Vec::new();
    for name in &names {
        let state = states.get(name).copied().unwrap_or(&Json::Null);
        grid.row([format!("  {}", printable(name)), text(&state["state"]), lag(state), member(name).to_owned()]);
        // What concerns the peer as a whole is said once.
        let reason = state["reason"].as_str().filter(|reason| Some(*reason) != refused);
        reasons.extend(reason.map(|reason| wrapped(reason, &format!("  {name}: "), width)));
    }
    if !names.is_empty() {
        lines.push(grid.fitted(width));
    }
    lines.extend(refused.map(|reason| wrapped(reason, "  ", width)));
    lines.extend(reasons);
    lines.join("\n")
}

/// Cells in columns that are as wide as they have to be.
pub struct Grid {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// Names of columns; `>` before one aligns it right. Without any the rows stand alone.
    pub fn new(header: &[&str]) -> Self {
        let right = header.iter().map(|name| name.starts_with('>')).collect();
        let names: Vec<_> = header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: if names.is_empty() { Vec::new() } else { vec![names] } }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or_default()
        };
        (0..columns).map(widest).collect()
    }

    /// Whether nothing has to be cut.
    fn fits(&self, width: usize) -> bool {
        total(&self.widths()) <= width
    }

    /// The table without these columns, where not even short names make it fit.
    pub fn or_without(mut self, columns: &[usize], width: usize) -> Self {
        let mut widths = self.widths();
        if let Some(first) = widths.first_mut() {
            *first = NAME_WIDTH_MIN.min(*first);
        }
        if total(&widths) > width {
            let kept = |cells: &mut Vec<String>| {
                let mut column = 0..;
                cells.retain(|_| column.next().is_none_or(|column| !columns.contains(&column)));
            };
            self.rows.iter_mut().for_each(kept);
            let mut column = 0..;
            self.right.retain(|_| column.next().is_none_or(|column| !columns.contains(&column)));
        }
        self
    }

    /// Takes the last column out: each row's first cell and its last.
    fn take_last(&mut self) -> Vec<(String, String)> {
        let taken = self.rows.iter_mut().map(|row| (row.first().cloned().unwrap_or_default(), row.pop().unwrap_or_default()));
        taken.skip(1).collect()
    }

    /// No line longer than `width`. The first column gives way, as far as a name is still one; then what does not fit is cut.
    pub fn fitted(&self, width: usize) -> String {
        let mut widths = self.widths();
        let wanted = total(&widths);
        if let Some(first) = widths.first_mut() {
            *first = (*first).min(NAME_WIDTH_MIN.max(first.saturating_sub(wanted.saturating_sub(width))));
        }
        let line = |row: &Vec<String>| {
            let cell = |(column, cell): (usize, &String)| {
                let right = self.right.get(column).copied().unwrap_or_default();
                let to = if right { console::Alignment::Right } else { console::Alignment::Left };
                console::pad_str(cell, widths[column], to, Some("…")).into_owned()
            };
            let cells: Vec<_> = row.iter().enumerate().map(cell).collect();
            let line = cells.join(GAP);
            console::truncate_str(line.trim_end(), width, "…").into_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

/// How wide what is shown may be: the terminal, or as wide as it gets where nobody looks.
pub fn width() -> usize {
    console::Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| usize::from(columns))
}

/// Words after `lead`, broken before `width`; further lines stand below the words.
pub fn wrapped(words: &str, lead: &str, width: usize) -> String {
    let indent = " ".repeat(console::measure_text_width(lead).min(12));
    let (mut text, mut column, mut first) = (lead.to_owned(), console::measure_text_width(lead), true);
    for word in printable(words).split(' ') {
        let length = console::measure_text_width(word);
        if !first && column.saturating_add(1 + length) > width {
            text += &format!("\n{indent}");
            column = indent.len();
        } else if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        first = false;
    }
    text
}

/// The end of an id: all begin alike.
pub fn id_tail(id: &str) -> String {
    let tail: Vec<char> = id.chars().rev().take(8).collect();
    format!("…{}", tail.into_iter().rev().collect::<String>())
}

/// How far a dataset is from a peer's.
pub fn lag(state: &Json) -> String {
    match (state["lag_commits"].as_u64().unwrap_or_default(), state["lag_seconds"].as_f64()) {
        (0, _) => "-".to_owned(),
        (1, seconds) => format!("1 commit, {:.1} s", seconds.unwrap_or_default()),
        (commits, seconds) => format!("{commits} commits, {:.1} s", seconds.unwrap_or_default()),
    }
}

/// A row per document; on a terminal a value is cut where the line ends.
pub fn documents(rows: &[Json]) -> String {
    let width = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let keys: Vec<_> = rows.iter().map(|row| text(&row["key"])).collect();
    let column = keys.iter().map(|key| console::measure_text_width(key)).max().unwrap_or_default().min(KEY_WIDTH_MAX);
    let line = |(row, key): (&Json, &String)| {
        // JSON escapes some control characters, not all.
        let value = printable(&row["value"].to_string());
        let line = format!("{}  {value}", console::pad_str(key, column, console::Alignment::Left, None));
        let line = width.map_or(line.clone(), |width| console::truncate_str(&line, width, "…").into_owned());
        line + "\n"
    };
    rows.iter().zip(&keys).map(line).collect()
}

pub fn items(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Words that another node may have said, such as why it refuses: they don't move the cursor, colour or reorder what is shown.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        // Marks that turn the direction of what follows.
        '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// What a dataset is doing; one that is not to run is not paused.
pub fn state(dataset: &Json) -> String {
    if is_disabled(dataset) { "disabled".to_owned() } else { text(&dataset["state"]) }
}

pub fn is_disabled(dataset: &Json) -> bool {
    dataset["enabled"].as_bool() == Some(false)
}

/// Why the dataset doesn't run, and what was set aside of it.
fn note(dataset: &Json) -> Option<String> {
    let reason = dataset["reason"].as_str().map(str::to_owned);
    let aside = items(&dataset["set_aside"]);
    let kept = aside.last().map(|last| {
        let path = text(&last["path"]);
        match aside.len() {
            1 => format!("a damaged store was set aside: {path}"),
            count => format!("{count} damaged stores were set aside, the last: {path}"),
        }
    });
    let notes: Vec<_> = reason.into_iter().chain(kept).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

pub fn size(value: &Json) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| bytesize::ByteSize(bytes).to_string())
}

pub fn span(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dataset_that_can_not_tell_shows_dashes_and_why() {
        let rows = json!([{ "dataset_id": "logs", "kind": "append", "state": "failed", "reason": "disk broke" }]);
        let table = datasets(&rows, 80);
        assert!(
            table.contains("logs") && table.contains("failed") && table.contains("disk broke") && table.contains('-'),
            "{table}"
        );
    }

    #[test]
    fn a_dataset_shows_what_was_set_aside() {
        let rows = json!([{ "dataset_id": "logs", "state": "running", "set_aside": [{ "path": "/d/logs.aside-1" }] }]);
        assert!(datasets(&rows, usize::MAX).contains("set aside: /d/logs.aside-1"));
    }

    #[test]
    fn peers_show_how_far_each_dataset_is_apart() {
        let rows = json!([{ "peer_id": "12D3", "connected": true, "addresses": [], "rtt_ms": 0.25, "datasets": {
            "primary": { "state": "behind", "lag_commits": 3, "lag_seconds": 0.5, "reason": null } } }]);
        let table = peers(&rows, 80);
        assert!(table.contains("behind") && table.contains("3 commits, 0.5 s") && table.contains("connected"), "{table}");
        assert!(peers(&json!([]), 80).contains("anabranch invite"));
    }

    #[test]
    fn what_a_peer_says_does_not_reach_the_terminal_raw() {
        let evil = "no\u{1b}[2J\u{9b}31m\u{202e}\r\nall is well\u{7}";
        let rows = json!([{ "peer_id": "12D3", "connected": false, "addresses": [evil], "refused": evil,
            "datasets": { "primary": { "state": evil, "reason": format!("it says: {evil}") } } }]);
        let data = json!([{ "dataset_id": "logs", "kind": "append", "state": "failed", "reason": evil, "collections": [evil],
            "set_aside": [{ "path": evil }] }]);
        let documents = documents(&[json!({ "key": evil, "value": evil })]);
        for table in [peers(&rows, 80), datasets(&data, 80), documents] {
            let raw = table.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert!(table.contains("all is well") && raw.is_none(), "{raw:?}: {table:?}");
            assert!(!table.lines().any(|line| line.starts_with("all")), "no line of its own: {table}");
        }
    }

    #[test]
    fn who_is_enrolled_shows_connected_or_not_and_a_reason_is_said_once() {
        let refused = "forbidden: an operator disabled the peer; `anabranch peers enrol` on that node lets it in again";
        let rows = json!([{ "peer_id": "12D3", "connected": false, "disabled": true, "addresses": ["/ip4/192.0.2.1/tcp/4001"],
            "refused": refused, "enrolled": ["primary"], "demoted": ["logs"],
            "datasets": { "primary": { "state": "refused", "lag_commits": 0, "reason": refused } } }]);
        let table = peers(&rows, 80);
        assert!(table.contains("disabled") && table.contains("enrolled") && table.contains("demoted"), "{table}");
        assert_eq!(table.matches("an operator disabled").count(), 1, "{table}");
        assert!(table.lines().all(|line| console::measure_text_width(line) <= 80), "{table}");
    }

    #[test]
    fn on_a_narrow_screen_names_give_way_and_nothing_else_is_lost() {
        let name = "archive-of-the-year-before-last";
        let rows = json!([{ "dataset_id": name, "kind": "documents", "state": "restarting", "documents": 1_234_567, "commits": 1_023_456,
            "oplog_bytes": 123_456_789, "disk_bytes": 523_456_789, "vector": {}, "collections": ["orders", "customers"] }]);
        let table = datasets(&rows, 80);
        assert!(table.lines().all(|line| console::measure_text_width(line) <= 80), "{table}");
        assert!(table.contains("WRITERS") && table.contains(&format!("{name} replicates: orders,customers")), "{table}");
        assert!(table.contains("archive-of-the-y…") && table.contains("1234567"), "{table}");
        let wide = datasets(&rows, 200);
        assert!(wide.contains("REPLICATES") && wide.contains(&format!("{name}  documents")), "{wide}");
    }

    #[test]
    fn words_are_broken_before_the_edge_and_stand_below_each_other() {
        assert_eq!(wrapped("one two three", "- ", 9), "- one two\n  three");
        assert_eq!(wrapped("a-word-that-is-longer-than-a-line b", "- ", 9), "- a-word-that-is-longer-than-a-line\n  b");
        assert_eq!(wrapped("one", "", 2), "one");
        assert_eq!(wrapped("", "x ", 9), "x ");
    }
}
