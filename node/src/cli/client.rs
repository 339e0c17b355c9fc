//! A running node, asked over HTTP.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use ureq::SendBody;
use ureq::http::{Method, Request, Response, StatusCode};

use crate::process::Failure;

/// How long a question may take that no data streams with.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a path segment may hold as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which node, and what to show it.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// The node's HTTP address, as it prints it at its start.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070")]
    pub node: String,
    /// File with the node's HTTP token, where it needs one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// An answer, whatever its status.
pub struct Answer {
    pub status: StatusCode,
    pub body: Json,
}

/// See the module documentation.
pub struct Node {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Node {
    /// A node that answers within seconds.
    pub fn of(args: &NodeArgs) -> Result<Self, Failure> {
        Self::with_timeout(args, Some(TIMEOUT))
    }

    /// A node that data streams to or from, for as long as that takes.
    pub fn streaming(args: &NodeArgs) -> Result<Self, Failure> {
        Self::with_timeout(args, None)
    }

    /// A node that may take so long longer than it has to.
    pub fn patient(args: &NodeArgs, wait: Duration) -> Result<Self, Failure> {
        Self::with_timeout(args, Some(TIMEOUT + wait))
    }

    fn with_timeout(args: &NodeArgs, timeout: Option<Duration>) -> Result<Self, Failure> {
        let url = args.node.trim_end_matches('/');
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file);
            text.map_err(|error| Failure::Usage(format!("--token-file: can't read {}: {error}", file.display())))
        };
        let token = args.token_file.as_ref().map(read).transpose()?.map(|text| text.trim().to_owned());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(timeout)
            .build();
        Ok(Self { url, token, agent: config.into() })
    }

    /// The body of a GET that succeeds.
    pub fn ask(&self, path: &str) -> Result<Json, Failure> {
        Self::ok(self.send(Method::GET, path, SendBody::none())?)
    }

    /// Tells the node to do something, with nothing more to say.
    pub fn tell(&self, path: &str) -> Result<Json, Failure> {
        Self::ok(self.send(Method::POST, path, SendBody::none())?)
    }

    /// Sends a body as it is read.
    pub fn send_reader(&self, method: Method, path: &str, body: &mut dyn Read) -> Result<Answer, Failure> {
        self.send(method, path, SendBody::from_reader(body))
    }

    /// Sends a body as it is read, none without a reader, with further headers.
    pub fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&mut dyn Read>,
    ) -> Result<Answer, Failure> {
        match body {
            None => self.send_all(method, path, headers, SendBody::none()),
            Some(body) => self.send_all(method, path, headers, SendBody::from_reader(body)),
        }
    }

    /// Sends a request without a body and reads the answer, whatever its status.
    pub fn send_empty(&self, method: Method, path: &str) -> Result<Answer, Failure> {
        self.send(method, path, SendBody::none())
    }

    fn send(&self, method: Method, path: &str, body: SendBody<'_>) -> Result<Answer, Failure> {
        self.send_all(method, path, &[], body)
    }

    fn send_all(&self, method: Method, path: &str, headers: &[(&str, &str)], body: SendBody<'_>) -> Result<Answer, Failure> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&url).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(|error| Failure::Usage(format!("--node: {error}")))?;
        let response = self.agent.run(request).map_err(|error| self.no_answer(&error))?;
        self.read(&url, response)
    }

    fn no_answer(&self, error: &ureq::Error) -> Failure {
        let hint = "Is the node running? Start it with `anabranch run`, or name its address with --node";
        Failure::Other(format!("no answer from {}: {error}. {hint}", self.url))
    }

    fn read(&self, url: &str, mut response: Response<ureq::Body>) -> Result<Answer, Failure> {
        let status = response.status();
        // The largest answer is a page of documents; a node that sends more than this is none.
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|error| Failure::other(format!("{url}: the answer broke off"), error))?;
        let body = if text.is_empty() { Ok(Json::Null) } else { serde_json::from_str(&text) };
        let body = body.map_err(|_| Failure::Other(format!("{} does not answer as a node does: is --node right?", self.url)))?;
        Ok(Answer { status, body })
    }

    /// The body of an answer that has to be a success.
    pub fn ok(answer: Answer) -> Result<Json, Failure> {
        if answer.status.is_success() { Ok(answer.body) } else { Err(Self::refused(&answer)) }
    }

    /// What an answer that is no success means.
    pub fn refused(answer: &Answer) -> Failure {
        let detail = super::tables::printable(answer.body["detail"].as_str().unwrap_or("no reason given"));
        let detail = detail.trim_end_matches('.');
        let next = match answer.status.as_u16() {
            401 => ": name the file with the node's token with --token-file",
            429 | 503 => ": try again in a moment",
            _ => "",
        };
        Failure::Other(format!("{detail}{next} (the node answered {})", answer.status))
    }
}

/// A name as a segment of a path.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_segment_whatever_it_holds() {
        assert_eq!(segment("a/b ?#%é~"), "a%2Fb%20%3F%23%25%C3%A9~");
    }
}
