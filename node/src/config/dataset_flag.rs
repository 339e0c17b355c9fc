//! `--dataset NAME[:KIND][=COLLECTION,…]`

use std::str::FromStr;

use anabranch_protocol::id::{DatasetId, NameError};
use anabranch_protocol::wire::Kind;

/// One `--dataset`. What is left out comes from the configuration of that name, or from the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFlag {
    pub dataset: DatasetId,
    pub kind: Option<Kind>,
    /// `Some` and empty for `NAME=`: registers nothing, whatever the file says.
    pub collections: Option<Vec<String>>,
}

impl FromStr for DatasetFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (head, collections) = match text.split_once('=') {
            Some((head, list)) => (head, Some(list)),
            None => (text, None),
        };
        let (name, kind) = match head.split_once(':') {
            Some((name, kind)) => (name, Some(kind.parse()?)),
            None => (head, None),
        };
        let dataset = DatasetId::new(name).map_err(|error: NameError| error.to_string())?;
        let collections =
            collections.map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect());
        Ok(Self { dataset, kind, collections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> (String, Option<Kind>, Option<Vec<String>>) {
        let flag: DatasetFlag = text.parse().unwrap();
        (flag.dataset.to_string(), flag.kind, flag.collections)
    }

    #[test]
    fn each_part_may_be_left_out() {
        assert_eq!(flag("orders"), ("orders".into(), None, None));
        assert_eq!(flag("logs:append"), ("logs".into(), Some(Kind::Append), None));
        assert_eq!(flag("logs=*"), ("logs".into(), None, Some(vec!["*".into()])));
        assert_eq!(flag("a.b:documents=x, y"), ("a.b".into(), Some(Kind::Documents), Some(vec!["x".into(), "y".into()])));
        assert_eq!(flag("orders="), ("orders".into(), None, Some(Vec::new())));
    }

    #[test]
    fn what_is_no_dataset_is_refused() {
        for bad in ["", "Orders", ":append", "logs:appendix", "logs:", "=x"] {
            assert!(bad.parse::<DatasetFlag>().is_err(), "{bad:?}");
        }
    }
}
