//! Every path of the API in one table.

use actix_web::web::{ServiceConfig, delete, get, patch, post, put, resource, to};
use actix_web::{Resource, Route};

use super::not_yet::{no_such_method, no_such_path, not_yet};
use super::{batch, collections, datasets, docs, health, ingest, invites, list, members, node_page, operate, peers};

/// Adds the API's paths to an application.
pub fn configure(app: &mut ServiceConfig) {
    let mut path = |path: &str, routes: Vec<Route>| {
        let with_routes = routes.into_iter().fold(resource(path), Resource::route);
        app.service(with_routes.default_service(to(no_such_method)));
    };
    path("/healthz", vec![get().to(health::alive)]);
    path("/readyz", vec![get().to(health::ready)]);
    path("/metrics", vec![get().to(not_yet)]);
    path("/openapi.json", vec![get().to(not_yet)]);
    path("/v1/node", vec![get().to(node_page::show)]);
    path("/v1/invites", vec![post().to(invites::make)]);
    path("/v1/peers", vec![get().to(peers::list), post().to(peers::dial)]);
    path("/v1/peers/{peer}", vec![delete().to(members::remove)]);
    path("/v1/peers/{peer}/enrol", vec![post().to(members::enrol)]);
    path("/v1/peers/{peer}/demote", vec![post().to(members::demote)]);
    path("/v1/peers/{peer}/disable", vec![post().to(members::disable)]);
    path("/v1/snapshot", vec![get().to(not_yet), post().to(not_yet)]);
    path("/v1/datasets", vec![get().to(datasets::list), post().to(datasets::create)]);
    path("/v1/datasets/{d}", vec![get().to(datasets::show), delete().to(datasets::delete)]);
    path("/v1/datasets/{d}/restart", vec![post().to(operate::restart)]);
    path("/v1/datasets/{d}/pause", vec![post().to(operate::pause)]);
    path("/v1/datasets/{d}/resume", vec![post().to(operate::resume)]);
    path("/v1/datasets/{d}/aside", vec![get().to(operate::list_aside)]);
    path("/v1/datasets/{d}/aside/{name}", vec![delete().to(operate::drop_aside)]);
    path("/v1/datasets/{d}/budget", vec![patch().to(not_yet)]);
    path("/v1/datasets/{d}/batch", vec![post().to(batch::post)]);
    path("/v1/datasets/{d}/ingest", vec![post().to(ingest::post)]);
    path("/v1/datasets/{d}/changes", vec![get().to(not_yet)]);
    path("/v1/datasets/{d}/snapshot", vec![get().to(not_yet), post().to(not_yet)]);
    path("/v1/datasets/{d}/collections", vec![get().to(collections::list)]);
    path("/v1/datasets/{d}/collections/{c}", vec![put().to(collections::register), delete().to(collections::unregister)]);
    for action in ["drop", "truncate", "rename"] {
        path(&format!("/v1/datasets/{{d}}/collections/{{c}}/{action}"), vec![post().to(not_yet)]);
    }
    path("/v1/datasets/{d}/collections/{c}/docs", vec![get().to(list::list), post().to(docs::post)]);
    // All that follows is the key, also nothing, which is refused in words.
    path(
        "/v1/datasets/{d}/collections/{c}/docs/{key:.*}",
        vec![put().to(docs::put), get().to(docs::get), patch().to(docs::patch), delete().to(docs::delete)],
    );
    app.default_service(to(no_such_path));
}
