//! The past of collections that were registered while the dataset held commits already: pulled again, with just their sections.
//!
//! Ordinary pulls, whose registration names only what is imported. One peer is asked at a time, a few pages in a row, so that fresh
//! commits are never kept waiting for long.

use std::collections::BTreeMap;

use anabranch_protocol::coverage::Scope;
use anabranch_protocol::id::{DatasetId, Lineage, PeerId, Tag, WriterId};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;

use super::Sync;

/// Pages in a row.
const PAGES_MAX: usize = 4;

/// What is pulled of the past.
#[derive(Debug)]
pub(super) struct Past {
    scopes: Vec<Scope>,
    /// The last commit of each writer that is missing.
    until: BTreeMap<WriterId, u64>,
    pages_left: usize,
}

impl Past {
    /// What the pull asks for: nothing but what is imported.
    pub fn registration(&self) -> Registration {
        if self.scopes.contains(&Scope::All) {
            return Registration::all();
        }
        let one = |scope: &Scope| if let Scope::One(collection) = scope { Some(collection.clone()) } else { None };
        Registration::of(self.scopes.iter().filter_map(one))
    }

    /// A page came: what is not missing here is not wanted any more. Whether the pull ends.
    pub fn page_came(&mut self, wants: &mut Vec<Want>) -> bool {
        wants.retain(|want| self.until.get(&want.writer).is_some_and(|until| want.from_seq <= *until));
        self.pages_left = self.pages_left.saturating_sub(1);
        self.pages_left == 0 || wants.is_empty()
    }

    /// Whether it was asked for this.
    pub fn asked_for(&self, scope: &Scope, writer: &WriterId) -> bool {
        self.scopes.contains(scope) && self.until.contains_key(writer)
    }

    /// Which scopes of which writers the peer said it lacks.
    pub fn lacked(
        &self,
        lacking: &BTreeMap<WriterId, (u64, Vec<Tag>)>,
        dataset: &DatasetId,
        lineage: Lineage,
    ) -> Vec<(Scope, WriterId)> {
        let of = |scope: &Scope, tags: &[Tag]| match scope {
            Scope::All => true,
            Scope::One(collection) => tags.contains(&collection.tag(dataset, lineage)),
        };
        let scopes = |(writer, (_, tags)): (&WriterId, &(u64, Vec<Tag>))| {
            let scopes = self.scopes.iter().filter(|scope| of(scope, tags));
            scopes.map(|scope| (scope.clone(), *writer)).collect::<Vec<_>>()
        };
        lacking.iter().flat_map(scopes).collect()
    }
}

impl Sync {
    /// What of the past a peer can deliver now.
    pub(super) fn past_to_pull(&self, peer: PeerId) -> Option<(Past, Vec<Want>)> {
        if self.past_pulled_from.is_some() {
            return None;
        }
        let session = self.sessions.get(&peer)?;
        let coverages = &self.context.view.registered().now().coverages;
        let importing = coverages.importing().map(|(scope, _)| scope);
        let scopes: Vec<Scope> = importing.filter(|scope| session.registered(scope, &self.context.replica)).cloned().collect();
        let had = |scopes: &[Scope]| {
            let mut wants = coverages.wants(scopes, &session.theirs);
            let lacked = |want: &Want| scopes.iter().any(|scope| session.lacks_past.contains(&(scope.clone(), want.writer)));
            wants.retain(|want| !lacked(want) && !self.stopped.contains(&want.writer));
            (!wants.is_empty()).then_some(wants)
        };
        // All at once, until the peer lacks some of it: then one by one, so that the others need not wait for that.
        let (scopes, wants) = if session.lacks_past.is_empty() {
            had(&scopes).map(|wants| (scopes, wants))?
        } else {
            scopes.into_iter().find_map(|scope| had(std::slice::from_ref(&scope)).map(|wants| (vec![scope], wants)))?
        };
        let until = wants.iter().map(|want| (want.writer, coverages.missing_until(&want.writer))).collect();
        Some((Past { scopes, until, pages_left: PAGES_MAX }, wants))
    }
}
