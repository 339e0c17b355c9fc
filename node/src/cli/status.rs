//! `status`: one screen. The node, its datasets, its peers, and what is wrong in words.

use serde_json::Value as Json;

use super::tables::{Grid, id_tail, is_disabled, items, lag, size, span, state, text, wrapped};

const KIND_COLUMN: usize = 1;
const DISK_COLUMN: usize = 5;
/// Rows of datasets and of peers; those with something to say come first.
const ROWS_MAX: usize = 8;
/// Things that are wrong; the first of them are what to look at.
const WRONGS_MAX: usize = 8;

/// The page, for a screen of so many columns.
pub fn page(node: &Json, health: &Json, datasets: &Json, peers: &Json, width: usize) -> String {
    let mut blocks = vec![head(node, health, width), dataset_rows(datasets, peers, width)];
    blocks.push(peer_rows(peers, width));
    let wrong = wrong(health, datasets, peers);
    blocks.push(match wrong.as_slice() {
        [] => "Nothing is wrong.".to_owned(),
        all => {
            let shown = all.iter().take(WRONGS_MAX).map(|line| wrapped(line, "- ", width));
            let rest = all.len().saturating_sub(WRONGS_MAX);
            let more = (rest > 0).then(|| format!("- and {rest} more: see `datasets` and `peers`"));
            let title = console::style("What is wrong:").red().bold().to_string();
            std::iter::once(title).chain(shown).chain(more).collect::<Vec<_>>().join("\n")
        }
    });
    blocks.join("\n\n")
}

fn head(node: &Json, health: &Json, width: usize) -> String {
    let word = text(&health["health"]);
    let word = match word.as_str() {
        "healthy" => console::style(word).green(),
        "degraded" => console::style(word).yellow(),
        _ => console::style(word).red(),
    };
    let up = span(node["uptime_seconds"].as_u64().unwrap_or_default());
    let bare = |address: &Json| text(address).split("/p2p/").next().unwrap_or_default().to_owned();
    let listening: Vec<_> = items(&node["listen"]).iter().map(bare).collect();
    let lines = [
        format!("{}  {word}, up {up}", text(&node["peer_id"])),
        wrapped(&listening.join(" "), "listening  ", width),
        format!("http       http://{}", text(&node["http"])),
        wrapped(&format!("{} (anabranch {})", text(&node["data_dir"]), text(&node["version"])), "data       ", width),
    ];
    lines.join("\n")
}

fn dataset_rows(datasets: &Json, peers: &Json, width: usize) -> String {
    let mut all: Vec<&Json> = items(datasets).iter().collect();
    all.sort_by_key(|dataset| (text(&dataset["state"]) == "running" && dataset["reason"].is_null(), is_disabled(dataset)));
    let mut grid = Grid::new(&["DATASET", "KIND", "STATE", ">DOCUMENTS", ">COMMITS", ">DISK", "IN SYNC", "LAG"]);
    for dataset in all.iter().take(ROWS_MAX) {
        let name = text(&dataset["dataset_id"]);
        let standing = Standing::of(&name, peers);
        grid.row([
            name,
            text(&dataset["kind"]),
            state(dataset),
            text(&dataset["documents"]),
            text(&dataset["commits"]),
            size(&dataset["disk_bytes"]),
            format!("{} of {}", standing.in_sync, standing.all),
            standing.lag,
        ]);
    }
    let more = all.len().saturating_sub(ROWS_MAX);
    // `datasets` has kind and disk, too; how far peers are apart is only here.
    grid.or_without(&[KIND_COLUMN, DISK_COLUMN], width).fitted(width) + &and_more(more, "datasets")
}

/// How a dataset stands with the peers that are connected.
struct Standing {
    in_sync: usize,
    all: usize,
    lag: String,
}

impl Standing {
    fn of(dataset: &str, peers: &Json) -> Self {
        let connected = items(peers).iter().filter(|peer| peer["connected"].as_bool() == Some(true));
        let theirs: Vec<&Json> = connected.map(|peer| &peer["datasets"][dataset]).filter(|state| state.is_object()).collect();
        let worst = theirs.iter().max_by_key(|state| state["lag_commits"].as_u64());
        Self {
            in_sync: theirs.iter().filter(|state| text(&state["state"]) == "in_sync").count(),
            all: theirs.len(),
            lag: worst.map_or_else(|| "-".to_owned(), |state| lag(state)),
        }
    }
}

fn peer_rows(peers: &Json, width: usize) -> String {
    let mut all: Vec<&Json> = items(peers).iter().collect();
    if all.is_empty() {
        return wrapped("No peers yet: `anabranch invite` makes a string that lets another node join.", "", width);
    }
    all.sort_by_key(|peer| (trouble(peer).is_empty(), peer["connected"].as_bool() != Some(true)));
    let mut grid = Grid::new(&["PEER", "CONNECTED", ">RTT", "IN SYNC", "LAG", "ENROLLED IN"]);
    for peer in all.iter().take(ROWS_MAX) {
        let states: Vec<&Json> = peer["datasets"].as_object().into_iter().flat_map(serde_json::Map::values).collect();
        let in_sync = states.iter().filter(|state| text(&state["state"]) == "in_sync").count();
        let worst = states.iter().max_by_key(|state| state["lag_commits"].as_u64());
        let connected = match (peer["disabled"].as_bool(), peer["connected"].as_bool()) {
            (Some(true), _) => "disabled",
            (_, Some(true)) => "yes",
            _ => "no",
        };
        let enrolled = items(&peer["enrolled"]).len();
        grid.row([
            id_tail(&text(&peer["peer_id"])),
            connected.to_owned(),
            peer["rtt_ms"].as_f64().map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            if states.is_empty() { "-".to_owned() } else { format!("{in_sync} of {} datasets", states.len()) },
            worst.map_or_else(|| "-".to_owned(), |state| lag(state)),
            if enrolled == 1 { "1 dataset".to_owned() } else { format!("{enrolled} datasets") },
        ]);
    }
    let more = all.len().saturating_sub(ROWS_MAX);
    grid.fitted(width) + &and_more(more, "peers")
}

fn and_more(more: usize, what: &str) -> String {
    if more == 0 { String::new() } else { format!("\nand {more} more: anabranch {what}") }
}

/// What is wrong, in words; what to look at first comes first.
fn wrong(health: &Json, datasets: &Json, peers: &Json) -> Vec<String> {
    let mut lines: Vec<String> = items(&health["why"]).iter().map(text).collect();
    // What is not to run is not wrong.
    for dataset in items(datasets).iter().filter(|dataset| !is_disabled(dataset)) {
        let name = text(&dataset["dataset_id"]);
        let reason = text(&dataset["reason"]);
        if !dataset["reason"].is_null() && !lines.iter().any(|line| line.contains(&reason)) {
            lines.push(format!("{name} is {}: {reason}", text(&dataset["state"])));
        }
        if let Some(last) = items(&dataset["set_aside"]).last() {
            lines.push(format!("a store of {name} was set aside: {}", text(&last["path"])));
        }
    }
    lines.extend(items(peers).iter().flat_map(trouble));
    lines
}

/// What is wrong with a peer. That one is behind for a moment is nothing.
fn trouble(peer: &Json) -> Vec<String> {
    let id = id_tail(&text(&peer["peer_id"]));
    if peer["disabled"].as_bool() == Some(true) {
        return vec![format!("peer {id} is disabled: `anabranch peers enrol` lets it in again")];
    }
    if let Some(refused) = peer["refused"].as_str() {
        return vec![format!("peer {id} is not synced with: {refused}")];
    }
    let enrolled = !items(&peer["enrolled"]).is_empty();
    let mut lines = Vec::new();
    if enrolled && peer["connected"].as_bool() == Some(false) {
        lines.push(format!("peer {id} is enrolled and not connected: writes with --ack all are not confirmed by it"));
    }
    for (name, state) in peer["datasets"].as_object().into_iter().flatten() {
        let word = text(&state["state"]);
        if let Some(reason) = state["reason"].as_str() {
            lines.push(format!("{name} is {word} with peer {id}: {reason}"));
        } else if state["lag_seconds"].as_f64().is_some_and(|lag| lag >= LAG_WORTH_SAYING) {
            lines.push(format!("{name} is {word} with peer {id}, {}", lag(state)));
        }
    }
    lines
}

/// Seconds that a peer may lag before it is said.
const LAG_WORTH_SAYING: f64 = 10.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "12D3KooWK9YALYEs75MFFSZKeiUg9UDaBiivfdquGn9fk5RC6Jfu";

    fn widest(text: &str) -> usize {
        text.lines().map(console::measure_text_width).max().unwrap_or_default()
    }

    fn node() -> Json {
        let listen = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"].map(|at| format!("{at}/p2p/{ID}"));
        json!({ "peer_id": ID, "version": "0.1.0", "listen": listen, "http": "127.0.0.1:7070", "data_dir": "/d", "uptime_seconds": 61 })
    }

    #[test]
    fn a_sound_node_fits_one_screen_and_says_so() {
        let datasets = json!([{ "dataset_id": "primary", "kind": "documents", "state": "running", "documents": 12, "commits": 3,
            "disk_bytes": 1000, "reason": null }]);
        let peers = json!([{ "peer_id": ID, "connected": true, "rtt_ms": 0.25, "enrolled": ["primary"], "disabled": false,
            "datasets": { "primary": { "state": "behind", "lag_commits": 3, "lag_seconds": 0.5, "reason": null } } }]);
        let off = json!({ "dataset_id": "archive-of-last-year", "kind": "append", "state": "paused", "enabled": false,
            "reason": "disabled: `datasets.archive-of-last-year.enabled` is false in the configuration" });
        let datasets = json!([datasets[0], off]);
        let page = page(&node(), &json!({ "health": "healthy", "why": [] }), &datasets, &peers, 80);
        assert!(
            page.contains("disabled") && page.lines().any(|line| line.ends_with("LAG")) && !page.contains("wrong:"),
            "{page}"
        );
        assert!(page.contains("0 of 1") && page.contains("3 commits, 0.5 s") && page.ends_with("Nothing is wrong."), "{page}");
        assert!(page.lines().count() <= 24 && widest(&page) <= 80, "{page}");
    }

    #[test]
    fn trouble_comes_first_is_said_once_and_never_fills_more_than_a_screen() {
        let reason =
            "the store in /very/long/path/to/some/where/anabranch-data/datasets/logs is damaged: a row fails its checksum";
        let sound =
            |n: usize| json!({ "dataset_id": format!("sound-{n}"), "kind": "append", "state": "running", "reason": null });
        let mut datasets: Vec<Json> = (0..30).map(sound).collect();
        datasets.push(json!({ "dataset_id": "logs", "kind": "append", "state": "failed", "reason": reason }));
        let peer = |n: usize| json!({ "peer_id": format!("{ID}{n}"), "connected": false, "enrolled": ["logs"], "datasets": {} });
        let peers: Vec<Json> = (0..40).map(peer).collect();
        let health = json!({ "health": "degraded", "why": [format!("logs is failed: {reason}")] });
        for width in [80, 200] {
            let page = page(&node(), &health, &json!(datasets), &json!(peers), width);
            assert!(widest(&page) <= width && page.lines().count() <= 50, "{page}");
            assert_eq!(page.replace("\n  ", " ").matches("fails its checksum").count(), 1, "{page}");
            assert!(page.find("logs").unwrap_or(usize::MAX) < page.find("sound-1").unwrap_or_default(), "{page}");
            assert!(
                page.contains("and 23 more: anabranch datasets") && page.contains("more: see `datasets` and `peers`"),
                "{page}"
            );
        }
    }
}
