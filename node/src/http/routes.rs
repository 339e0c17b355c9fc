//! Every path of the API in one table.

use actix_web::Route;
use actix_web::web::{ServiceConfig, delete, get, patch, post, put, resource, to};

use super::not_yet::{no_such_method, no_such_path, not_yet};
use super::{
    batch, collections, datasets, docs, health, ingest, invites, list, members, metrics, node_page, openapi, operate, peers,
};

/// A path, and the methods it takes.
type Row = (&'static str, Vec<(&'static str, Route)>);

/// What this version serves.
fn table() -> Vec<Row> {
    vec![
        ("/healthz", vec![("GET", get().to(health::alive))]),
        ("/readyz", vec![("GET", get().to(health::ready))]),
        ("/metrics", vec![("GET", get().to(metrics::show))]),
        ("/openapi.json", vec![("GET", get().to(openapi::show))]),
        ("/v1/node", vec![("GET", get().to(node_page::show))]),
        ("/v1/peers", vec![("GET", get().to(peers::list)), ("POST", post().to(peers::dial))]),
        ("/v1/invites", vec![("POST", post().to(invites::make))]),
        ("/v1/peers/{peer_id}", vec![("DELETE", delete().to(members::remove))]),
        ("/v1/peers/{peer_id}/enrol", vec![("POST", post().to(members::enrol))]),
        ("/v1/peers/{peer_id}/demote", vec![("POST", post().to(members::demote))]),
        ("/v1/peers/{peer_id}/disable", vec![("POST", post().to(members::disable))]),
        ("/v1/datasets", vec![("GET", get().to(datasets::list)), ("POST", post().to(datasets::create))]),
        ("/v1/datasets/{d}", vec![("GET", get().to(datasets::show)), ("DELETE", delete().to(datasets::delete))]),
        ("/v1/datasets/{d}/restart", vec![("POST", post().to(operate::restart))]),
        ("/v1/datasets/{d}/pause", vec![("POST", post().to(operate::pause))]),
        ("/v1/datasets/{d}/resume", vec![("POST", post().to(operate::resume))]),
        ("/v1/datasets/{d}/repair-clock", vec![("POST", post().to(operate::repair_clock))]),
        ("/v1/datasets/{d}/aside", vec![("GET", get().to(operate::list_aside))]),
        ("/v1/datasets/{d}/aside/{name}", vec![("DELETE", delete().to(operate::drop_aside))]),
        ("/v1/datasets/{d}/batch", vec![("POST", post().to(batch::post))]),
        ("/v1/datasets/{d}/ingest", vec![("POST", post().to(ingest::post))]),
        ("/v1/datasets/{d}/collections", vec![("GET", get().to(collections::list))]),
        (
            "/v1/datasets/{d}/collections/{c}",
            vec![("PUT", put().to(collections::register)), ("DELETE", delete().to(collections::unregister))],
        ),
        ("/v1/datasets/{d}/collections/{c}/drop", vec![("POST", post().to(collections::drop))]),
        ("/v1/datasets/{d}/collections/{c}/truncate", vec![("POST", post().to(collections::truncate))]),
        ("/v1/datasets/{d}/collections/{c}/docs", vec![("GET", get().to(list::list)), ("POST", post().to(docs::post))]),
        // All that follows is the key, also nothing, which is refused in words.
        (
            "/v1/datasets/{d}/collections/{c}/docs/{key:.*}",
            vec![
                ("PUT", put().to(docs::put)),
                ("GET", get().to(docs::get)),
                ("PATCH", patch().to(docs::patch)),
                ("DELETE", delete().to(docs::delete)),
            ],
        ),
    ]
}

/// What later versions bring.
fn later() -> Vec<Row> {
    vec![
        ("/v1/snapshot", vec![("GET", get().to(not_yet)), ("POST", post().to(not_yet))]),
        ("/v1/datasets/{d}/budget", vec![("PATCH", patch().to(not_yet))]),
        ("/v1/datasets/{d}/changes", vec![("GET", get().to(not_yet))]),
        ("/v1/datasets/{d}/snapshot", vec![("GET", get().to(not_yet)), ("POST", post().to(not_yet))]),
        ("/v1/datasets/{d}/collections/{c}/rename", vec![("POST", post().to(collections::rename))]),
    ]
}

/// Adds the API's paths to an application.
pub fn configure(app: &mut ServiceConfig) {
    for (path, routes) in table().into_iter().chain(later()) {
        let allowed = routes.iter().map(|(method, _)| *method).collect::<Vec<_>>().join(", ");
        let with_routes = routes.into_iter().fold(resource(path), |resource, (_, route)| resource.route(route));
        app.service(with_routes.default_service(to(move |request| no_such_method(request, allowed.clone()))));
    }
    app.default_service(to(no_such_path));
}

/// `METHOD path` of all that this version serves, as OpenAPI writes paths.
#[cfg(test)]
pub(super) fn served() -> impl Iterator<Item = String> {
    let method = |path: &'static str| move |(method, _): (&'static str, Route)| format!("{method} {}", path.replace(":.*", ""));
    table().into_iter().flat_map(move |(path, routes)| routes.into_iter().map(method(path)))
}
