//! Answers of a node as tables for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::Value as Json;

/// Keys that are longer push their values to the right.
const KEY_WIDTH_MAX: usize = 40;

/// The node itself.
pub fn node(page: &Json, health: &Json) -> String {
    let mut lines = vec![
        format!("peer id    {}", text(&page["peer_id"])),
        format!("version    {}", text(&page["version"])),
        format!("up         {}", span(page["uptime_seconds"].as_u64().unwrap_or_default())),
        format!("data       {}", text(&page["data_dir"])),
        format!("http       http://{}", text(&page["http"])),
    ];
    lines.extend(items(&page["listen"]).iter().map(|address| format!("listening  {}", text(address))));
    lines.push(format!("health     {}", text(&health["health"])));
    lines.extend(items(&health["why"]).iter().map(|why| format!("           {}", text(why))));
    lines.join("\n") + "\n"
}

/// A row per dataset.
pub fn datasets(datasets: &Json) -> String {
    let mut table = table(&["DATASET", "KIND", "STATE", "DOCUMENTS", "COMMITS", "LOG", "DISK", "WRITERS", "REPLICATES", ""]);
    for column in 3..=7 {
        align_right(&mut table, column);
    }
    for dataset in items(datasets) {
        let collections: Vec<_> = items(&dataset["collections"]).iter().map(text).collect();
        table.add_row([
            text(&dataset["dataset_id"]),
            text(&dataset["kind"]),
            text(&dataset["state"]),
            text(&dataset["documents"]),
            text(&dataset["commits"]),
            size(&dataset["oplog_bytes"]),
            size(&dataset["disk_bytes"]),
            dataset["vector"].as_object().map_or_else(|| "-".to_owned(), |vector| vector.len().to_string()),
            if collections.is_empty() { "nothing".to_owned() } else { collections.join(",") },
            note(dataset),
        ]);
    }
    trimmed(&table)
}

/// A row per peer and dataset.
pub fn peers(peers: &Json) -> String {
    if items(peers).is_empty() {
        return "No peers yet: start another node with --peer and an address from `anabranch status`.".to_owned();
    }
    let mut table = table(&["PEER", "CONNECTED", "RTT", "DATASET", "STATE", "LAG", ""]);
    for column in [2, 5] {
        align_right(&mut table, column);
    }
    for peer in items(peers) {
        let connected = if peer["connected"].as_bool() == Some(true) { "yes" } else { "no" };
        let rtt = peer["rtt_ms"].as_f64().map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
        let head = [text(&peer["peer_id"]), connected.to_owned(), rtt];
        let datasets = peer["datasets"].as_object().into_iter().flatten();
        let mut rows: Vec<_> = datasets.map(|(name, state)| dataset_cells(name, state)).collect();
        if rows.is_empty() {
            rows.push(["-", "-", "-", ""].map(str::to_owned));
        }
        for row in rows {
            table.add_row(head.iter().chain(&row));
        }
    }
    trimmed(&table)
}

/// A row per document; on a terminal a value is cut where the line ends.
pub fn documents(rows: &[Json]) -> String {
    let width = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let keys: Vec<_> = rows.iter().map(|row| text(&row["key"])).collect();
    let column = keys.iter().map(|key| console::measure_text_width(key)).max().unwrap_or_default().min(KEY_WIDTH_MAX);
    let line = |(row, key): (&Json, &String)| {
        let line = format!("{}  {}", console::pad_str(key, column, console::Alignment::Left, None), row["value"]);
        let line = width.map_or(line.clone(), |width| console::truncate_str(&line, width, "…").into_owned());
        line + "\n"
    };
    rows.iter().zip(&keys).map(line).collect()
}

fn dataset_cells(name: &str, state: &Json) -> [String; 4] {
    let lag = state["lag_commits"].as_u64().unwrap_or_default();
    let lag = if lag == 0 { "-".to_owned() } else { format!("{lag} commits") };
    [name.to_owned(), text(&state["state"]), lag, reason(&state["reason"])]
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Without the blanks that pad the last column.
fn trimmed(table: &Table) -> String {
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

fn items(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Why the dataset doesn't run, and what was set aside of it.
fn note(dataset: &Json) -> String {
    let reason = reason(&dataset["reason"]);
    let aside = items(&dataset["set_aside"]);
    let Some(last) = aside.last() else { return reason };
    let path = text(&last["path"]);
    let kept = match aside.len() {
        1 => format!("a damaged store was set aside: {path}"),
        count => format!("{count} damaged stores were set aside, the last: {path}"),
    };
    if reason.is_empty() { kept } else { format!("{reason}; {kept}") }
}

fn reason(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn size(value: &Json) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| bytesize::ByteSize(bytes).to_string())
}

fn span(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dataset_that_can_not_tell_shows_dashes_and_why() {
        let rows = json!([{ "dataset_id": "logs", "kind": "append", "state": "failed", "reason": "disk broke" }]);
        let table = datasets(&rows);
        assert!(
            table.contains("logs") && table.contains("failed") && table.contains("disk broke") && table.contains('-'),
            "{table}"
        );
    }

    #[test]
    fn a_dataset_shows_what_was_set_aside() {
        let rows = json!([{ "dataset_id": "logs", "state": "running", "set_aside": [{ "path": "/d/logs.aside-1" }] }]);
        assert!(datasets(&rows).contains("set aside: /d/logs.aside-1"));
    }

    #[test]
    fn peers_show_how_far_each_dataset_is_apart() {
        let rows = json!([{ "peer_id": "12D3", "connected": true, "addresses": [], "rtt_ms": 0.25, "datasets": {
            "primary": { "state": "behind", "lag_commits": 3, "lag_seconds": 0.5, "reason": null } } }]);
        let table = peers(&rows);
        assert!(table.contains("behind") && table.contains("3 commits") && table.contains("yes"), "{table}");
        assert!(peers(&json!([])).contains("--peer"));
    }
}
