//! `GET /openapi.json`: this API as OpenAPI 3.1, made from the handlers' attributes and the structs they answer with.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::Value as Json;
use utoipa::openapi::PathItem;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Content, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{
    answer, batch, collections, datasets, docs, health, ingest, invites, list, members, metrics, node_page, operate, ops, peers,
};
use crate::node::NodePage;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| Document::openapi().to_json().expect("a document is JSON"));

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "node", responses((status = 200, body = Json)))]
pub async fn show() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(DOCUMENT.as_str())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Anabranch",
        description = "A node of Anabranch: datasets that sync with their peers, offline first. Errors are problem details (RFC 9457)."
    ),
    paths(
        health::alive,
        health::ready,
        metrics::show,
        show,
        node_page::show,
        peers::list,
        peers::dial,
        invites::make,
        members::enrol,
        members::demote,
        members::disable,
        members::remove,
        datasets::list,
        datasets::create,
        datasets::show,
        datasets::delete,
        operate::restart,
        operate::pause,
        operate::resume,
        operate::list_aside,
        operate::drop_aside,
        batch::post,
        ingest::post,
        collections::list,
        collections::register,
        collections::unregister,
        collections::drop,
        collections::truncate,
        list::list,
        docs::post,
        docs::put,
        docs::get,
        docs::patch,
        docs::delete,
    ),
    components(schemas(ProblemDetails, NodePage, answer::WrittenPage, ops::WriteObject)),
    modifiers(&Refusals, &Token),
    tags(
        (name = "node", description = "The node and its health"),
        (name = "peers", description = "Whom it syncs with"),
        (name = "datasets", description = "Datasets and what they replicate"),
        (name = "documents", description = "Reads and writes"),
    )
)]
struct Document;

/// Why a request was not answered (RFC 9457). Further members say more: `line`, `index`, `accepted`, `current`, ….
#[derive(ToSchema)]
#[expect(dead_code, reason = "a problem is written member by member; this is its shape")]
struct ProblemDetails {
    /// A URN; it names the kind of problem and stays the same.
    #[schema(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What happened, whether anything was written, and what to do.
    detail: String,
    /// The dataset, below `/v1/datasets/{d}`.
    dataset: Option<String>,
}

/// Adds what every path of a kind may refuse with.
struct Refusals;

/// Status, what it means, and whether it says when to try again.
type Refusal = (&'static str, &'static str, bool);

const ANYWHERE: &[Refusal] =
    &[("401", "A token is needed", false), ("403", "Foreign `Host` or `Origin`, or not allowed here", false)];
const IN_A_DATASET: &[Refusal] = &[
    ("400", "The request is malformed; nothing was written", false),
    ("404", "Unknown dataset, document or name", false),
    ("429", "Too many requests wait already", true),
    ("503", "The dataset is restarting, failed or paused", true),
    ("500", "A stored value is damaged, or the outcome is unknown", false),
];
const OF_A_PEER: &[Refusal] = &[
    ("400", "No peer id, or this node's own; nothing was changed", false),
    ("429", "The network takes no orders now", true),
    ("503", "Not done in every dataset: some don't run", true),
    ("500", "The data directory can't be written", false),
];
const OF_A_KNOWN_PEER: &[Refusal] = &[("404", "Nothing is known of the peer, or of the dataset", false)];
const OF_A_BODY: &[Refusal] =
    &[("400", "The request is malformed; nothing was written", false), ("413", "Too large; nothing was written", false)];
const OF_A_WRITE: &[Refusal] =
    &[("409", "Not for a dataset of this kind, or not as it is", false), ("507", "No space left", false)];
const OF_ONE_DOCUMENT: &[Refusal] = &[("412", "The document is not as expected", false)];
const OF_A_KEY: &[Refusal] = &[("422", "The `Idempotency-Key` was used for another request; nothing was written", false)];
const OF_A_READ: &[Refusal] = &[
    ("409", "A token of another history, or of a collection that does not replicate here", false),
    ("504", "The write that was waited for did not arrive in time", false),
];

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (is_write, operation) in operations(item) {
                let takes_a_key = takes_a_key(operation);
                let mut refuse = |refusals: &[Refusal]| refusals.iter().for_each(|refusal| add(operation, *refusal));
                refuse(ANYWHERE);
                if path.starts_with("/v1/datasets/{d}") {
                    refuse(IN_A_DATASET);
                }
                if path.starts_with("/v1/peers/{peer_id}") {
                    refuse(OF_A_PEER);
                }
                // A stranger may be disabled before it comes.
                if path.starts_with("/v1/peers/{peer_id}") && !path.ends_with("/disable") {
                    refuse(OF_A_KNOWN_PEER);
                }
                if is_write {
                    refuse(OF_A_BODY);
                    refuse(OF_A_WRITE);
                }
                if path.ends_with("/docs/{key}") && is_write {
                    refuse(OF_ONE_DOCUMENT);
                }
                if takes_a_key {
                    refuse(OF_A_KEY);
                }
                if path.contains("/docs") && !is_write {
                    refuse(OF_A_READ);
                }
            }
        }
    }
}

fn takes_a_key(operation: &Operation) -> bool {
    let named = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.name == "Idempotency-Key");
    operation.parameters.iter().flatten().any(named)
}

/// The operations of a path, and which of them write.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let reads = item.get.iter_mut().map(|operation| (false, operation));
    let writes = [&mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
    reads.chain(writes.into_iter().flatten().map(|operation| (true, operation)))
}

fn add(operation: &mut Operation, (status, description, again): Refusal) {
    let problem = Content::new(Some(Ref::from_schema_name("ProblemDetails")));
    let mut response = ResponseBuilder::new().description(description).content("application/problem+json", problem);
    if again {
        let seconds = HeaderBuilder::new().description(Some("Seconds")).build();
        response = response.header("Retry-After", seconds);
    }
    let response: RefOr<Response> = response.build().into();
    operation.responses.responses.entry(status.to_owned()).or_insert(response);
}

/// A token, where the node asks for one.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let none = utoipa::openapi::security::SecurityRequirement::default();
        let token = utoipa::openapi::security::SecurityRequirement::new::<_, [&str; 0], _>("token", []);
        document.security = Some(vec![none, token]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_of_the_api_is_described_and_no_other() {
        let document: Json = serde_json::from_str(&DOCUMENT).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        let described: BTreeSet<_> = described.collect();
        let served: BTreeSet<_> = super::super::routes::served().collect();
        assert_eq!(served.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new(), "served, not described");
        assert_eq!(described.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "described, not served");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: Json = serde_json::from_str(&DOCUMENT).unwrap();
        let mut open = vec![&document];
        while let Some(json) = open.pop() {
            match json {
                Json::Object(members) => {
                    if let Some(to) = members.get("$ref").and_then(Json::as_str) {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    open.extend(members.values());
                }
                Json::Array(items) => open.extend(items),
                _ => {}
            }
        }
    }
}
