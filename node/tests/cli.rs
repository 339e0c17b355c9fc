//! The program as a user's shell sees it: help, exit codes, messages.

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
    for command in ["run", "keygen", "network-key", "status", "peers", "datasets", "completions", "Examples:"] {
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
