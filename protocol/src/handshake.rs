//! Whether two replicas of a dataset may sync.

use crate::id::{Collection, Lineage};
use crate::wire::{DatasetHello, PolicyScope, Refusal, RefusalCode};

/// Judges a peer's dataset against ours of the same name.
///
/// # Errors
/// A refusal in words that holds for both sides, where kind, the policy of a shared collection or lineage differ. Lineage comes
/// last: a refusal for it says that all else fits.
pub fn judge(ours: &DatasetHello, theirs: &DatasetHello) -> Result<(), Refusal> {
    if ours.kind != theirs.kind {
        let reason = format!("the dataset is of kind {} here and of kind {} there", ours.kind, theirs.kind);
        return Err(Refusal::new(RefusalCode::Kind, reason));
    }
    let scopes = ours.policies.keys().chain(theirs.policies.keys());
    let shared =
        |scope: &&PolicyScope| scope.0.as_ref().is_none_or(|c| ours.registration.contains(c) && theirs.registration.contains(c));
    for scope in scopes.filter(shared) {
        let (here, there) = (policy(ours, scope.0.as_ref()), policy(theirs, scope.0.as_ref()));
        if here != there {
            let what = scope.0.as_ref().map_or_else(|| "by default".to_owned(), |c| format!("for collection {c:?}"));
            let reason = format!("the conflict policy {what} is {here:?} here and {there:?} there");
            return Err(Refusal::new(RefusalCode::Policy, reason));
        }
    }
    if ours.lineage != theirs.lineage {
        let reason = format!(
            "the dataset was created separately: its lineage is {} here and {} there, and only an empty dataset without one takes \
             on another's",
            shown(ours.lineage),
            shown(theirs.lineage)
        );
        return Err(Refusal::new(RefusalCode::Lineage, reason));
    }
    Ok(())
}

/// Whether a dataset may take on the lineage of a peer that [`judge`] refuses for nothing but lineage: it has none of its own,
/// and no commits. What it wrote that does not replicate only its own node knows; that rules it out too.
#[must_use]
pub fn may_take_on(empty: &DatasetHello, other: &DatasetHello) -> bool {
    empty.lineage == Lineage::ZERO && empty.heads.is_empty() && other.lineage != Lineage::ZERO
}

fn shown(lineage: Lineage) -> String {
    if lineage == Lineage::ZERO { "the open one".to_owned() } else { lineage.to_string() }
}

fn policy<'a>(hello: &'a DatasetHello, collection: Option<&Collection>) -> &'a str {
    let own = collection.and_then(|c| hello.policies.get(&PolicyScope(Some(c.clone()))));
    own.or_else(|| hello.policies.get(&PolicyScope(None))).map_or("lww", String::as_str)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registration::Registration;
    use crate::vector::VersionVector;
    use crate::wire::Kind;

    fn hello() -> DatasetHello {
        DatasetHello {
            dataset: None,
            lineage: Lineage::ZERO,
            kind: Kind::Documents,
            registration: Registration::all(),
            policies: BTreeMap::new(),
            heads: VersionVector::new(),
        }
    }

    #[test]
    fn lineage_kind_and_shared_policies_must_match() {
        let ours = hello();
        assert_eq!(judge(&ours, &hello()), Ok(()));
        let code = |theirs: DatasetHello| judge(&ours, &theirs).unwrap_err().code;
        assert_eq!(code(DatasetHello { lineage: Lineage([1; 16]), ..hello() }), RefusalCode::Lineage);
        assert_eq!(code(DatasetHello { kind: Kind::Append, ..hello() }), RefusalCode::Kind);
        let both = DatasetHello { kind: Kind::Append, lineage: Lineage([1; 16]), ..hello() };
        assert_eq!(code(both), RefusalCode::Kind, "lineage is what is left");
        let merge = PolicyScope(Some(Collection::new("customers").unwrap()));
        let policies = BTreeMap::from([(merge, "merge".to_owned())]);
        assert_eq!(code(DatasetHello { policies: policies.clone(), ..hello() }), RefusalCode::Policy);
        let elsewhere = Registration::of([Collection::new("orders").unwrap()]);
        assert_eq!(judge(&ours, &DatasetHello { policies, registration: elsewhere, ..hello() }), Ok(()));
    }
    #[test]
    fn only_an_empty_dataset_without_a_lineage_takes_one_on() {
        use crate::hlc::Hlc;
        use crate::id::{Epoch, PeerId, ShortHash, WriterId};
        use crate::vector::Head;
        let (open, closed) = (hello(), DatasetHello { lineage: Lineage([1; 16]), ..hello() });
        assert!(may_take_on(&open, &closed) && !may_take_on(&closed, &open) && !may_take_on(&open, &open));
        let other = DatasetHello { lineage: Lineage([2; 16]), ..hello() };
        assert!(!may_take_on(&other, &closed));
        let mut written = hello();
        let writer = WriterId { peer: PeerId([1; 32]), epoch: Epoch([1; 16]) };
        written.heads.set(writer, Head { seq: 1, hlc: Hlc(1), hash: ShortHash([1; 8]) });
        assert!(!may_take_on(&written, &closed));
    }
}
