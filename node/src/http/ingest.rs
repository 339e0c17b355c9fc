//! `POST …/ingest`: newline-delimited writes, streamed.
//!
//! Lines are gathered into groups; each group is one write request, and a few are under way at once, in order. While they are,
//! nothing more is read from the client: memory stays what a few groups take, however long the stream is. A group that waits for
//! more lines goes as soon as nothing is under way, so a slow stream is written line by line.

mod group;
mod lines;
mod window;

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use anabranch_actors::api::WriteError;
use anabranch_protocol::id::{Collection, DatasetId};
use anabranch_protocol::limits::REGISTRATION_COLLECTIONS_MAX;
use anabranch_protocol::wire::Kind;
use futures::StreamExt as _;
use tokio::sync::watch;

use self::group::Group;
use self::lines::{LineError, Lines};
use self::window::{Tally, TallyPage, Window, WriteFailure};
use super::answer::{WriteOptions, WriteQuery, receipt, unconditional_write};
use super::ops::{OpReader, SentOp};
use super::problem::Problem;
use super::{Api, body, target};

/// When a client whose stream was cut by a stop may try again.
const RESTART_TAKES: Duration = Duration::from_secs(5);

/// A stream of writes, one JSON object a line. A bad line ends it; the lines before it stand.
#[utoipa::path(
    post, path = "/v1/datasets/{d}/ingest", tag = "documents",
    params(("d" = String, Path, description = "Dataset", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "primary"), WriteQuery),
    request_body(content = Option<String>, content_type = "application/x-ndjson", description = "One object of a batch a line"),
    responses((status = 200, body = TallyPage), (status = 202, description = "Written here, and fewer nodes confirmed it in time than were asked for", body = TallyPage), (status = 422, description = "A line can not be written", body = serde_json::Value, content_type = "application/problem+json")),
)]
pub async fn post(request: HttpRequest, api: Data<Api>, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let opened = open(&request, &api);
    let (dataset, kind, options) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            body::drain(&mut payload).await;
            return Err(problem);
        }
    };
    let new_key = || api.new_key();
    let mut ingest = Ingest {
        lines: Lines::default(),
        line: 0,
        reader: OpReader::new(kind, &new_key),
        group: Group::default(),
        window: Window::new(api.node.clone(), dataset.clone()),
        collections: options.ack.map(|_| BTreeSet::new()),
    };
    let end = ingest.run(&mut payload, api.stopping.clone()).await;
    let tally = ingest.window.finish().await;
    match end {
        Ok(()) => match tally.failure {
            None => {
                let collections = ingest.collections.unwrap_or_default().into_iter().collect();
                // The last commit of a line stands for those before it.
                let confirmed = receipt(&api, &dataset, collections, &tally.written(), options).await?;
                let status = if confirmed.enough { StatusCode::OK } else { StatusCode::ACCEPTED };
                Ok(HttpResponse::build(status).json(tally.page().confirmed(&confirmed)))
            }
            Some(_) => Err(stopped(Stop::Write, tally, &dataset)),
        },
        Err(stop) => {
            body::drain(&mut payload).await;
            Err(stopped(stop, tally, &dataset))
        }
    }
}

fn open(request: &HttpRequest, api: &Api) -> Result<(DatasetId, Kind, WriteOptions), Problem> {
    let options = unconditional_write(request)?;
    let dataset = target::dataset(request)?;
    let kind = api.kind(&dataset)?;
    Ok((dataset, kind, options))
}

/// Why a stream ended before its end.
enum Stop {
    /// A line is no write; lines before it stand.
    Line { line: u64, detail: String },
    /// The client went away or sent rubbish below HTTP.
    Client(String),
    /// The node is told to stop.
    Stopping,
    /// A group was not acknowledged; the tally knows which.
    Write,
}

struct Ingest<'a> {
    lines: Lines,
    /// The line read last, counted from 1.
    line: u64,
    reader: OpReader<'a>,
    group: Group,
    window: Window,
    /// What was written to, where somebody waits for confirmations.
    collections: Option<BTreeSet<Collection>>,
}

impl Ingest<'_> {
    async fn run(&mut self, payload: &mut Payload, mut stopping: watch::Receiver<bool>) -> Result<(), Stop> {
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut stopping) => {
                    self.submit().await?;
                    return Err(Stop::Stopping);
                }
                chunk = payload.next() => match chunk {
                    Some(Ok(chunk)) => {
                        self.lines.push(&chunk);
                        self.take_lines().await?;
                    }
                    Some(Err(error)) => {
                        self.submit().await?;
                        return Err(Stop::Client(error.to_string()));
                    }
                    None => break,
                },
                () = self.window.settle_one(), if self.window.is_busy() => {}
                () = std::future::ready(()), if !self.group.is_empty() && !self.window.is_busy() => {}
            }
            if self.window.has_failed() {
                return Err(Stop::Write);
            }
            if !self.group.is_empty() && !self.window.is_busy() {
                self.submit().await?;
            }
        }
        self.lines.finish();
        self.take_lines().await?;
        self.submit().await
    }

    /// Reads the whole lines there are, and submits full groups. A bad line ends it after those before it were submitted.
    async fn take_lines(&mut self) -> Result<(), Stop> {
        while let Some(line) = self.lines.next_line() {
            self.line += 1;
            let op = match line {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(line) => serde_json::from_slice::<SentOp<'_>>(&line)
                    .map_err(|error| format!("not an operation: {error}"))
                    .and_then(|sent| self.reader.read(sent).map_err(|error| error.detail().to_owned())),
                Err(LineError::TooLong) => Err(format!("longer than {} bytes", lines::LINE_BYTES_MAX)),
            };
            match op {
                Ok(op) => {
                    if let Err(detail) = self.note_collection(&op.collection) {
                        self.submit().await?;
                        return Err(Stop::Line { line: self.line, detail });
                    }
                    if !self.group.has_room_for(&op) {
                        self.submit().await?;
                    }
                    self.group.push(self.line, op);
                }
                Err(detail) => {
                    self.submit().await?;
                    return Err(Stop::Line { line: self.line, detail });
                }
            }
        }
        Ok(())
    }

    /// Notes what was written to, where somebody waits for those who replicate all of it.
    fn note_collection(&mut self, collection: &Collection) -> Result<(), String> {
        let Some(collections) = self.collections.as_mut().filter(|known| !known.contains(collection)) else { return Ok(()) };
        if collections.len() >= REGISTRATION_COLLECTIONS_MAX {
            return Err(format!("one stream with `ack` writes to at most {REGISTRATION_COLLECTIONS_MAX} collections"));
        }
        collections.insert(collection.clone());
        Ok(())
    }

    async fn submit(&mut self) -> Result<(), Stop> {
        if !self.group.is_empty() {
            self.window.submit(std::mem::take(&mut self.group)).await;
        }
        if self.window.has_failed() { Err(Stop::Write) } else { Ok(()) }
    }
}

/// A stream of lines in chunks of the size that its first byte says: the same lines as in one piece, read as operations.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some((size, text)) = data.split_first() else { return };
    let cut = |size: usize| {
        let (mut lines, mut cut) = (Lines::default(), Vec::new());
        for chunk in text.chunks(size) {
            lines.push(chunk);
            cut.extend(std::iter::from_fn(|| lines.next_line()));
        }
        lines.finish();
        cut.extend(std::iter::from_fn(|| lines.next_line()));
        cut
    };
    let lines = cut(usize::from(*size) + 1);
    assert_eq!(lines, cut(text.len().max(1)));
    let whole = lines.iter().flatten();
    let sent = whole.filter_map(|line| serde_json::from_slice::<SentOp<'_>>(line).ok());
    super::ops::fuzz(anabranch_protocol::wire::Kind::Documents, sent);
}

/// Resolves when the node is told to stop, or is gone.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The answer to a stream that was stopped. What failed first is what it was stopped by.
fn stopped(stop: Stop, mut tally: Tally, dataset: &DatasetId) -> Problem {
    let problem = match (tally.failure.take(), stop) {
        (Some(WriteFailure { line, error: WriteError::Refused(refusal) }), _) => bad_line(line, &refusal.to_string()),
        (Some(WriteFailure { line, error }), _) => Problem::of_write(&error, dataset).with("line", line),
        (None, Stop::Line { line, detail }) => bad_line(line, &detail),
        (None, Stop::Client(detail)) => Problem::bad_request(format!("the stream broke off: {detail}")),
        (None, Stop::Stopping) => {
            let detail = "the node is stopping; go on after the lines that were accepted";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The node is stopping", detail).retry_after(RESTART_TAKES)
        }
        (None, Stop::Write) => Problem::bad_request("the stream was stopped"),
    };
    let page = tally.page();
    problem.in_dataset(dataset).with("accepted", page.accepted).with("commits", page.commits).with("token", page.token)
}

fn bad_line(line: u64, detail: &str) -> Problem {
    let detail = format!("line {line}: {detail}; the lines before it were written");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-line", "A line can't be written", detail).with("line", line)
}
