//! Datasets that are created, deleted and disabled, beside others that notice nothing of it.

use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use crate::world::{Place, shipped};

const RECORD: &str = "{\"line\":1}";

fn create(node: &Node, body: &Value) -> (u16, Value) {
    node.ask("POST", "/v1/datasets", &body.to_string())
}

fn created(node: &Node, body: &Value) {
    let (status, answer) = create(node, body);
    assert_eq!((status, &answer["dataset_id"]), (201, &body["dataset_id"]), "{answer}");
}

fn logs() -> Value {
    json!({ "dataset_id": "logs", "kind": "append", "collections": ["*"] })
}

fn append(node: &Node, dataset: &str) -> u16 {
    node.ask("POST", &format!("/v1/datasets/{dataset}/collections/app/docs"), RECORD).0
}

/// How a peer's dataset stands, as `node` shows it.
fn standing(node: &Node, peer: &Node, dataset: &str) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    let row = rows.as_array()?.iter().find(|row| row["peer_id"] == peer.peer_id.as_str())?.clone();
    Some(row["datasets"][dataset].clone()).filter(Value::is_object)
}

fn shows(node: &Node, peer: &Node, dataset: &str, state: &str, word: &str) {
    wait_for(&format!("{} shows {dataset} of {} as {state} for {word}", node.url, peer.peer_id), || {
        let shown = standing(node, peer, dataset)?;
        (shown["state"] == state && shown["reason"].as_str().unwrap_or_default().contains(word)).then_some(())
    });
}

/// What of a dataset is in a data directory.
fn files(place: &Place, node: &str, dataset: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.path(node).join("datasets")).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(dataset)).collect()
}

#[test]
fn a_created_dataset_stays_and_a_deleted_one_is_gone() {
    let place = Place::new();
    let a = place.node("a").start();
    let b = place.node("b").peer(&a).start();
    a.put("orders", "a", &json!(1));
    converged(&[&a, &b], "primary", "orders");
    created(&a, &logs());
    shows(&a, &b, "logs", "refused", "unknown_dataset");
    shows(&b, &a, "logs", "refused", "unknown_dataset");

    // Greeted for at once, on the connection that stands.
    created(&b, &logs());
    assert_eq!((append(&a, "logs"), append(&b, "logs")), (201, 201));
    assert_eq!(converged(&[&a, &b], "logs", "app").len(), 2);

    // It outlives the process.
    let b = b.stop().start();
    assert_eq!(b.dataset("logs")["kind"], "append");
    a.put("orders", "b", &json!(1));
    converged(&[&a, &b], "primary", "orders");
    assert_eq!(converged(&[&a, &b], "logs", "app").len(), 2);

    let (status, answer) = b.ask("DELETE", "/v1/datasets/logs", "");
    assert_eq!((status, &answer["now"]), (200, &json!("deleted")), "{answer}");
    assert_eq!((b.ask("GET", "/v1/datasets/logs", "").0, append(&b, "logs")), (404, 404));
    assert_eq!(b.ask("DELETE", "/v1/datasets/logs", "").0, 404);
    shows(&a, &b, "logs", "refused", "was deleted");
    wait_for("nothing of it is left", || files(&place, "b", "logs").is_empty().then_some(()));
    let b = b.kill().start();
    assert_eq!(b.ask("GET", "/v1/datasets/logs", "").0, 404, "a deleted dataset does not come back");

    // The peer kept its own; a new one under the name is rebuilt from it.
    assert_eq!(a.list("logs", "app").len(), 2);
    created(&b, &logs());
    assert_eq!(converged(&[&a, &b], "logs", "app").len(), 2);
    converged(&[&a, &b], "primary", "orders");
}

#[test]
fn what_can_not_be_created_or_deleted_is_refused_in_words() {
    let place = Place::new();
    let node = place.node("node").arguments(&["--dataset", "primary=*", "--dataset", "named=*"]).start();
    let refused = |body: Value, expected: u16, word: &str| {
        let (status, answer) = create(&node, &body);
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(status == expected && detail.contains(word), "{body}: {status} {answer}");
    };
    refused(json!({ "dataset_id": "x", "knid": "append" }), 400, "did you mean `kind`");
    refused(json!({ "dataset_id": "X" }), 400, "dataset name");
    refused(json!({}), 400, "dataset_id");
    refused(json!({ "dataset_id": "x", "retention": { "age": "7d" } }), 400, "not supported by this version yet");
    refused(json!({ "dataset_id": "named" }), 409, "exists");
    refused(json!({ "dataset_id": "primary" }), 409, "exists");
    assert_eq!(node.ask("POST", "/v1/datasets", "{").0, 400);
    let (status, answer) = node.ask("DELETE", "/v1/datasets/primary", "");
    assert!(status == 409 && answer["detail"].as_str().is_some_and(|detail| detail.contains("can't be deleted")), "{answer}");

    // One that the configuration names goes, and comes back empty with the next start.
    assert_eq!(node.ask("PUT", "/v1/datasets/named/collections/c/docs/k", "1").0, 201);
    let (status, answer) = node.ask("DELETE", "/v1/datasets/named", "");
    assert_eq!((status, &answer["configured"]), (200, &json!(true)), "{answer}");
    assert_eq!(node.dataset("named")["status"], 404);
    let node = node.stop().start();
    assert_eq!((&node.dataset("named")["state"], node.list("named", "c").len()), (&json!("running"), 0));
}

#[test]
fn a_deletion_under_load_answers_every_request() {
    let place = Place::new();
    let node = place.node("node").start();
    created(&node, &logs());
    assert_eq!(append(&node, "logs"), 201);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut statuses = Vec::new();
                    while statuses.last() != Some(&404) {
                        statuses.push(append(&node, "logs"));
                    }
                    statuses
                })
            })
            .collect();
        assert_eq!(node.ask("DELETE", "/v1/datasets/logs", "").0, 200);
        for writer in writers {
            let statuses = writer.join().expect("a writer");
            assert!(statuses.iter().all(|status| matches!(status, 201 | 404 | 503)), "{statuses:?}");
        }
    });
    node.put("orders", "k", &json!(1));
}

#[test]
fn a_deletion_that_a_crash_cut_short_is_finished_at_the_start() {
    let place = Place::new();
    let node = place.node("node").start();
    created(&node, &logs());
    assert_eq!(append(&node, "logs"), 201);
    let options = node.kill();
    std::fs::write(place.path("node/datasets/.logs.deleting"), "").expect("a file");
    let node = options.start();
    assert_eq!(node.ask("GET", "/v1/datasets/logs", "").0, 404);
    wait_for("nothing of it is left", || files(&place, "node", "logs").is_empty().then_some(()));
}

#[test]
fn a_hundred_datasets_come_and_go_without_a_trace() {
    let place = Place::new();
    let node = place.node("node").start();
    let cycle = |n: usize| {
        let name = format!("d{n}");
        created(&node, &json!({ "dataset_id": name, "collections": ["*"] }));
        assert_eq!(append(&node, &name), 201);
        assert_eq!(node.ask("DELETE", &format!("/v1/datasets/{name}"), "").0, 200);
    };
    // Pools have all their threads after a few.
    (0..20).for_each(cycle);
    let (threads, files_open) = (node.threads(), node.open_files());
    (20..120).for_each(cycle);
    // Each has at least four threads and a dozen files open: one that stayed would show. Pools come and go by a few.
    wait_for("threads and files are what they were", || {
        (node.threads() <= threads + 3 && node.open_files() <= files_open + 9).then_some(())
    });
    wait_for("no files are left", || files(&place, "node", "d").iter().all(|name| name == "primary").then_some(()));
    assert_eq!(node.ask("GET", "/v1/datasets", "").1.as_array().map(Vec::len), Some(1));
}

#[test]
fn disabled_datasets_are_listed_refused_and_not_waited_for() {
    let place = Place::new();
    let file = place.path("some.toml");
    let toml = "[datasets.primary]\ncollections = [\"*\"]\n[datasets.logs]\nkind = \"append\"\nenabled = false\n";
    std::fs::write(&file, toml).expect("a file");
    let config = ["--config", file.to_str().expect("a path in UTF-8")];
    let some = place.node("some").arguments(&config).start();
    let all = place.node("all").arguments(&["--dataset", "primary=*", "--dataset", "logs:append=*"]).peer(&some).start();
    assert_eq!(append(&all, "logs"), 201);
    let info = some.dataset("logs");
    assert_eq!((&info["enabled"], &info["state"], &info["kind"]), (&json!(false), &json!("paused"), &json!("append")), "{info}");
    assert!(info["reason"].as_str().is_some_and(|reason| reason.contains("datasets.logs.enabled")), "{info}");
    assert_eq!((some.ask("GET", "/readyz", "").0, append(&some, "logs")), (200, 503));
    assert_eq!(some.ask("GET", "/healthz", "").1["health"], "healthy");
    shows(&some, &all, "logs", "refused", "disabled");
    shows(&all, &some, "logs", "refused", "disabled");
    some.put("orders", "k", &json!(1));
    converged(&[&some, &all], "primary", "orders");
    assert!(!place.path("some/datasets/logs").exists());

    // Only `primary`, whatever else is named or was created.
    created(&some, &json!({ "dataset_id": "more", "collections": ["*"] }));
    let options = some.stop();
    std::fs::write(&file, format!("{toml}[features]\nmulti_dataset = false\n")).expect("a file");
    let only = options.start();
    let states: Vec<_> = only.ask("GET", "/v1/datasets", "").1.as_array().expect("a list").clone();
    let states: Vec<_> = states.iter().map(|row| (row["dataset_id"].as_str(), row["enabled"].as_bool())).collect();
    assert_eq!(states, [(Some("logs"), Some(false)), (Some("more"), Some(false)), (Some("primary"), Some(true))]);
    let (status, answer) = create(&only, &json!({ "dataset_id": "another" }));
    assert!(status == 403 && answer["detail"].as_str().is_some_and(|detail| detail.contains("multi_dataset")), "{answer}");
    assert_eq!(only.ask("GET", "/readyz", "").0, 200);
    shows(&all, &only, "logs", "refused", "disabled");
}

/// `anabranch dataset …` at a node: how it ended, and what it said.
fn dataset(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(shipped());
    command.args(["dataset"]).args(arguments).args(["--node", &node.url]).stdin(std::process::Stdio::null());
    let output = command.output().expect("the program runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn the_command_line_pauses_resumes_and_restarts() {
    let place = Place::new();
    let node = place.node("node").start();
    created(&node, &logs());
    assert_eq!(append(&node, "logs"), 201);
    let (code, said) = dataset(&node, &["pause", "logs"]);
    assert!(code == Some(0) && said.starts_with("logs is paused"), "{said}");
    assert_eq!((append(&node, "logs"), &node.dataset("logs")["state"]), (503, &json!("paused")));
    assert_eq!(dataset(&node, &["resume", "logs"]).0, Some(0));
    wait_for("logs runs", || (append(&node, "logs") == 201).then_some(()));
    // A restart ends a pause, too.
    assert_eq!(dataset(&node, &["pause", "logs"]).0, Some(0));
    let (code, said) = dataset(&node, &["restart", "logs", "--json"]);
    assert_eq!((code, said.contains("\"now\":\"restarting\"")), (Some(0), true), "{said}");
    wait_for("logs runs", || (append(&node, "logs") == 201).then_some(()));
    assert_eq!(node.list("logs", "app").len(), 3);
    let (code, said) = dataset(&node, &["pause", "none"]);
    assert!(code == Some(1) && said.contains("no dataset"), "{said}");
}

#[test]
fn the_command_line_creates_and_deletes() {
    let place = Place::new();
    let node = place.node("node").start();
    let run = |arguments: &[&str]| dataset(&node, arguments);
    let (code, said) = run(&["create", "logs", "--kind", "append", "--collections", "app,access", "--json"]);
    let created: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(
        (code, &created["kind"], &created["collections"]),
        (Some(0), &json!("append"), &json!(["access", "app"])),
        "{said}"
    );
    let (code, said) = run(&["create", "logs"]);
    assert!(code == Some(1) && said.contains("exists"), "{said}");
    let (code, said) = run(&["delete", "logs"]);
    assert!(code == Some(2) && said.contains("--yes"), "nobody is there to be asked: {said}");
    assert_eq!(run(&["delete", "logs", "--yes"]), (Some(0), "logs is deleted\n".to_owned()));
    let (code, said) = run(&["delete", "logs", "--yes"]);
    assert!(code == Some(1) && said.contains("no dataset"), "{said}");
}

/// Of each dataset what it did, and in the log whose lines are whose.
#[test]
fn counters_and_log_lines_belong_to_their_dataset() {
    let place = Place::new();
    let json = ["--log-format", "json"];
    let datasets = ["--dataset", "primary=*", "--dataset", "logs:append=*"];
    let a = place.node("a").arguments(&datasets).start();
    let b = place.node("b").arguments(&datasets).arguments(&json).peer(&a).start();
    (0..3).for_each(|_| assert_eq!(append(&a, "logs"), 201));
    b.put("orders", "k", &json!(1));
    converged(&[&a, &b], "logs", "app");
    converged(&[&a, &b], "primary", "orders");
    let counters = |node: &Node, dataset: &str| node.dataset(dataset)["counters"].clone();
    let of_logs = counters(&a, "logs");
    assert_eq!((&of_logs["entries_written"], &of_logs["commits_received"]), (&json!(3), &json!(0)), "{of_logs}");
    assert_eq!(counters(&b, "logs")["entries_received"], 3);
    assert_eq!(
        (&counters(&a, "primary")["entries_written"], &counters(&b, "primary")["entries_written"]),
        (&json!(0), &json!(1))
    );
    let moved = |counters: &Value, kind: &str| {
        let bytes = |way: &str| counters["messages"][kind][way].as_u64().unwrap_or(0);
        (bytes("bytes_received") > 0, bytes("bytes_sent") > 0)
    };
    assert_eq!((moved(&of_logs, "pull"), moved(&of_logs, "push")), ((true, true), (false, false)), "records are pulled");
    assert_eq!(moved(&counters(&b, "primary"), "push"), (true, true), "documents are pushed");

    let log = b.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_dataset =
        |line: &&Value| line["target"].as_str().is_some_and(|target| target.starts_with("anabranch_actors::dataset"));
    let spans = |line: &Value| line["spans"].as_array().cloned().unwrap_or_default();
    let named = |line: &Value| spans(line).iter().any(|span| span["dataset"].is_string());
    let nameless: Vec<_> = lines.iter().filter(of_dataset).filter(|line| !named(line)).collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
    let pulled = |line: &Value| spans(line).iter().any(|span| span["peer"] == a.peer_id.as_str()) && named(line);
    assert!(lines.iter().any(pulled), "lines about a session name dataset and peer");
    let mixed = |line: &&Value| {
        let own = &line["fields"]["dataset"];
        own.is_string() && spans(line).iter().any(|span| span["dataset"].is_string() && span["dataset"] != *own)
    };
    assert_eq!(lines.iter().filter(mixed).count(), 0, "no line is another dataset's");
}
