//! Typed collections: documents as an application's own types.
//!
//! ```no_run
//! # use anabranch_actors::node::NodeHandle;
//! # use anabranch_actors::typed::{Dataset, TypedError};
//! # use anabranch_protocol::id::DatasetId;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     id: String,
//!     total: u32,
//! }
//!
//! # async fn example(node: NodeHandle) -> Result<(), TypedError> {
//! let dataset = Dataset::new(node, DatasetId::primary());
//! // Registers the collection, if it is not: from now on it replicates, and what peers have of it is pulled.
//! let orders = dataset.watch_collection::<Order>("orders", |order| order.id.clone()).await?;
//! orders.put(&Order { id: "o-1".into(), total: 42 }).await?;
//! let paid = orders.get("o-1").await?.map(|order| order.total);
//! assert_eq!(paid, Some(42));
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use anabranch_protocol::id::{Collection, DatasetId, Key, NameError};
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest, Written};
use anabranch_protocol::value::{Value, ValueError, decode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{DatasetError, ListQuery, RegistrationError, WriteError};
use crate::node::NodeHandle;

/// Documents read with one look at the store.
const PAGE_DOCUMENTS: usize = 1_000;

/// Why a typed collection did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TypedError {
    /// The collection's or document's name is outside the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The collection can't be registered.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The document was not read.
    #[error(transparent)]
    Read(#[from] DatasetError),
    /// The document was not acknowledged.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The type is no JSON value that a dataset takes; nothing was written.
    #[error("a value of this type can't be written: {0}")]
    Unwritable(String),
    /// A stored document is of another shape than the type.
    #[error("document {key:?} is not of this type: {reason}")]
    OtherShape { key: Key, reason: String },
}

/// A dataset of a node, for code in the same process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dataset {
    node: NodeHandle,
    dataset: DatasetId,
}

impl Dataset {
    /// A dataset by name; whether the node has it shows with the first use.
    #[must_use]
    pub fn new(node: NodeHandle, dataset: DatasetId) -> Self {
        Self { node, dataset }
    }

    /// Registers a collection, unless it is registered already, and gives typed access to it. `key_of` names a document.
    ///
    /// # Errors
    /// [`TypedError::Registration`] also where `collections_max` does not name it; [`TypedError::Name`].
    pub async fn watch_collection<T>(
        &self,
        name: &str,
        key_of: impl Fn(&T) -> String + Send + Sync + 'static,
    ) -> Result<TypedCollection<T>, TypedError> {
        let collection = Collection::user(name)?;
        self.node.register(&self.dataset, &collection).await?;
        Ok(TypedCollection { dataset: self.clone(), collection, key_of: Arc::new(key_of), documents: PhantomData })
    }
}

/// A registered collection whose documents are of type `T`. Cheap to clone.
pub struct TypedCollection<T> {
    dataset: Dataset,
    collection: Collection,
    key_of: Arc<dyn Fn(&T) -> String + Send + Sync>,
    documents: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedCollection<T> {
    fn clone(&self) -> Self {
        Self {
            dataset: self.dataset.clone(),
            collection: self.collection.clone(),
            key_of: self.key_of.clone(),
            documents: PhantomData,
        }
    }
}

impl<T> fmt::Debug for TypedCollection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedCollection({}/{})", self.dataset.dataset, self.collection)
    }
}

impl<T: Serialize + DeserializeOwned> TypedCollection<T> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Collection {
        &self.collection
    }

    /// Writes a document under its key; durable here when this returns.
    ///
    /// # Errors
    /// [`TypedError`].
    pub async fn put(&self, document: &T) -> Result<Written, TypedError> {
        let key = Key::new(&(self.key_of)(document))?;
        self.write(Op::Put { key, value: encode(document)? }).await
    }

    /// Adds a record, in an `append` dataset: the node chooses its key.
    ///
    /// # Errors
    /// [`TypedError`].
    pub async fn append(&self, record: &T) -> Result<Written, TypedError> {
        self.write(Op::Append { value: encode(record)? }).await
    }

    /// Deletes a document, if it is there.
    ///
    /// # Errors
    /// [`TypedError`].
    pub async fn delete(&self, key: &str) -> Result<Written, TypedError> {
        self.write(Op::Delete { key: Key::new(key)?, must_exist: false }).await
    }

    async fn write(&self, op: Op) -> Result<Written, TypedError> {
        let request = WriteRequest::new(vec![WriteOp { collection: self.collection.clone(), op }]);
        Ok(self.dataset.node.write(&self.dataset.dataset, request).await?)
    }

    /// A document.
    ///
    /// # Errors
    /// [`TypedError`].
    pub async fn get(&self, key: &str) -> Result<Option<T>, TypedError> {
        let key = Key::new(key)?;
        let found = self.dataset.node.get(&self.dataset.dataset, &self.collection, &key).await?;
        found.map(|document| decoded(key, &document.value)).transpose()
    }

    /// Documents in the order of their keys, from the first one after `after` on, at most a thousand; and the value for `after`
    /// that goes on from there.
    ///
    /// # Errors
    /// [`TypedError`].
    pub async fn list(&self, after: Option<&str>) -> Result<(Vec<T>, Option<String>), TypedError> {
        let query = ListQuery { after: after.map(str::to_owned), limit: PAGE_DOCUMENTS, ..ListQuery::default() };
        let page = self.dataset.node.list(&self.dataset.dataset, &self.collection, query).await?;
        let documents = page.documents.into_iter().map(|document| decoded(document.key, &document.value));
        Ok((documents.collect::<Result<_, _>>()?, page.next))
    }
}

fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, TypedError> {
    let unwritable = |error: String| TypedError::Unwritable(error);
    let text = serde_json::to_vec(document).map_err(|error| unwritable(error.to_string()))?;
    let value = Value::from_json(&text).map_err(|error: ValueError| unwritable(error.to_string()))?;
    Ok(value.encode())
}

fn decoded<T: DeserializeOwned>(key: Key, value: &[u8]) -> Result<T, TypedError> {
    let text = decode(value).map(|value| value.to_json()).map_err(|error| error.to_string());
    let document = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    document.map_err(|reason| TypedError::OtherShape { key, reason })
}
