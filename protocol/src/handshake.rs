//! Whether two replicas of a dataset may sync.

use crate::id::Collection;
use crate::wire::{DatasetHello, PolicyScope, Refusal, RefusalCode};

/// Judges a peer's dataset against ours of the same name.
///
/// # Errors
/// A refusal in words that holds for both sides, where lineage, kind or the policy of a shared collection differ.
pub fn judge(ours: &DatasetHello, theirs: &DatasetHello) -> Result<(), Refusal> {
    if ours.lineage != theirs.lineage {
        return Err(Refusal::new(RefusalCode::Lineage, "the dataset has another lineage there: it was created separately"));
    }
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
    Ok(())
}

fn policy<'a>(hello: &'a DatasetHello, collection: Option<&Collection>) -> &'a str {
    let own = collection.and_then(|c| hello.policies.get(&PolicyScope(Some(c.clone()))));
    own.or_else(|| hello.policies.get(&PolicyScope(None))).map_or("lww", String::as_str)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::Lineage;
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
        let merge = PolicyScope(Some(Collection::new("customers").unwrap()));
        let policies = BTreeMap::from([(merge, "merge".to_owned())]);
        assert_eq!(code(DatasetHello { policies: policies.clone(), ..hello() }), RefusalCode::Policy);
        let elsewhere = Registration::of([Collection::new("orders").unwrap()]);
        assert_eq!(judge(&ours, &DatasetHello { policies, registration: elsewhere, ..hello() }), Ok(()));
    }
}
