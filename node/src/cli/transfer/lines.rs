//! A file of documents as the lines of an ingest request, made while they are sent.

use std::io::{BufRead as _, BufReader, Read};

use serde_json::{Map, Value as Json, json};

use super::export::{KEY, VALUE};
use super::{Format, cells};

/// How documents get their keys and where they go.
#[derive(Debug, Clone)]
pub struct Shape {
    pub collection: String,
    /// An `append` dataset: the node chooses keys.
    pub append: bool,
    /// The field that is the key.
    pub key_field: Option<String>,
    /// Records of the file that are passed over at its beginning.
    pub skip: u64,
}

/// Reads a file and gives its operations, a line each. What is wrong with a record ends the lines and is kept.
pub struct OpLines<'a> {
    source: Source<'a>,
    shape: Shape,
    line: Vec<u8>,
    given: usize,
    records: u64,
    taken: &'a mut dyn FnMut(u64),
    failure: Option<String>,
    done: bool,
}

enum Source<'a> {
    Ndjson(BufReader<Box<dyn Read + 'a>>),
    Csv(Box<csv::Reader<Box<dyn Read + 'a>>>, csv::StringRecord),
}

impl<'a> OpLines<'a> {
    /// `taken` is told how many operations each call gave.
    pub fn new(format: Format, file: Box<dyn Read + 'a>, shape: Shape, taken: &'a mut dyn FnMut(u64)) -> Result<Self, String> {
        let source = match format {
            Format::Ndjson => Source::Ndjson(BufReader::with_capacity(1 << 16, file)),
            Format::Csv => {
                let mut reader = csv::Reader::from_reader(file);
                let header = reader.headers().map_err(|error| format!("line 1: {error}"))?.clone();
                if !shape.append && !header.iter().any(|column| column == shape.key_field.as_deref().unwrap_or(KEY)) {
                    let columns: Vec<_> = header.iter().collect();
                    return Err(format!(
                        "no column `{}`: name the one that holds keys with --key, one of {}",
                        shape.key_field.as_deref().unwrap_or(KEY),
                        columns.join(", ")
                    ));
                }
                Source::Csv(Box::new(reader), header)
            }
        };
        Ok(Self { source, shape, line: Vec::new(), given: 0, records: 0, taken, failure: None, done: false })
    }

    /// What was wrong with a record, and so ended the lines.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn advance(&mut self) {
        loop {
            match self.record() {
                Ok(None) => self.done = true,
                Ok(Some(_)) if self.records <= self.shape.skip => continue,
                Ok(Some(op)) => {
                    self.line = op.to_string().into_bytes();
                    self.line.push(b'\n');
                    self.given = 0;
                    (self.taken)(1);
                }
                Err(reason) => {
                    self.failure = Some(format!("record {}: {reason}", self.records));
                    self.done = true;
                }
            }
            return;
        }
    }

    /// The next operation.
    fn record(&mut self) -> Result<Option<Json>, String> {
        match &mut self.source {
            Source::Ndjson(lines) => {
                let mut line = Vec::new();
                loop {
                    line.clear();
                    if lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())? == 0 {
                        return Ok(None);
                    }
                    if !line.iter().all(u8::is_ascii_whitespace) {
                        break;
                    }
                }
                self.records += 1;
                let document = serde_json::from_slice(&line).map_err(|error| format!("not JSON: {error}"))?;
                self.shape.op_of_line(document).map(Some)
            }
            Source::Csv(reader, header) => {
                let mut row = csv::StringRecord::new();
                if !reader.read_record(&mut row).map_err(|error| error.to_string())? {
                    return Ok(None);
                }
                self.records += 1;
                let fields = header.iter().zip(&row).filter_map(|(name, cell)| Some((name.to_owned(), cells::value(cell)?)));
                let key = header.iter().zip(&row).find(|(name, _)| *name == KEY).map(|(_, cell)| cell.to_owned());
                self.shape.op_of_row(fields.collect(), key).map(Some)
            }
        }
    }
}

impl Shape {
    fn op(&self, key: Option<String>, value: &Json) -> Json {
        match key {
            Some(key) if !self.append => json!({ "op": "put", "collection": self.collection, "key": key, "value": value }),
            _ => json!({ "op": "append", "collection": self.collection, "value": value }),
        }
    }

    /// `{"key", "value"}` as `export` writes it, or a document that holds its key in a field.
    fn op_of_line(&self, mut document: Json) -> Result<Json, String> {
        if let Some(field) = &self.key_field {
            let key = key_text(document.get(field)).ok_or_else(|| format!("no text or number in the field `{field}`"))?;
            return Ok(self.op(Some(key), &document));
        }
        let exported = document
            .as_object()
            .is_some_and(|object| object.len() >= 2 && object.contains_key(KEY) && object.contains_key(VALUE));
        if exported {
            let key = document[KEY].as_str().map(str::to_owned).ok_or("`key` is no text")?;
            return Ok(self.op(Some(key), &document[VALUE].take()));
        }
        if self.append {
            return Ok(self.op(None, &document));
        }
        Err("no {\"key\", \"value\"}: name the field that holds keys with --key".to_owned())
    }

    /// A row: its cells are the fields, unless a column `value` alone is the value.
    fn op_of_row(&self, mut fields: Map<String, Json>, key: Option<String>) -> Result<Json, String> {
        let key = match &self.key_field {
            Some(field) => Some(key_text(fields.get(field)).ok_or_else(|| format!("no text or number in the column `{field}`"))?),
            None => {
                fields.remove(KEY);
                key
            }
        };
        if !self.append && key.as_ref().is_none_or(String::is_empty) {
            return Err("the key is empty".to_owned());
        }
        let bare = fields.len() == 1 && self.key_field.is_none() && fields.contains_key(VALUE);
        let value = if bare { fields.remove(VALUE).unwrap_or_default() } else { Json::Object(fields) };
        Ok(self.op(key, &value))
    }
}

fn key_text(value: Option<&Json>) -> Option<String> {
    match value? {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

impl Read for OpLines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.given == self.line.len() && !self.done && (filled == 0 || self.source.is_at_hand()) {
                self.advance();
            }
            let rest = &self.line[self.given..];
            if rest.is_empty() {
                break;
            }
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            self.given += count;
        }
        Ok(filled)
    }
}

impl Source<'_> {
    /// Whether there is more without waiting for who writes the file: a slow pipe is imported as it comes.
    fn is_at_hand(&self) -> bool {
        match self {
            Self::Ndjson(lines) => lines.buffer().contains(&b'\n'),
            Self::Csv(..) => true,
        }
    }
}

/// A file, after a byte that says how it is read: its operations are lines of JSON to the collection that was named, the same in
/// whatever pieces they are asked for, and each is counted.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some((how, file)) = data.split_first() else { return };
    let says = |bit: u8| how & bit != 0;
    let format = if says(1) { Format::Csv } else { Format::Ndjson };
    let key_field = says(2).then(|| "id".to_owned());
    let shape = Shape { collection: "c".to_owned(), append: says(4), key_field, skip: u64::from(how >> 4) };
    let made = |piece: usize| {
        let (mut count, mut out) = (0_usize, Vec::new());
        let mut taken = |more: u64| count += usize::try_from(more).expect("few");
        let Ok(mut lines) = OpLines::new(format, Box::new(file), shape.clone(), &mut taken) else { return None };
        let mut buffer = vec![0; piece];
        loop {
            match lines.read(&mut buffer).expect("memory is read") {
                0 => break,
                more => out.extend_from_slice(&buffer[..more]),
            }
        }
        let failure = lines.failure().map(str::to_owned);
        drop(lines);
        Some((count, out, failure))
    };
    let whole = made(1 << 16);
    assert_eq!(made(7), whole);
    let Some((count, out, _)) = whole else { return };
    let ops: Vec<Json> =
        out.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    assert_eq!(ops.len(), count);
    for op in ops {
        assert_eq!(op["collection"], "c");
        assert_eq!((op["op"] == "put", op["op"] == "append"), (op.get("key").is_some(), op.get("key").is_none()));
        assert!(op.get("value").is_some() && (!shape.append || op["op"] == "append"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(format: Format, text: &str, key_field: Option<&str>, skip: u64) -> (Vec<Json>, Option<String>) {
        let shape = Shape { collection: "c".to_owned(), append: false, key_field: key_field.map(str::to_owned), skip };
        let mut count = |_| {};
        let mut lines = match OpLines::new(format, Box::new(text.as_bytes()), shape, &mut count) {
            Ok(lines) => lines,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut out = String::new();
        lines.read_to_string(&mut out).unwrap();
        let failure = lines.failure().map(str::to_owned);
        (out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), failure)
    }

    fn put(key: &str, value: Json) -> Json {
        json!({ "op": "put", "collection": "c", "key": key, "value": value })
    }

    #[test]
    fn lines_of_an_export_and_documents_with_a_key_field() {
        let (ops_, failure) = ops(Format::Ndjson, "{\"key\":\"a\",\"value\":[1]}\n\n{\"key\":\"b\",\"value\":null}", None, 0);
        assert_eq!((ops_, failure), (vec![put("a", json!([1])), put("b", json!(null))], None));
        let (ops_, _) = ops(Format::Ndjson, "{\"id\":7,\"n\":1}", Some("id"), 0);
        assert_eq!(ops_, [put("7", json!({ "id": 7, "n": 1 }))]);
    }

    #[test]
    fn a_bad_record_ends_the_lines_and_is_named() {
        let (ops_, failure) = ops(Format::Ndjson, "{\"key\":\"a\",\"value\":1}\nnonsense\n{\"key\":\"b\",\"value\":1}", None, 0);
        assert_eq!(ops_.len(), 1);
        assert!(failure.unwrap().starts_with("record 2: not JSON"));
        let (_, failure) = ops(Format::Ndjson, "{\"n\":1}", None, 0);
        assert!(failure.unwrap().contains("--key"));
    }

    #[test]
    fn rows_become_documents_and_empty_cells_are_left_out() {
        let (ops_, failure) = ops(Format::Csv, "key,name,total\no-1,Ann,12\no-2,,007\n", None, 0);
        assert_eq!(
            (ops_, failure),
            (vec![put("o-1", json!({ "name": "Ann", "total": 12 })), put("o-2", json!({ "total": "007" }))], None)
        );
        let (ops_, _) = ops(Format::Csv, "id,n\n5,1\n", Some("id"), 0);
        assert_eq!(ops_, [put("5", json!({ "id": 5, "n": 1 }))]);
        let (ops_, _) = ops(Format::Csv, "key,value\na,\"[1]\"\n", None, 0);
        assert_eq!(ops_, [put("a", json!([1]))]);
        let (_, failure) = ops(Format::Csv, "id,n\n5,1\n", None, 0);
        assert!(failure.unwrap().contains("one of id, n"));
    }

    #[test]
    fn records_can_be_passed_over() {
        let (ops_, _) = ops(Format::Csv, "key,n\na,1\nb,2\nc,3\n", None, 2);
        assert_eq!(ops_, [put("c", json!({ "n": 3 }))]);
    }
}
