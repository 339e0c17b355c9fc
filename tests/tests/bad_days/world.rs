//! Programs and places of these tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anabranch_tests::process::{Options, wait_for};

/// The node that can fail on demand.
const FAULTY: &str = env!("CARGO_BIN_EXE_anabranch-faulty");

/// The shipped program: built beside the faulty one by the workspace's test command.
pub fn shipped() -> PathBuf {
    let program = Path::new(FAULTY).with_file_name("anabranch");
    assert!(program.exists(), "build the whole workspace first: cargo test --workspace");
    program
}

/// The peer id of the node that will be started under `name`.
pub fn identity(place: &Place, name: &str) -> String {
    let dir = place.path(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let made = Command::new(shipped()).arg("keygen").arg("--out").arg(dir.join("identity.key")).output().expect("keygen");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("a peer id").trim().to_owned()
}

/// A directory that is gone with the test.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// How to start a shipped node.
    pub fn node(&self, name: &str) -> Options {
        Options::new(&shipped(), &self.path(name))
    }

    /// How to start a node with faults and a clock that is off by `clock_ms`.
    pub fn faulty_node(&self, name: &str, clock_ms: i64) -> Options {
        let faults = self.path(&format!("{name}.faults"));
        Options::new(Path::new(FAULTY), &self.path(name))
            .environment("TEST_FAULTS", faults.to_str().expect("a path in UTF-8"))
            .environment("TEST_CLOCK", &clock_ms.to_string())
    }

    /// Sets the fault plan of a faulty node.
    pub fn set_faults(&self, name: &str, plan: &str) {
        let (path, next) = (self.path(&format!("{name}.faults")), self.path(&format!("{name}.faults.next")));
        // Renamed into place, so that no half of a plan is ever read.
        std::fs::write(&next, plan).expect("a fault plan");
        std::fs::rename(next, path).expect("a fault plan");
    }

    /// Waits until a running faulty node has taken its fault plan.
    pub fn faults_taken(&self, name: &str) {
        let (path, taken) = (self.path(&format!("{name}.faults")), self.path(&format!("{name}.taken")));
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        wait_for("the fault plan is taken", || (read(&taken)? == read(&path)?).then_some(()));
    }
}
