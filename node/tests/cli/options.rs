//! Every option of a dataset, as its user meets it: accepted, shown with its source, refused with its key and value.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::{PROGRAM, text};

const PEER: &str = "12D3KooWPDHyTRAUjZxEgryaJ7ptkSqX21w2ecoDYH8FMvUSCguL";

/// An option: a value that is not its default as a file and as a variable of the environment spell it and as it is shown, and
/// wrong values with what their refusal says.
struct Option {
    key: &'static str,
    toml: &'static str,
    variable: &'static str,
    shown: Value,
    wrong: &'static [(&'static str, &'static str)],
    /// A later version honours it: any value but the default is refused. That is here, where it can be written.
    later: bool,
    default: &'static str,
}

fn option(key: &'static str, toml: &'static str, shown: Value, wrong: &'static [(&'static str, &'static str)]) -> Option {
    Option { key, toml, variable: toml.trim_matches('"'), shown, wrong, later: false, default: "" }
}

fn later(
    key: &'static str,
    toml: &'static str,
    default: (&'static str, Value),
    wrong: &'static [(&'static str, &'static str)],
) -> Option {
    Option { later: true, default: default.0, ..option(key, toml, default.1, wrong) }
}

/// All of `[datasets.NAME]`.
fn options() -> Vec<Option> {
    let list = r#"["app", "access"]"#;
    vec![
        option(
            "kind",
            r#""append""#,
            json!("append"),
            &[(r#""logs""#, r#""logs" is not a kind: use `documents` or `append`"#), ("5", "is 5: use a text")],
        ),
        option("engine", r#""sled""#, json!("sled"), &[(r#""rocksdb""#, r#""rocksdb" is not a store engine: use `sled`"#)]),
        option("enabled", "false", json!(false), &[(r#""maybe""#, r#"is "maybe": use true or false"#)]),
        option(
            "lineage",
            r#""0123456789abcdef0123456789abcdef""#,
            json!("0123456789abcdef0123456789abcdef"),
            &[(r#""old""#, r#""old" is not a lineage"#), (r#""00000000000000000000000000000000""#, "leave it out")],
        ),
        option(
            "collections",
            list,
            json!(["app", "access"]),
            &[
                (r#"["a/b"]"#, r#""a/b" is not a collection name"#),
                (r#"["*", "app"]"#, "stands alone"),
                (r#"["_x"]"#, r#""_x""#),
                ("5", "is 5: use a list of texts"),
            ],
        ),
        option(
            "collections_max",
            list,
            json!(["app", "access"]),
            &[(r#"["_y"]"#, r#""_y""#), (r#"["*", "app"]"#, "stands alone")],
        ),
        option(
            "writers",
            one_peer(),
            json!([PEER]),
            &[(r#"["bob"]"#, r#""bob" is not a peer id"#), ("3", "is 3: use a list of texts")],
        ),
        option(
            "readers",
            one_peer(),
            json!([PEER]),
            &[(r#"["bob"]"#, r#""bob" is not a peer id"#), (r#"["*", "bob"]"#, "`*` is everybody and stands alone")],
        ),
        Option {
            variable: "{default=lww}",
            ..option(
                "policy",
                r#"{ default = "lww" }"#,
                json!({ "default": "lww" }),
                &[
                    (r#"{ app = "merge" }"#, r#"`datasets.logs.policy.app` = "merge" is not supported by this version yet"#),
                    (r#"{ "_x" = "lww" }"#, r#""_x""#),
                    (r#""lww""#, r#"is "lww": use a table"#),
                ],
            )
        },
        later("images_before", list, ("[]", json!([])), &[("5", "is 5: use a list of texts")]),
        later(
            "peer_lease",
            r#""1h""#,
            (r#""30d""#, json!("30days")),
            &[(r#""soon""#, r#"is "soon": use a length of time such as"#)],
        ),
        Option {
            variable: r#"{age="7days",bytes="2GiB"}"#,
            ..later(
                "retention",
                r#"{ age = "7d", bytes = "2GiB" }"#,
                ("", Value::Null),
                &[
                    (r#"{ age = "old" }"#, r#"`datasets.logs.retention.age` is "old""#),
                    (r#"{ bites = 5 }"#, "did you mean `datasets.logs.retention.bytes`"),
                ],
            )
        },
        later(
            "disk_quota",
            r#""1234567B""#,
            ("", Value::Null),
            &[(r#""lots""#, r#"is "lots": use a size such as"#), ("-1", "is -1: use a size such as")],
        ),
        option(
            "sync.announce_interval",
            r#""200ms""#,
            json!("200ms"),
            &[
                (r#""soon""#, r#"is "soon": use a length of time such as"#),
                // A contradiction names both.
                (r#""20s""#, "(20s) is longer than `sync.anti_entropy_interval` (15s)"),
            ],
        ),
        option(
            "sync.anti_entropy_interval",
            r#""1m""#,
            json!("1m"),
            &[(r#""1ms""#, "is 1ms: use 100ms to 1day"), (r#""25h""#, "is 1day 1h: use")],
        ),
        option(
            "sync.maintenance_interval",
            r#""1s""#,
            json!("1s"),
            &[(r#""1ms""#, "is 1ms: use 100ms to 1day"), ("7", "is 7: use a length of time")],
        ),
        option(
            "sync.max_peers",
            "3",
            json!(3),
            &[
                ("0", "is 0: use 1 to 1024"),
                ("2000", "is 2000: use 1 to 1024"),
                ("-1", "is -1: use a whole number"),
                (r#""many""#, r#"is "many": use a whole number"#),
            ],
        ),
        later("sync.max_entries_per_cycle", "5", ("10000", json!(10_000)), &[("-5", "is -5: use a whole number")]),
        later(
            "sync.bandwidth_max",
            r#""8MiB""#,
            (r#""unlimited""#, json!("unlimited")),
            &[(r#""fast""#, r#"is "fast": use a byte size per second such as "8MiB", or "unlimited""#)],
        ),
        later("sync.weight", "1", ("8", json!(8)), &[(r#""heavy""#, r#"is "heavy": use a whole number"#)]),
    ]
}

fn one_peer() -> &'static str {
    r#"["12D3KooWPDHyTRAUjZxEgryaJ7ptkSqX21w2ecoDYH8FMvUSCguL"]"#
}

impl Option {
    fn name(&self) -> String {
        format!("datasets.logs.{}", self.key)
    }

    fn variable_name(&self) -> String {
        format!("ANABRANCH_{}", self.name().replace('.', "__").to_uppercase())
    }

    /// A page with this option alone; another dataset runs whatever it says.
    fn page(&self, toml: &str) -> String {
        format!("[datasets.other]\n[datasets.logs]\n{} = {toml}\n", self.key)
    }
}

fn config(what: &str, file: &Path, page: &str, variables: &[(&str, &str)]) -> (i32, String) {
    std::fs::write(file, page).expect("a file");
    let mut command = Command::new(PROGRAM);
    command.args(["config", what, "--config"]).arg(file).envs(variables.iter().copied());
    let output = command.args((what == "show").then_some("--json")).output().expect("the program runs");
    (output.status.code().expect("it ends by itself"), text(&output.stdout) + &text(&output.stderr))
}

fn shown(file: &Path, page: &str, variables: &[(&str, &str)]) -> Value {
    let (code, out) = config("show", file, page, variables);
    assert_eq!(code, 0, "{page} {variables:?}: {out}");
    serde_json::from_str(&out).expect("JSON")
}

fn a_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("anabranch.toml");
    (dir, file)
}

#[test]
fn each_is_shown_with_the_file_or_the_variable_that_it_is_from() {
    let (_dir, file) = a_file();
    for mut option in options() {
        if option.later {
            (option.toml, option.variable) = (option.default, option.default.trim_matches('"'));
        }
        if option.toml.is_empty() {
            continue;
        }
        let of_file = shown(&file, &option.page(option.toml), &[]);
        let source = file.to_str().expect("text");
        // A table is shown as one value.
        assert_eq!(of_file[option.name()], json!({ "value": option.shown, "source": source }), "{}", option.key);
        let others = of_file.as_object().expect("an object").iter().filter(|(key, _)| **key != option.name());
        for (key, setting) in others.filter(|(key, _)| key.starts_with("datasets.logs.")) {
            assert_eq!(setting["source"], "default", "{key} beside {}", option.key);
        }
        let name = option.variable_name();
        let of_variable = shown(&file, "[datasets.other]\n", &[(&name, option.variable)]);
        assert_eq!(of_variable[option.name()], json!({ "value": option.shown, "source": name }), "{}", option.key);
    }
}

#[test]
fn each_is_in_this_test() {
    let (_dir, file) = a_file();
    let all: BTreeSet<String> = options().iter().map(Option::name).collect();
    let shown = shown(&file, "[datasets.logs]\n", &[]);
    let shown = shown.as_object().expect("an object").keys().filter(|key| key.starts_with("datasets.logs."));
    let missing: Vec<_> = shown.filter(|key| !all.contains(*key)).collect();
    assert!(missing.is_empty(), "no test of {missing:?}");
}

#[test]
fn each_is_taken_or_refused_as_not_yet_but_never_ignored() {
    let (_dir, file) = a_file();
    for option in options() {
        let name = option.variable_name();
        for (page, variables) in
            [(option.page(option.toml), vec![]), ("[datasets.other]\n".to_owned(), vec![(name.as_str(), option.variable)])]
        {
            let (code, out) = config("check", &file, &page, &variables);
            if option.later {
                let sentence = format!("`{}` = ", option.name());
                assert!(
                    code == 2 && out.contains(&sentence) && out.contains("not supported by this version yet"),
                    "{page}: {out}"
                );
            } else {
                assert_eq!(code, 0, "{page} {variables:?}: {out}");
            }
        }
    }
}

#[test]
fn wrong_values_are_refused_with_their_key_and_what_to_write_instead() {
    let (_dir, file) = a_file();
    for option in options() {
        assert!(!option.wrong.is_empty(), "{}", option.key);
        for (wrong, sentence) in option.wrong {
            let (code, out) = config("check", &file, &option.page(wrong), &[]);
            assert!(code == 2 && out.contains(sentence), "{} = {wrong}: {out}", option.key);
            assert!(out.contains(&option.name()), "{} = {wrong}: {out}", option.key);
            assert_eq!(out.trim_end().lines().count(), 1, "{out}");
        }
        // A slip of the pen, in the file and in the environment.
        let name = option.name();
        let slip = &name[..name.len() - 1];
        let did_you_mean = format!("unknown key `{slip}`: did you mean `{}`?", option.name());
        let key = slip.trim_start_matches("datasets.logs.");
        let (code, out) = config("check", &file, &format!("[datasets.logs]\n{key} = 1\n"), &[]);
        assert!(code == 2 && out.contains(&did_you_mean), "{out}");
        let variable = format!("ANABRANCH_{}", slip.replace('.', "__").to_uppercase());
        let (code, out) = config("check", &file, "[datasets.logs]\n", &[(&variable, "1")]);
        assert!(code == 2 && out.contains(&did_you_mean) && out.contains(&variable), "{out}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let (_dir, file) = a_file();
    let variable = "ANABRANCH_DATASETS__LOGS__SYNC__MAX_PEERS";
    let (code, out) = config("check", &file, "[datasets.logs.sync]\nmax_peers = 4\n", &[(variable, "many")]);
    assert!(code == 2 && out.contains(&format!("{variable}: `datasets.logs.sync.max_peers` is \"many\"")), "{out}");
}

/// File, variable and flag name another place each: the flag's is taken; without it the variable's, without that the file's.
#[test]
fn the_environment_goes_over_the_file_and_flags_over_both() {
    let (dir, file) = a_file();
    let place = |name: &str| dir.path().join(name);
    let page = format!(
        "data_dir = '{}'\n[http]\naddr = '127.0.0.1:0'\n[datasets.from-file]\ncollections = ['a']\nkind = 'append'\n",
        place("of-file").display()
    );
    let of_variable = place("of-variable").display().to_string();
    let of_flag = place("of-flag").display().to_string();
    let start = |variables: &[(&str, &str)], flags: &[&str]| {
        std::fs::write(&file, &page).expect("a file");
        let ready = place("ready.json");
        // One of an earlier start would be taken for this one's.
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(PROGRAM);
        command
            .args(["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--log", "off", "--config"])
            .arg(&file)
            .arg("--ready-file")
            .arg(&ready);
        command.args(flags).envs(variables.iter().copied()).stdout(std::process::Stdio::null());
        let _running = crate::Running(command.spawn().expect("the program runs"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !ready.exists() {
            assert!(std::time::Instant::now() < deadline, "the node did not become ready");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let page = crate::Running::page(dir.path());
        let url = format!("http://{}", page["http"].as_str().expect("an address"));
        let datasets = crate::run(&["datasets", "--json", "--node", &url]);
        let datasets: Value = serde_json::from_str(&text(&datasets.stdout)).expect("JSON");
        let named = |dataset: &Value| {
            format!("{}:{}={}", dataset["dataset_id"], dataset["kind"], dataset["collections"]).replace('"', "")
        };
        let datasets: Vec<String> = datasets.as_array().expect("a list").iter().map(named).collect();
        (page["data_dir"].as_str().expect("a directory").to_owned(), datasets)
    };
    let variables = [("ANABRANCH_DATA_DIR", of_variable.as_str()), ("ANABRANCH_DATASETS__FROM-FILE__COLLECTIONS", "b,c")];
    assert_eq!(start(&[], &[]), (place("of-file").display().to_string(), vec!["from-file:append=[a]".to_owned()]));
    assert_eq!(start(&variables, &[]), (of_variable.clone(), vec!["from-file:append=[b,c]".to_owned()]));
    let flags = ["--data-dir", &of_flag, "--dataset", "from-file=d"];
    assert_eq!(start(&variables, &flags), (of_flag.clone(), vec!["from-file:append=[d]".to_owned()]));
}
