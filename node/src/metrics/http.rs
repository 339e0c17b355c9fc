//! Requests by route, method and status. Routes are the patterns of the API's table, never what a client sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix_web::http::Method;
use anabranch_actors::api::Histogram;

use super::page::Page;
use super::series as s;

/// Stands for every path that the API does not have.
const OTHER: &str = "other";

/// Requests answered since the node started.
#[derive(Debug, Default)]
pub struct HttpCounts {
    routes: Mutex<BTreeMap<String, BTreeMap<&'static str, Answers>>>,
    in_flight: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Answers {
    statuses: BTreeMap<u16, u64>,
    durations: Histogram,
}

/// A request that is being answered, for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    began: Instant,
    gauge: Arc<AtomicU64>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpCounts {
    /// A request came.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { began: Instant::now(), gauge: Arc::clone(&self.in_flight) }
    }

    /// A request was answered.
    pub fn answered(&self, request: &InFlight, route: Option<String>, method: &Method, status: u16) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = routes.entry(route.unwrap_or_else(|| OTHER.to_owned())).or_default().entry(name_of(method)).or_default();
        *answers.statuses.entry(status).or_default() += 1;
        answers.durations.observe(request.began.elapsed());
    }

    pub(super) fn add(&self, page: &mut Page) {
        page.set(&s::HTTP_IN_FLIGHT, &[], self.in_flight.load(Ordering::Relaxed));
        for (route, methods) in &*self.routes.lock().unwrap_or_else(PoisonError::into_inner) {
            for (method, answers) in methods {
                for (status, count) in &answers.statuses {
                    page.set(&s::HTTP_REQUESTS, &[route, method, &status.to_string()], *count);
                }
                page.distribution(&s::HTTP_DURATION, &[route, method], &answers.durations.distribution());
            }
        }
    }
}

/// Clients may invent methods.
fn name_of(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or(OTHER)
}
