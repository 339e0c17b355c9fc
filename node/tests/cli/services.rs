//! The unit and the container file under `docs/` start the program with options and variables that it takes.

use std::path::Path;
use std::process::Command;

use crate::{PROGRAM, run, text};

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join(name)).expect("a file of docs/")
}

/// `NAME=value` of each line that begins with `directive`.
fn variables<'a>(page: &'a str, directive: &str) -> Vec<(&'a str, &'a str)> {
    let assigned = page.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(directive));
    assigned.filter_map(|assigned| assigned.split_once('=')).filter(|(name, _)| name.starts_with("ANABRANCH_")).collect()
}

fn check(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(["config", "check"]).envs(variables.iter().copied()).output().expect("it runs");
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_unit_starts_the_program_with_what_it_takes() {
    let unit = page("systemd/anabranch.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let mut words = start.split(' ');
    assert!(words.next().is_some_and(|program| program.ends_with("/anabranch")), "{start}");
    let (command, options) = (words.next().expect("a command"), words.filter(|word| word.starts_with("--")));
    let help = text(&run(&[command, "--help"]).stdout);
    for option in options {
        assert!(help.contains(option), "{option} is no option of {command}");
    }
    // Secrets that the machine of this test has as files.
    let dir = tempfile::tempdir().expect("a directory");
    let secrets = dir.path().display().to_string();
    let key = dir.path().join("network.key");
    assert!(run(&["network-key", "--out", key.to_str().expect("text")]).status.success());
    std::fs::write(dir.path().join("http.token"), "0123456789abcdef").expect("a token");
    let variables = variables(&unit, "Environment=");
    assert_eq!(variables.len(), 3, "{variables:?}");
    let own: Vec<_> = variables.iter().map(|(name, value)| (*name, value.replace("%d", &secrets))).collect();
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (code, out) = check(&own);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn the_container_needs_a_network_key_and_nothing_more() {
    let file = page("container/Containerfile");
    let mut variables = variables(&file, "ENV ");
    assert_eq!(variables.len(), 2, "{variables:?}");
    let (code, out) = check(&variables);
    assert!(code == Some(2) && out.contains("network-key"), "{out}");
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("network.key");
    let key = key.to_str().expect("text");
    assert!(run(&["network-key", "--out", key]).status.success());
    variables.push(("ANABRANCH_NETWORK_KEY_FILE", key));
    let (code, out) = check(&variables);
    assert_eq!(code, Some(0), "{out}");
    for command in ["status", "run"] {
        assert!(file.contains(&format!("\"{command}\"]")) && run(&[command, "--help"]).status.success(), "{command}");
    }
}
