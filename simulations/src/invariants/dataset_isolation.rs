use super::{Invariant, Message, Replica};
use crate::workload;

/// See its statement.
pub struct DatasetIsolation;

impl Invariant for DatasetIsolation {
    fn name(&self) -> &'static str {
        "dataset-isolation"
    }

    fn statement(&self) -> &'static str {
        "no value of one dataset is ever in another one, nor two datasets' values in one message"
    }

    fn reason(&self) -> &'static str {
        "datasets have different readers; what crosses over is a leak that no fix takes back"
    }

    fn look(&mut self, replica: &Replica<'_>) -> Result<(), String> {
        for collection in replica.collections {
            let Some(shown) = replica.shown.get(collection) else { return Ok(()) };
            for document in shown {
                if !workload::belongs_to(&document.value, replica.dataset) {
                    return Err(format!("{}: document {} is of another dataset", replica.place(), document.key));
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), String> {
        let inside = workload::datasets_in(message.bytes);
        if inside.len() > 1 {
            return Err(format!(
                "a {} from node {} to {} has values of datasets {inside:?}",
                message.kind, message.from, message.to
            ));
        }
        Ok(())
    }
}
