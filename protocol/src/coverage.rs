//! Which collections are registered, and how much of their past is here.
//!
//! A registration changes while a node runs, and with every start that finds another configuration. Coverage says of each scope (a
//! collection, or `*`) which commits of each writer were taken in with its sections: all of them ([`Standing::Complete`]), all but
//! spans that peers have to deliver again ([`Standing::Importing`]), or those up to the moment it was unregistered
//! ([`Standing::Frozen`]). Commits that arrive while a collection is registered always come with its section, so only the past is
//! ever missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::{Collection, WriterId};
use crate::limits::{PULL_WANTS_MAX, REGISTRATION_COLLECTIONS_MAX};
use crate::plan::Want;
use crate::registration::Registration;
use crate::vector::VersionVector;

/// What is registered or unregistered as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every collection, present and future: `*`.
    All,
    /// One collection.
    One(Collection),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::One(collection) => f.write_str(collection.as_str()),
        }
    }
}

impl Scope {
    /// The registration that names just this.
    #[must_use]
    pub fn alone(&self) -> Registration {
        match self {
            Self::All => Registration::all(),
            Self::One(collection) => Registration::of([collection.clone()]),
        }
    }
}

/// One writer's commits in a scope: all below `next` are here with its sections, those from `next` to `until` are not, later ones
/// are while the scope is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first one that is missing.
    pub next: u64,
    /// The last one; below `next` if none is.
    pub until: u64,
}

impl Span {
    /// How many commits have to be delivered again.
    #[must_use]
    pub fn missing(&self) -> u64 {
        (self.until + 1).saturating_sub(self.next)
    }
}

/// What is known of one scope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// It replicates.
    pub registered: bool,
    /// The configuration named it at the last start.
    pub configured: bool,
    /// What was written while it was not registered still has to be issued.
    pub issuing: bool,
    /// By writer; one that is not named misses nothing while the scope is registered, and all once it is not.
    pub spans: BTreeMap<WriterId, Span>,
}

impl Coverage {
    /// Commits that have to be delivered again.
    #[must_use]
    pub fn missing(&self) -> u64 {
        if self.registered { self.spans.values().map(Span::missing).sum() } else { 0 }
    }

    /// The first commit of `writer`, whose newest one here is `seq`, that may lack the scope's sections.
    fn first_missing(&self, writer: &WriterId, seq: u64) -> u64 {
        match (self.spans.get(writer), self.registered) {
            (Some(span), true) if span.missing() == 0 => seq + 1,
            (Some(span), _) => span.next,
            (None, true) => seq + 1,
            (None, false) => 1,
        }
    }

    /// From now on later commits come without the scope's sections.
    fn freeze(&mut self, vector: &VersionVector) {
        for (writer, head) in vector.iter() {
            let span = self.spans.entry(*writer).or_insert(Span { next: 1, until: 0 });
            if span.missing() == 0 {
                *span = Span { next: head.seq + 1, until: head.seq };
            }
        }
        (self.registered, self.issuing) = (false, false);
    }
}

/// Where a collection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Registered, and nothing of it is missing.
    Complete,
    /// Registered, and this many commits have to be delivered again by peers.
    Importing {
        /// Commits, all writers together.
        missing: u64,
    },
    /// Not registered any more: what was there stays as it was.
    Frozen,
    /// Never registered.
    Absent,
}

impl Standing {
    /// The word status pages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Importing { .. } => "importing",
            Self::Frozen => "frozen",
            Self::Absent => "absent",
        }
    }
}

/// Why a registration can't be changed as asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationRefusal {
    /// `*` registers it, and can't be unregistered in part.
    #[error("every collection is registered by `*`: list them in the configuration instead")]
    EveryCollection,
    /// The name is Anabranch's own.
    #[error("{0:?} is reserved: collections beginning with `_` are registered by Anabranch itself")]
    Reserved(Collection),
    /// A registration could not be sent any more.
    #[error("{limit} collections are registered already, and that is the limit: unregister one, or configure `*`")]
    TooMany { limit: usize },
    /// `collections_max` does not name it.
    #[error("{0:?} may not be registered at run time: add it to the dataset's `collections_max`, or to `collections`")]
    BeyondMax(Collection),
}

/// The registration of a dataset, and the coverage of everything that was ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverages {
    /// Of the registration; grows with every change.
    pub number: u64,
    /// By scope.
    pub scopes: BTreeMap<Scope, Coverage>,
}

impl Coverages {
    /// Of a store that knows nothing of registrations yet: what is configured is registered, and complete.
    #[must_use]
    pub fn configured(registration: &Registration) -> Self {
        let coverage = || Coverage { registered: true, configured: true, ..Coverage::default() };
        Self { number: registration.number, scopes: scopes(registration).into_iter().map(|scope| (scope, coverage())).collect() }
    }

    /// What is registered.
    #[must_use]
    pub fn registration(&self) -> Registration {
        let registered = self.scopes.iter().filter(|(_, coverage)| coverage.registered).map(|(scope, _)| scope);
        let collections = registered.filter_map(|scope| match scope {
            Scope::All => None,
            Scope::One(collection) => Some(collection.clone()),
        });
        let all = self.registers_all();
        Registration { number: self.number, all, collections: if all { BTreeSet::new() } else { collections.collect() } }
    }

    fn registers_all(&self) -> bool {
        self.scopes.get(&Scope::All).is_some_and(|coverage| coverage.registered)
    }

    /// Takes in a configuration: what it added or removed since the last start is registered or unregistered; what was changed
    /// while the node ran, and the configuration says nothing new about, stays.
    pub fn reconfigure(&mut self, now: &Registration, vector: &VersionVector) {
        let now = scopes(now);
        let named = |(scope, coverage): (&Scope, &Coverage)| coverage.configured.then(|| scope.clone());
        let before: BTreeSet<Scope> = self.scopes.iter().filter_map(named).collect();
        let had_all = self.registers_all();
        let mut changed = false;
        for scope in now.difference(&before) {
            changed |= self.add(scope, vector);
        }
        for scope in before.difference(&now) {
            changed |= self.remove(scope, vector);
        }
        if !had_all && self.registers_all() {
            let others = self.scopes.iter_mut().filter(|(scope, coverage)| **scope != Scope::All && coverage.registered);
            others.for_each(|(_, coverage)| coverage.freeze(vector));
        }
        for scope in &now {
            self.scopes.entry(scope.clone()).or_default();
        }
        self.scopes.iter_mut().for_each(|(scope, coverage)| coverage.configured = now.contains(scope));
        self.number += u64::from(changed);
    }

    /// Registers a collection; whether it was not.
    ///
    /// # Errors
    /// [`RegistrationRefusal`].
    pub fn register(&mut self, collection: &Collection, vector: &VersionVector) -> Result<bool, RegistrationRefusal> {
        if collection.is_reserved() {
            return Err(RegistrationRefusal::Reserved(collection.clone()));
        }
        let scope = Scope::One(collection.clone());
        if self.registers_all() || self.scopes.get(&scope).is_some_and(|coverage| coverage.registered) {
            return Ok(false);
        }
        let registered = self.scopes.values().filter(|coverage| coverage.registered).count();
        if registered >= REGISTRATION_COLLECTIONS_MAX {
            return Err(RegistrationRefusal::TooMany { limit: REGISTRATION_COLLECTIONS_MAX });
        }
        self.number += 1;
        Ok(self.add(&scope, vector))
    }

    /// Unregisters a collection; whether it was registered. What is here of it stays.
    ///
    /// # Errors
    /// [`RegistrationRefusal`].
    pub fn unregister(&mut self, collection: &Collection, vector: &VersionVector) -> Result<bool, RegistrationRefusal> {
        if collection.is_reserved() {
            return Err(RegistrationRefusal::Reserved(collection.clone()));
        }
        if self.registers_all() {
            return Err(RegistrationRefusal::EveryCollection);
        }
        let changed = self.remove(&Scope::One(collection.clone()), vector);
        self.number += u64::from(changed);
        Ok(changed)
    }

    fn add(&mut self, scope: &Scope, vector: &VersionVector) -> bool {
        let all = self.scopes.get(&Scope::All).filter(|_| *scope != Scope::All).cloned();
        let coverage = self.scopes.entry(scope.clone()).or_default();
        if coverage.registered {
            return false;
        }
        for (writer, head) in vector.iter() {
            // What `*` brought, or brings still, counts.
            let by_all = all.as_ref().map_or(1, |all| all.first_missing(writer, head.seq));
            let next = coverage.first_missing(writer, head.seq).max(by_all);
            coverage.spans.insert(*writer, Span { next, until: head.seq });
        }
        (coverage.registered, coverage.issuing) = (true, true);
        true
    }

    fn remove(&mut self, scope: &Scope, vector: &VersionVector) -> bool {
        let Some(coverage) = self.scopes.get_mut(scope).filter(|coverage| coverage.registered) else { return false };
        coverage.freeze(vector);
        true
    }

    /// Where a collection stands.
    #[must_use]
    pub fn standing(&self, collection: &Collection) -> Standing {
        let own = self.scopes.get(&Scope::One(collection.clone()));
        let all = self.scopes.get(&Scope::All);
        match all.filter(|all| all.registered).or(own) {
            Some(coverage) if coverage.registered => match coverage.missing() {
                0 => Standing::Complete,
                missing => Standing::Importing { missing },
            },
            Some(_) => Standing::Frozen,
            None if all.is_some() => Standing::Frozen,
            None => Standing::Absent,
        }
    }

    /// Scopes of which commits have to be delivered again, and how many.
    pub fn importing(&self) -> impl Iterator<Item = (&Scope, u64)> {
        self.scopes.iter().map(|(scope, coverage)| (scope, coverage.missing())).filter(|(_, missing)| *missing > 0)
    }

    /// Scopes whose local writes still have to be issued.
    pub fn issuing(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().filter(|(_, coverage)| coverage.issuing).map(|(scope, _)| scope)
    }

    /// What to ask a peer that has `theirs` for, so that `scopes` are complete: at most [`PULL_WANTS_MAX`] writers.
    #[must_use]
    pub fn wants(&self, scopes: &[Scope], theirs: &VersionVector) -> Vec<Want> {
        let mut first: BTreeMap<WriterId, u64> = BTreeMap::new();
        let registered = scopes.iter().filter_map(|scope| self.scopes.get(scope)).filter(|coverage| coverage.registered);
        for (writer, span) in registered.flat_map(|coverage| &coverage.spans).filter(|(_, span)| span.missing() > 0) {
            first.entry(*writer).and_modify(|next| *next = span.next.min(*next)).or_insert(span.next);
        }
        let there = first.into_iter().filter(|(writer, next)| theirs.seq(writer) >= *next);
        there.map(|(writer, from_seq)| Want { writer, from_seq }).take(PULL_WANTS_MAX).collect()
    }

    /// A line parted after its commit `end`: what is missing of it past that is missing of `branch`, which its commits are a part of
    /// now. The scopes that it concerns. Told again, it changes nothing.
    pub fn part(&mut self, line: &WriterId, end: u64, branch: &WriterId) -> Vec<Scope> {
        let mut parted = Vec::new();
        for (scope, coverage) in &mut self.scopes {
            let Some(span) = coverage.spans.get_mut(line).filter(|span| span.until > end) else { continue };
            let past = Span { next: span.next.max(end + 1), until: span.until };
            *span = Span { next: span.next.min(end + 1), until: end };
            coverage.spans.entry(*branch).or_insert(past);
            parted.push(scope.clone());
        }
        parted
    }

    /// The last commit of `writer` that any scope misses; 0 if none does.
    #[must_use]
    pub fn missing_until(&self, writer: &WriterId) -> u64 {
        let spans = self.scopes.values().filter(|coverage| coverage.registered).filter_map(|coverage| coverage.spans.get(writer));
        spans.filter(|span| span.missing() > 0).map(|span| span.until).max().unwrap_or(0)
    }

    /// A commit is durable here with the sections of all scopes for which `whole` says so; the scopes that got on by it.
    pub fn took(&mut self, writer: &WriterId, seq: u64, whole: impl Fn(&Scope) -> bool) -> Vec<Scope> {
        let mut got_on = Vec::new();
        for (scope, coverage) in self.scopes.iter_mut().filter(|(_, coverage)| coverage.registered) {
            let span = coverage.spans.get_mut(writer).filter(|span| span.next == seq && span.missing() > 0);
            if let Some(span) = span.filter(|_| whole(scope)) {
                span.next += 1;
                got_on.push(scope.clone());
            }
        }
        got_on
    }
}

fn scopes(registration: &Registration) -> BTreeSet<Scope> {
    if registration.all { [Scope::All].into() } else { registration.collections.iter().cloned().map(Scope::One).collect() }
}
