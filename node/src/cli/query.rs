//! `status`, `peers` and `datasets`: what a running node says over HTTP, as JSON or for people.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};

use super::tables;
use crate::process::Failure;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  anabranch status\n  anabranch peers --node http://127.0.0.1:7071 --json")]
pub struct QueryArgs {
    /// The node's HTTP address, as it prints it at its start.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070")]
    node: String,
    /// File with the node's HTTP token, where it needs one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(super) json: bool,
}

pub fn status(args: &QueryArgs) -> Result<(), Failure> {
    let node = Node::of(args)?;
    let (page, health, datasets) = (node.ask("/v1/node")?, node.ask("/healthz")?, node.ask("/v1/datasets")?);
    if args.json {
        return print_json(&json!({ "node": page, "health": health, "datasets": datasets }));
    }
    println!("{}\n{}", tables::node(&page, &health), tables::datasets(&datasets));
    Ok(())
}

pub fn peers(args: &QueryArgs) -> Result<(), Failure> {
    show(args, "/v1/peers", tables::peers)
}

pub fn datasets(args: &QueryArgs) -> Result<(), Failure> {
    show(args, "/v1/datasets", tables::datasets)
}

fn show(args: &QueryArgs, path: &str, table: fn(&Json) -> String) -> Result<(), Failure> {
    let answer = Node::of(args)?.ask(path)?;
    if args.json {
        return print_json(&answer);
    }
    println!("{}", table(&answer));
    Ok(())
}

fn print_json(value: &Json) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::other("can't write JSON", error))?;
    println!("{text}");
    Ok(())
}

fn authorized<B>(request: ureq::RequestBuilder<B>, token: Option<&str>) -> ureq::RequestBuilder<B> {
    match token {
        Some(token) => request.header("Authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// A node that is asked over HTTP.
pub(super) struct Node {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Node {
    pub(super) fn of(args: &QueryArgs) -> Result<Self, Failure> {
        let url = args.node.trim_end_matches('/');
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file);
            text.map_err(|error| Failure::Usage(format!("--token-file: can't read {}: {error}", file.display())))
        };
        let token = args.token_file.as_ref().map(read).transpose()?.map(|text| text.trim().to_owned());
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Ok(Self { url, token, agent: config.into() })
    }

    fn ask(&self, path: &str) -> Result<Json, Failure> {
        self.answer(path, |url, agent| authorized(agent.get(url), self.token.as_deref()).call())
    }

    /// Hands the node something new.
    pub(super) fn give(&self, path: &str, body: &Json) -> Result<Json, Failure> {
        let text = body.to_string();
        self.answer(path, |url, agent| {
            authorized(agent.post(url), self.token.as_deref()).content_type("application/json").send(&text)
        })
    }

    /// Deletes something of the node.
    pub(super) fn delete(&self, path: &str) -> Result<Json, Failure> {
        self.answer(path, |url, agent| authorized(agent.delete(url), self.token.as_deref()).call())
    }

    /// Tells the node to do something.
    pub(super) fn tell(&self, path: &str) -> Result<Json, Failure> {
        self.answer(path, |url, agent| authorized(agent.post(url), self.token.as_deref()).send_empty())
    }

    fn answer(
        &self,
        path: &str,
        send: impl FnOnce(&str, &ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Json, Failure> {
        let url = format!("{}{path}", self.url);
        let mut response = send(&url, &self.agent).map_err(|error| {
            Failure::Other(format!(
                "no answer from {}: {error}. Is the node running? Start it with `anabranch run`, or name its address with --node",
                self.url
            ))
        })?;
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| Failure::other(format!("{url}: the answer broke off"), error))?;
        let answer: Json = serde_json::from_str(&text)
            .map_err(|_| Failure::Other(format!("{url} does not answer as a node does: is --node right?")))?;
        if response.status().is_success() {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().unwrap_or("no reason given");
        let next = if response.status() == 401 { ": name the file with the node's token with --token-file" } else { "" };
        Err(Failure::Other(format!("{url} answered {}: {detail}{next}", response.status())))
    }
}
