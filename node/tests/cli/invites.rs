//! `invite` and `run --join` as a shell sees them. Whole nodes join in `tests/tests/bad_days/invites.rs`.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::{Running, ask, run, text};

#[test]
fn an_invite_is_one_line_and_all_else_goes_to_standard_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let _node = Running::start(dir.path());
    let ask = |arguments: &[&str]| ask(dir.path(), arguments, "");
    let (code, out, error) = ask(&["invite", "--expires", "1h"]);
    assert!(code == 0 && out.starts_with("anabranch1") && out.lines().count() == 1, "{out}");
    assert!(error.contains("It serves until 20") && error.contains("loopback only") && !error.contains(&out[10..40]), "{error}");

    let (code, out, error) = ask(&["invite", "--out", "invite.txt", "--address", "/ip4/203.0.113.5/tcp/4001"]);
    assert!(code == 0 && out.is_empty() && error.contains("--join invite.txt") && !error.contains("loopback"), "{error}");
    let file = dir.path().join("invite.txt");
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);

    let (_, out, _) = ask(&["invite", "--json", "--expires", "never", "--address", "/ip4/203.0.113.5/tcp/4001"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&answer["expires_at"], &answer["network_key"], &answer["this_machine_only"]),
        (&Value::Null, &false.into(), &false.into())
    );
    let address = answer["addresses"][0].as_str().expect("an address");
    assert!(
        address.starts_with("/ip4/203.0.113.5/tcp/4001/p2p/12D3Koo") && answer["addresses"].as_array().map(Vec::len) == Some(1)
    );
    for bad in [["--expires", "soon"], ["--expires", "0s"], ["--address", "nonsense"]] {
        let (code, _, error) = ask(&["invite", bad[0], bad[1]]);
        assert!(code == 1 && error.contains("400"), "{bad:?}: {error}");
    }

    // A report to send holds no secret.
    assert_eq!(ask(&["doctor", "--out", "report.txt"]).0, 0);
    assert!(!std::fs::read_to_string(dir.path().join("report.txt")).expect("a report").contains("anabranch1"));
}

#[test]
fn what_is_no_invite_ends_with_two_and_is_not_quoted() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    for (argument, said) in
        [("anabranch1secretsecretsecret", "cut short"), ("anabranch1secret-secret", "character"), ("secretsecret", "neither")]
    {
        let output = run(&["run", "--data-dir", data.to_str().expect("a path"), "--join", argument]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(
            message.contains(said) && !message.contains("secret-") && !message.contains("secretsecret"),
            "{argument}: {message}"
        );
    }
    assert!(!data.exists());
}
