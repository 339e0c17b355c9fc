//! The shape of the repository: layers, and what the top level holds.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Packages of this workspace that a package's manifest depends on, dev-dependencies aside.
fn workspace_dependencies(package: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" || section == "[build-dependencies]" {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.extend(name.strip_prefix("anabranch-").map(str::to_owned));
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 5] = [
        ("protocol", &[]),
        ("actors", &["protocol"]),
        ("node", &["actors", "protocol"]),
        ("simulations", &["actors", "protocol"]),
        ("tests", &["node", "actors", "protocol"]),
    ];
    for (package, allowed) in allowed {
        for dependency in workspace_dependencies(package) {
            assert!(allowed.contains(&dependency.as_str()), "{package} must not depend on {dependency}");
        }
    }
    // The reader of manifests sees something: a test that finds nothing anywhere proves nothing.
    assert_eq!(workspace_dependencies("actors"), ["protocol"]);
}

#[test]
fn protocol_has_no_runtime() {
    let manifest = std::fs::read_to_string(root().join("protocol/Cargo.toml")).expect("a manifest");
    for banned in ["tokio", "actix", "libp2p", "sled", "rand", "futures", "tracing"] {
        assert!(!manifest.lines().any(|line| line.starts_with(banned)), "protocol must not depend on {banned}");
    }
}

#[test]
fn only_the_swarm_knows_libp2p_and_only_the_store_knows_sled() {
    for (package, word, home) in
        [("actors/src", "libp2p", None), ("actors/src", "sled::", Some("actors/src/store")), ("protocol/src", "libp2p::", None)]
    {
        for file in sources(&root().join(package)) {
            let inside =
                home.is_some_and(|home| file.starts_with(root().join(home)) || file == root().join(format!("{home}.rs")));
            let text = std::fs::read_to_string(&file).expect("a source file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named: Vec<_> = code.filter(|line| line.contains(word)).collect();
            assert!(inside || named.is_empty(), "{} names {word}: {named:?}", file.display());
        }
    }
}

#[test]
fn the_top_level_holds_what_the_design_says() {
    let expected = [".ci", "actors", "docs", "node", "protocol", "simulations", "tests"];
    let tracked = std::process::Command::new("git")
        .args(["ls-tree", "-d", "--name-only", "HEAD"])
        .current_dir(root())
        .output()
        .expect("git");
    let tracked = String::from_utf8(tracked.stdout).expect("names");
    let mut tracked: Vec<&str> = tracked.lines().collect();
    tracked.sort_unstable();
    assert_eq!(tracked, expected);
}

#[test]
fn the_corpora_of_fuzzers_stay_small() {
    let corpus = root().join("tests/fuzz/corpus");
    let mut sizes = Vec::new();
    for target in std::fs::read_dir(corpus).expect("corpora") {
        for input in std::fs::read_dir(target.expect("an entry").path()).expect("a corpus of inputs") {
            sizes.push(input.and_then(|input| input.metadata()).expect("an input").len());
        }
    }
    assert!(sizes.len() <= 300 && sizes.iter().sum::<u64>() <= 1 << 20, "{} inputs", sizes.len());
    assert!(sizes.len() > 30, "the reader of corpora sees something");
}

#[test]
fn no_file_is_named_for_nothing() {
    for package in ["protocol", "actors", "node", "simulations", "tests"] {
        for file in sources(&root().join(package)) {
            let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let vague = ["util", "utils", "helper", "helpers", "manager", "common", "misc"];
            assert!(!vague.contains(&name), "{} says nothing", file.display());
        }
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
