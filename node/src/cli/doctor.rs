//! `doctor`: one report of a node and its machine, to send to whoever helps.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value as Json;

use super::client::{Node, NodeArgs, segment};
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch doctor                       writes anabranch-doctor.txt
  anabranch doctor --out - | less

The report has no documents, keys or tokens in it. It does name collections,
peer ids, addresses and paths.")]
pub struct DoctorArgs {
    /// Where to; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "anabranch-doctor.txt")]
    out: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

/// What a report never shows, wherever it turns up.
const SECRETS: [&str; 4] = ["token", "network_key", "invite", "authorization"];

pub fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let node = Node::of(&args.node)?;
    let mut report = format!("Anabranch doctor, {}\n", humantime::format_rfc3339_seconds(std::time::SystemTime::now()));
    // Without an answer there is nothing to report but the machine: the reader should know why.
    let page = node.ask("/v1/node");
    section(&mut report, "this program", &env!("CARGO_PKG_VERSION").into());
    section(&mut report, "machine", &machine());
    section(&mut report, "GET /v1/node", &answered(page));
    for path in ["/healthz", "/readyz", "/v1/peers", "/v1/datasets"] {
        section(&mut report, &format!("GET {path}"), &answered(node.ask(path)));
    }
    let datasets = node.ask("/v1/datasets").unwrap_or_default();
    for dataset in datasets.as_array().into_iter().flatten().filter_map(|dataset| dataset["dataset_id"].as_str()) {
        for what in ["collections", "aside"] {
            let path = format!("/v1/datasets/{}/{what}", segment(dataset));
            section(&mut report, &format!("GET {path}"), &answered(node.ask(&path)));
        }
    }
    write(args, &report)
}

fn write(args: &DoctorArgs, report: &str) -> Result<(), Failure> {
    let failed = |error| Failure::other(format!("can't write {}", args.out.display()), error);
    if args.out.as_os_str() == "-" {
        return std::io::stdout().write_all(report.as_bytes()).map_err(failed);
    }
    File::create(&args.out).and_then(|mut file| file.write_all(report.as_bytes())).map_err(failed)?;
    println!("wrote {}", args.out.display());
    println!("Read it before you send it: it names collections, peers, addresses and paths.");
    Ok(())
}

fn answered(answer: Result<Json, Failure>) -> Json {
    answer.map(redacted).unwrap_or_else(|failure| failure.to_string().into())
}

/// Without what must not leave the machine. Answers hold no secrets today; should one ever, it is not in a report.
fn redacted(value: Json) -> Json {
    match value {
        Json::Object(fields) => {
            let field = |(name, value): (String, Json)| {
                let secret = SECRETS.contains(&name.to_ascii_lowercase().as_str());
                let value = if secret { "redacted".into() } else { redacted(value) };
                (name, value)
            };
            Json::Object(fields.into_iter().map(field).collect())
        }
        Json::Array(items) => items.into_iter().map(redacted).collect(),
        other => other,
    }
}

fn section(report: &mut String, title: &str, content: &Json) {
    let text = content.as_str().map_or_else(|| format!("{content:#}"), str::to_owned);
    // Writing to a text does not fail.
    let _ = writeln!(report, "\n== {title}\n{text}");
}

/// The machine that the report is made on, which may not be the node's.
fn machine() -> Json {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory: Vec<_> = file("/proc/meminfo").lines().take(3).map(str::to_owned).collect();
    let os = file("/etc/os-release");
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or(std::env::consts::OS).trim_matches('"');
    serde_json::json!({
        "os": os,
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "arch": std::env::consts::ARCH,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": memory,
        "load": file("/proc/loadavg").trim(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_not_in_a_report() {
        let answer = json!({ "a": [{ "token": "s3cret", "name": "orders" }], "Authorization": "Bearer s3cret" });
        let text = redacted(answer).to_string();
        assert!(text.contains("orders") && !text.contains("s3cret"), "{text}");
    }
}
