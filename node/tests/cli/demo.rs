//! The demo: three nodes in one process that end in sync and leave nothing behind.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{PROGRAM, run, text};

#[test]
fn three_nodes_sync_and_stop_cleanly() {
    let mut demo = Command::new(PROGRAM);
    // What a user's own node is told by the environment is not for these.
    demo.env("ANABRANCH_PEERS", "/ip4/127.0.0.1/tcp/1").env("ANABRANCH_HTTP__TOKEN_FILE", "/nonexistent/token");
    let mut demo = demo.args(["demo", "--port", "0"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let mut guide = Vec::new();
    for line in lines.by_ref() {
        guide.push(line);
        if guide.last().is_some_and(|line| line.contains("Ctrl-C stops")) {
            break;
        }
    }
    let urls: Vec<_> =
        guide.iter().filter_map(|line| line.split_whitespace().nth(1)).filter(|word| word.starts_with("http://")).collect();
    assert_eq!(urls.len(), 3, "{guide:#?}");
    let last = guide.last().expect("a line");
    let dir = last.split_whitespace().find(|word| word.contains("anabranch-demo-")).expect("a directory").to_owned();

    let deadline = Instant::now() + Duration::from_secs(60);
    let eventually = |what: &str, arguments: &[&str], wanted: &str| {
        while !text(&run(arguments).stdout).contains(wanted) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // What one end writes arrives at the other, in every dataset.
    eventually("an order", &["get", "orders", "harbour-0000", "--node", urls[2]], "harbour");
    eventually("an order", &["get", "orders", "orchard-0000", "--node", urls[1]], "orchard");
    for (dataset, collection) in [("logs", "app"), ("metrics", "temperature")] {
        eventually(
            dataset,
            &["list", collection, "-d", dataset, "--limit", "1000", "--json", "--node", urls[1]],
            "\"site\":\"orchard\"",
        );
    }
    let killed = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    assert_eq!(demo.wait().expect("it ends").code(), Some(0));
    assert!(lines.any(|line| line == "stopping"));
    assert!(!std::path::Path::new(&dir).exists(), "{dir}");
}
