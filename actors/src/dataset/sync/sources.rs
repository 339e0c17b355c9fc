//! Whether anybody connected can deliver what is registered here; what nobody can is told in words, and looked at again with
//! every `Hello`, pull and comparison.

use std::collections::BTreeMap;

use anabranch_protocol::coverage::{Coverages, Scope};
use anabranch_protocol::id::{Tag, WriterId};
use anabranch_protocol::registration::Registration;

use super::Sync;
use super::session::Session;
use crate::dataset::clock::Sourceless;

impl Sync {
    /// Looks which peers can deliver what is missing, and tells the clock if that is something else than before.
    pub(super) fn look_for_sources(&mut self) {
        let now = self.context.view.registered().now();
        let mut found = Sourceless { commits: self.commits_without_source(&now.registration), ..Sourceless::default() };
        for (scope, _) in now.coverages.importing() {
            if let Some(why) = self.why_no_source(scope, &now.coverages) {
                found.scopes.insert(scope.clone(), format!("no_source: {why}"));
            }
        }
        for (peer, session) in &self.sessions {
            if let Some(why) = self.what_peer_lacks(session, &now.coverages, &now.registration) {
                found.peers.insert(*peer, format!("no_source: the peer does not have {why}"));
            }
        }
        if found != self.sourceless {
            self.sourceless = found.clone();
            self.context.clock.do_send(found);
        }
    }

    /// Why the past of a scope does not get on; `None` where some peer can deliver some of it.
    fn why_no_source(&self, scope: &Scope, coverages: &Coverages) -> Option<String> {
        if self.sessions.is_empty() {
            return Some(format!("no peer is connected that could deliver {scope}"));
        }
        if !self.sessions.values().any(|session| session.registered(scope, &self.context.replica)) {
            return Some(format!("no connected peer has registered {scope}"));
        }
        let delivers = self.sessions.values().any(|session| self.delivers(session, scope, coverages));
        (!delivers).then(|| format!("no connected peer has all of {scope}"))
    }

    fn delivers(&self, session: &Session, scope: &Scope, coverages: &Coverages) -> bool {
        let wants = coverages.wants(std::slice::from_ref(scope), &session.theirs);
        let lacked = |writer: &WriterId| session.lacks_past_shown.contains(&(scope.clone(), *writer));
        session.registered(scope, &self.context.replica) && wants.iter().any(|want| !lacked(&want.writer))
    }

    /// Fresh commits that every peer which has them has without sections that are registered here.
    fn commits_without_source(&self, registration: &Registration) -> Option<String> {
        let mut lacked: BTreeMap<WriterId, (u64, &[Tag])> = BTreeMap::new();
        for session in self.sessions.values() {
            for (writer, (from, tags)) in session.lacks.iter().filter(|(writer, (from, _))| self.vector.seq(writer) < *from) {
                lacked.insert(*writer, (*from, tags));
            }
        }
        let helps = |session: &Session, writer: &WriterId, from: u64| {
            session.theirs.seq(writer) >= from && !session.lacks.contains_key(writer)
        };
        lacked.retain(|writer, (from, _)| !self.sessions.values().any(|session| helps(session, writer, *from)));
        let (writer, (from, tags)) = lacked.first_key_value()?;
        let names = self.names(tags, registration);
        Some(format!("no_source: commits of {} from {from} on need {names}, which no connected peer has of them", writer.peer))
    }

    fn what_peer_lacks(&self, session: &Session, coverages: &Coverages, registration: &Registration) -> Option<String> {
        let importing = coverages.importing().map(|(scope, _)| scope);
        let mut lacked: Vec<String> =
            importing.filter(|scope| !self.delivers(session, scope, coverages)).map(ToString::to_string).collect();
        let fresh = session.lacks.iter().filter(|(writer, (from, _))| self.vector.seq(writer) < *from);
        for (_, (_, tags)) in fresh {
            lacked.push(self.names(tags, registration));
        }
        lacked.sort();
        lacked.dedup();
        (!lacked.is_empty()).then(|| lacked.join(", "))
    }

    /// The collections that tags name, as far as they are registered by name here.
    fn names(&self, tags: &[Tag], registration: &Registration) -> String {
        let tag = |collection: &anabranch_protocol::id::Collection| collection.tag(self.dataset(), self.lineage());
        let named = registration.collections.iter().filter(|collection| tags.contains(&tag(collection)));
        let names: Vec<&str> = named.map(anabranch_protocol::id::Collection::as_str).collect();
        if names.is_empty() { "collections that are registered here by `*`".to_owned() } else { names.join(", ") }
    }
}
