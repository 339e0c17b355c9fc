//! The program as a user's shell sees it: help, exit codes, messages.

#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/invites.rs"]
mod invites;
#[path = "cli/options.rs"]
mod options;
#[path = "cli/services.rs"]
mod services;
#[path = "cli/shells.rs"]
mod shells;
#[path = "cli/waits.rs"]
mod waits;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_anabranch");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node in `dir` on free ports, once it is ready.
struct Running(Child);

impl Running {
    fn start(dir: &Path) -> Self {
        let ready = dir.join("ready.json");
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--log", "off"]);
        command.arg("--data-dir").arg(dir.join("data")).arg("--ready-file").arg(&ready).stdout(Stdio::null());
        let child = command.spawn().expect("the program runs");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the node did not become ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }

    fn page(dir: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join("ready.json")).expect("a ready file")).expect("JSON")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn help_names_exactly_the_commands_that_exist() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for command in [
        "run",
        "keygen",
        "network-key",
        "demo",
        "invite",
        "status",
        "peers",
        "datasets",
        "get",
        "put",
        "patch",
        "delete",
        "list",
        "import",
        "export",
        "load",
        "doctor",
        "config",
        "completions",
        "Examples:",
    ] {
        assert!(help.contains(command), "{command} is missing:\n{help}");
    }
    assert!(!help.contains("snapshot"), "what does not exist yet is not in the help");
}

#[test]
fn bad_arguments_and_configuration_end_with_two_and_say_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a path");
    let config = dir.path().join("anabranch.toml");
    std::fs::write(&config, "[datasets.primary]\ncolections = [\"a\"]\n").expect("a file");
    let cases: [(&[&str], &str); 5] = [
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--data-dir", data, "--listen", "/ip4/0.0.0.0/tcp/0"], "--network-key"),
        (&["run", "--data-dir", data, "--dataset", "Bad Name"], "dataset"),
        (&["run", "--data-dir", data, "--listen", "nonsense"], "nonsense"),
        (&["run", "--config", config.to_str().expect("a path")], "collections"),
    ];
    for (arguments, said) in cases {
        let output = run(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(said), "{arguments:?}: {message}");
    }
    assert!(!Path::new(data).exists(), "nothing was made for a node that can't start");
}

#[test]
fn a_second_node_on_one_data_directory_ends_with_three_and_on_one_port_with_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let _running = Running::start(dir.path());
    let data = dir.path().join("data");
    let output =
        run(&["run", "--data-dir", data.to_str().expect("a path"), "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let other = dir.path().join("other");
    let output =
        run(&["run", "--data-dir", other.to_str().expect("a path"), "--listen", "/ip4/127.0.0.1/tcp/0", "--http", &address]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&address), "{}", text(&output.stderr));
}

#[test]
fn status_pages_show_a_running_node_and_say_what_to_do_without_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let _running = Running::start(dir.path());
    let page = Running::page(dir.path());
    let url = format!("http://{}", page["http"].as_str().expect("an address"));
    let output = run(&["datasets", "--node", &url, "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&rows[0]["dataset_id"], &rows[0]["state"]), (&"primary".into(), &"running".into()));
    assert!(text(&run(&["status", "--node", &url]).stdout).contains(page["peer_id"].as_str().expect("a peer id")));
    assert!(run(&["peers", "--node", &url]).status.success());

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let output = run(&["status", "--node", &format!("http://{nobody}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("anabranch run"), "{}", text(&output.stderr));
}

#[test]
fn keygen_prints_the_peer_id_of_a_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("identity.key");
    let output = run(&["keygen", "--out", key.to_str().expect("a path")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("12D3KooW"));
    assert_eq!(std::fs::metadata(&key).expect("the key").permissions().mode() & 0o777, 0o600);
    let again = run(&["keygen", "--out", key.to_str().expect("a path")]);
    assert!(!again.status.success(), "a key is never written over");
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("anabranch"), "{shell}");
    }
}

/// Runs a command against a node, gives it `input`, and returns its exit code, output and errors.
fn ask(dir: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    use std::io::Write as _;
    let node = format!("http://{}", Running::page(dir)["http"].as_str().expect("an address"));
    let mut command = Command::new(PROGRAM);
    command.args(arguments).args(["--node", &node]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.current_dir(dir).spawn().expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the program reads");
    let output = child.wait_with_output().expect("the program ends");
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn documents_are_written_read_and_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str], input: &str| ask(dir.path(), arguments, input);
    assert_eq!(ask(&["put", "orders", "a/b ?", "-"], "{\"n\":1}"), (0, "created orders/a/b ?\n".into(), String::new()));
    assert_eq!(ask(&["put", "orders", "a/b ?", "{\"n\":2}"], "").1, "replaced orders/a/b ?\n");
    assert_eq!(ask(&["patch", "orders", "a/b ?", "{\"m\":-1}"], "").1, "patched orders/a/b ?\n");
    assert_eq!(ask(&["get", "orders", "a/b ?", "--json"], "").1, "{\"m\":-1,\"n\":2}\n");
    let (code, list, _) = ask(&["list", "orders", "--json"], "");
    let row: serde_json::Value = serde_json::from_str(&list).expect("one line of JSON");
    assert_eq!((code, row["key"].as_str()), (0, Some("a/b ?")));
    assert_eq!(ask(&["delete", "orders", "a/b ?"], "").0, 0);
    let (code, out, error) = ask(&["get", "orders", "a/b ?"], "");
    assert!((code, out.as_str()) == (1, "") && error.contains("no document"), "{error}");
    let (code, _, error) = ask(&["put", "orders", "x", "{nonsense"], "");
    assert!(code == 1 && error.contains("not a JSON value"), "{error}");
}

#[test]
fn a_collection_goes_through_files_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str], input: &str| ask(dir.path(), arguments, input);
    let rows = [r#"{"key":"a","value":{"code":"007","n":1.5,"tags":["x","y"]}}"#, r#"{"key":"b","value":{"code":"","n":null}}"#];
    let lines = rows.join("\n") + "\n";
    assert_eq!(ask(&["import", "c", "-"], &lines).0, 0);
    assert_eq!(ask(&["export", "c", "-"], "").1, lines);
    for file in ["c.csv", "c.ndjson"] {
        assert_eq!(ask(&["export", "c", file], "").0, 0, "{file}");
        assert_eq!(ask(&["export", "c", file], "").0, 2, "a file that is there is kept");
        assert_eq!(ask(&["import", "again", file], "").0, 0, "{file}");
        assert_eq!(ask(&["export", "again", "-"], "").1, lines, "{file}");
    }
    let (code, _, error) = ask(&["import", "c", "-"], "{\"key\":\"x\",\"value\":1}\nnonsense\n");
    assert!(code == 1 && error.contains("record 2") && error.contains("--skip 1"), "{error}");
    let (code, out, _) = ask(&["load", "--rate", "1000/s", "--duration", "200ms", "--json"], "");
    let written: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, written["written"].as_u64()), (0, Some(200)));
    assert_eq!(ask(&["doctor"], "").0, 0);
    let report = std::fs::read_to_string(dir.path().join("anabranch-doctor.txt")).expect("a report");
    assert!(report.contains("GET /v1/datasets/primary/collections") && report.contains("peer_id"), "{report}");
}

#[test]
fn a_configuration_is_checked_and_shown_with_its_sources() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("anabranch.toml");
    std::fs::write(&file, "[datasets.orders]\ncollections = ['*']\n").expect("a file");
    let file = file.to_str().expect("text");
    let with_env = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).env("ANABRANCH_MAX_CLOCK_SKEW", "2m").output().expect("it runs");
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, out) = with_env(&["config", "check", "--config", file]);
    assert!(code == Some(0) && out.contains("orders"), "{out}");
    let (_, out) = with_env(&["config", "show", "--config", file, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown["max_clock_skew"], serde_json::json!({ "value": "2m", "source": "ANABRANCH_MAX_CLOCK_SKEW" }));
    assert_eq!(shown["datasets.orders.collections"]["source"], file);
    assert_eq!(shown["http.addr"]["source"], "default");
    std::fs::write(file, "[datasets.orders]\ncolections = ['*']\n").expect("a file");
    let (code, out) = with_env(&["config", "check", "--config", file]);
    assert!(code == Some(2) && out.contains("did you mean `datasets.orders.collections`"), "{out}");
}
