//! The registration on disk: what is registered, and how much of its past is here.
//!
//! Rows are written so that any subset of them may survive a crash: spans first, which mean the same before and after the change,
//! then, behind a barrier, the heads that make the change. The number grows before either.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anabranch_protocol::codec;
use anabranch_protocol::coverage::{Coverage, Coverages, RegistrationRefusal, Scope};
use anabranch_protocol::id::{Collection, WriterId};

use super::{Committed, Ledger, META_REGISTRATION, fact, memory};
use crate::dataset::layout::{self, CoverageHead};
use crate::dataset::registered::Current;
use crate::store::{Store, StoreError};

/// Whether a registration is another one than before, or why it can't be.
pub type Changed = Result<bool, RegistrationRefusal>;

impl Ledger {
    /// What was registered at the last stop: it parts with the lines that a crash left whole.
    pub(super) fn load_registration(&mut self) -> Result<(), StoreError> {
        if let Some(number) = fact::<u64>(&*self.store, META_REGISTRATION)? {
            self.coverages = Coverages { number, scopes: stored_scopes(&*self.store)? };
        }
        Ok(())
    }

    /// What was registered at run time, changed by what the configuration changed since the last start.
    pub(super) fn start_registration(&mut self) -> Result<(), StoreError> {
        let configured = self.replica.settings().registration.clone();
        if fact::<u64>(&*self.store, META_REGISTRATION)?.is_none() {
            let remembered = self.memory.as_deref().map_or(Ok(None), memory::recall)?;
            // A store before this one may have known better than the configuration does.
            self.coverages = match remembered {
                Some(mut remembered) => {
                    remembered.reconfigure(&configured, self.replica.vector());
                    remembered
                }
                None => Coverages::configured(&configured),
            };
            self.remember_if_there_is_room()?;
            for (scope, coverage) in &self.coverages.scopes {
                self.put_head(scope, coverage)?;
            }
            // Behind the heads: a store without the number has none of them.
            self.store.barrier()?;
            self.put_number()?;
            self.store.barrier()?;
            self.publish();
            return Ok(());
        }
        let mut next = self.coverages.clone();
        next.reconfigure(&configured, self.replica.vector());
        self.change(next)?;
        self.remember_if_there_is_room()?;
        self.publish();
        Ok(())
    }

    /// As [`Ledger::remember`], at a start: a full disk stops no reads.
    fn remember_if_there_is_room(&self) -> Result<(), StoreError> {
        match self.remember() {
            Err(StoreError::NoSpace) => Ok(()),
            other => other,
        }
    }

    /// Keeps what is registered beside the store too, should that be lost.
    fn remember(&self) -> Result<(), StoreError> {
        match &self.memory {
            Some(path) if !self.read_only => memory::remember(path, &self.coverages),
            _ => Ok(()),
        }
    }

    /// What is registered, and how much of its past is here.
    #[must_use]
    pub fn coverages(&self) -> &Coverages {
        &self.coverages
    }

    /// Registers a collection; durable when it returns. Whether it was not registered.
    ///
    /// # Errors
    /// [`StoreError`]: the outcome is unknown, and the ledger must be opened again.
    pub fn register(&mut self, collection: &Collection) -> Result<(Changed, Committed), StoreError> {
        let mut next = self.coverages.clone();
        let registered = next.register(collection, self.replica.vector());
        self.change(next)?;
        // A small dataset needs no peer to know that it lacks nothing.
        self.skim()?;
        Ok(self.changed(registered))
    }

    /// Unregisters a collection; durable when it returns. Whether it was registered. What is here of it stays.
    ///
    /// # Errors
    /// As [`Ledger::register`].
    pub fn unregister(&mut self, collection: &Collection) -> Result<(Changed, Committed), StoreError> {
        let mut next = self.coverages.clone();
        let unregistered = next.unregister(collection, self.replica.vector());
        self.change(next)?;
        Ok(self.changed(unregistered))
    }

    fn changed(&self, changed: Changed) -> (Changed, Committed) {
        let registered_anew = matches!(changed, Ok(true));
        (changed, Committed { registered_anew, ..self.nothing_committed() })
    }

    pub(super) fn change(&mut self, next: Coverages) -> Result<(), StoreError> {
        if next == self.coverages {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.coverages, next);
        // First: what must not leave any more must not come back by a lost store. Should a crash follow, nothing was promised yet.
        self.remember()?;
        // It may lie in a scope that is not the next one any more.
        self.issue_from = None;
        if before.number != self.coverages.number {
            self.put_number()?;
        }
        let nothing = Coverage::default();
        let changed = self.coverages.scopes.iter().map(|(scope, now)| (scope, before.scopes.get(scope).unwrap_or(&nothing), now));
        let changed: Vec<_> = changed.filter(|(_, before, now)| before != now).collect();
        for (scope, before, now) in &changed {
            for (writer, span) in now.spans.iter().filter(|(writer, span)| before.spans.get(writer) != Some(span)) {
                self.store.put(&layout::span_key(scope, writer), &layout::encode_span(*span))?;
            }
        }
        self.store.barrier()?;
        for (scope, _, now) in &changed {
            self.put_head(scope, now)?;
        }
        self.store.barrier()?;
        self.look_at_few()?;
        self.publish();
        Ok(())
    }

    fn put_number(&self) -> Result<(), StoreError> {
        self.store.put(&layout::meta(META_REGISTRATION), &layout::sealed(codec::encode(&self.coverages.number)))
    }

    pub(super) fn put_head(&self, scope: &Scope, coverage: &Coverage) -> Result<(), StoreError> {
        let Coverage { registered, configured, issuing, ref spans } = *coverage;
        let head = CoverageHead { registered, configured, issuing, spans: spans.len() as u64 };
        self.store.put(&layout::coverage_key(scope), &head.encode())
    }

    /// Puts the spans of a writer where scopes got on. They ride on the next barrier: whoever lags behind only asks again.
    pub(super) fn put_spans(&self, got_on: &BTreeSet<(Scope, WriterId)>) -> Result<(), StoreError> {
        for (scope, writer) in got_on {
            if let Some(span) = self.coverages.scopes.get(scope).and_then(|coverage| coverage.spans.get(writer)) {
                self.store.put(&layout::span_key(scope, writer), &layout::encode_span(*span))?;
            }
        }
        Ok(())
    }

    /// Lets everybody see what is registered and how far it got.
    pub(super) fn publish(&mut self) {
        let registration = self.coverages.registration();
        if *self.replica.registration() != registration {
            self.replica.set_registration(registration.clone());
        }
        let current = Current { registration, tags: self.replica.tags().clone(), coverages: self.coverages.clone() };
        self.view.registered().set(current);
    }
}

fn stored_scopes(store: &dyn Store) -> Result<BTreeMap<Scope, Coverage>, StoreError> {
    let mut scopes: BTreeMap<Scope, Coverage> = BTreeMap::new();
    let mut expected: BTreeMap<Scope, u64> = BTreeMap::new();
    let mut damaged = false;
    store.scan(b"c", b"d", &mut |key, value| {
        let Some((scope, writer)) = layout::parse_coverage_key(key) else {
            damaged = true;
            return ControlFlow::Break(());
        };
        let coverage = scopes.entry(scope.clone()).or_default();
        match writer {
            Some(writer) => match layout::decode_span(value) {
                Some(span) => drop(coverage.spans.insert(writer, span)),
                None => damaged = true,
            },
            None => match layout::decode_coverage_head(value) {
                Some(head) => {
                    expected.insert(scope, head.spans);
                    coverage.registered = head.registered;
                    coverage.configured = head.configured;
                    coverage.issuing = head.issuing;
                }
                None => damaged = true,
            },
        }
        ControlFlow::Continue(())
    })?;
    let fewer = |(scope, coverage): (&Scope, &Coverage)| expected.get(scope).is_some_and(|n| *n > coverage.spans.len() as u64);
    if damaged || scopes.iter().any(fewer) {
        return Err(StoreError::Corrupt("what is registered fails its checksum".to_owned()));
    }
    Ok(scopes)
}
