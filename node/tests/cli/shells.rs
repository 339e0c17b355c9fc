//! Completions, as the shells read them.

use std::process::{Command, Stdio};

use crate::{PROGRAM, run, text};

/// Loads the completions and asks what follows `anabranch pe`.
#[test]
fn bash_completes_commands() {
    let script = format!(
        "source <('{PROGRAM}' completions bash) && complete -p anabranch && COMP_WORDS=(anabranch pe) COMP_CWORD=1 && \
         _anabranch anabranch pe anabranch && echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash runs");
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("_anabranch") && out.lines().last() == Some("peers"), "{out}{error}");
}

/// Where the other shells are installed, they take theirs without a word.
#[test]
fn zsh_and_fish_take_their_completions() {
    for (shell, arguments) in [("zsh", vec!["-n"]), ("fish", vec!["--no-execute"])] {
        let script = run(&["completions", shell]).stdout;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("completions");
        std::fs::write(&file, &script).expect("a file");
        assert!(text(&script).contains("peers"), "{shell}");
        let Ok(child) = Command::new(shell).args(&arguments).arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        else {
            continue;
        };
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
    }
}
