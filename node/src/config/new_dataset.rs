//! A dataset that is created at run time: the keys of `[datasets.NAME]` as JSON, with its name as `dataset_id`.

use anabranch_actors::api::LineageSetting;
use anabranch_actors::node::DatasetSettings;
use anabranch_protocol::id::{DatasetId, Lineage};
use figment::Figment;
use figment::providers::Serialized;
use rand::Rng as _;
use serde_json::Value as Json;

use super::page::DatasetPage;
use super::{ConfigError, dataset_settings, load, not_yet};

/// A valid new dataset.
#[derive(Debug, Clone)]
pub struct NewDataset {
    /// Its name.
    pub dataset: DatasetId,
    /// What it is started with.
    pub settings: DatasetSettings,
    /// What starts it again: what was asked for, with a new lineage spelled out.
    pub definition: Json,
}

impl NewDataset {
    /// Judges what was asked for.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn judge(mut definition: Json) -> Result<Self, ConfigError> {
        let refused = |why: &str| ConfigError(why.to_owned());
        let keys = definition.as_object().ok_or_else(|| refused("the body is not an object: {\"dataset_id\": NAME, …}"))?;
        let name = keys.get("dataset_id").and_then(Json::as_str);
        let name = name.ok_or_else(|| refused("`dataset_id` is missing: the name of the new dataset"))?;
        let dataset = DatasetId::new(name).map_err(|error| ConfigError(format!("`dataset_id`: {error}")))?;
        let mut keys = keys.clone();
        keys.remove("dataset_id");
        let page = Figment::from(Serialized::defaults(keys)).extract::<DatasetPage>();
        let page = page.map_err(|error| load::sentence(error, "the new dataset"))?;
        if !page.enabled {
            return Err(refused("`enabled` is false: a dataset is created to run, leave it out"));
        }
        not_yet::refuse_in_dataset(name, &page)?;
        let mut settings = dataset_settings("", &page)?;
        if settings.lineage == LineageSetting::New {
            let mut random = Lineage::ZERO;
            rand::rng().fill_bytes(&mut random.0);
            settings.lineage = LineageSetting::Fixed(random);
            definition["lineage"] = random.to_string().into();
        }
        Ok(Self { dataset, settings, definition })
    }
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::wire::Kind;
    use serde_json::json;

    use super::*;

    fn refused(body: Json) -> String {
        NewDataset::judge(body).unwrap_err().0
    }

    #[test]
    fn a_body_has_the_keys_of_the_file() {
        let body =
            json!({"dataset_id": "logs", "kind": "append", "collections": ["app"], "sync": {"announce_interval": "200ms"}});
        let new = NewDataset::judge(body.clone()).unwrap();
        assert_eq!((new.dataset.as_str(), new.settings.kind, &new.definition), ("logs", Kind::Append, &body));
        assert!(!new.settings.registration.all);
        assert_eq!(new.settings.sync.announce_interval.as_millis(), 200);
        assert!(NewDataset::judge(json!({"dataset_id": "x"})).unwrap().settings.registration.collections.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (body, word) in [
            (json!([]), "object"),
            (json!({}), "dataset_id"),
            (json!({"dataset_id": "A"}), "dataset name"),
            (json!({"dataset_id": "a", "knid": "append"}), "did you mean `kind`"),
            (json!({"dataset_id": "a", "sync": {"max_peer": 1}}), "did you mean `sync.max_peers`"),
            (json!({"dataset_id": "a", "kind": "logs"}), "kind"),
            (json!({"dataset_id": "a", "collections": ["*", "b"]}), "stands alone"),
            (json!({"dataset_id": "a", "collections": 5}), "collections"),
            (json!({"dataset_id": "a", "enabled": false}), "enabled"),
            (json!({"dataset_id": "a", "disk_quota": "1GiB"}), "not supported by this version yet"),
            (json!({"dataset_id": "a", "lineage": "old"}), "lineage"),
            (json!({"dataset_id": "a", "lineage": "0".repeat(32)}), "leave it out"),
        ] {
            let message = refused(body.clone());
            assert!(message.contains(word), "{body}: {message}");
        }
    }

    #[test]
    fn a_new_lineage_is_kept_in_the_definition() {
        let new = NewDataset::judge(json!({"dataset_id": "a", "lineage": "new"})).unwrap();
        let again = NewDataset::judge(new.definition.clone()).unwrap();
        assert!(matches!(new.settings.lineage, LineageSetting::Fixed(lineage) if lineage != Lineage::ZERO));
        assert_eq!(new.settings.lineage, again.settings.lineage);
        let other = NewDataset::judge(json!({"dataset_id": "a", "lineage": "new"})).unwrap();
        assert_ne!(new.settings.lineage, other.settings.lineage);
    }
}
