//! JSON values as cells of a CSV row, and back without loss.
//!
//! A cell that is JSON in the one spelling that `export` writes is that value; any other text is text. Text that would read as
//! something else is written as a JSON string, in quotes. An empty cell is a field that isn't there.

use serde_json::Value as Json;

/// A value as a cell.
pub fn cell(value: Option<&Json>) -> String {
    match value {
        None => String::new(),
        Some(Json::String(text)) if !text.is_empty() && read_json(text).is_none() => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// What a cell says.
pub fn value(cell: &str) -> Option<Json> {
    if cell.is_empty() {
        return None;
    }
    Some(read_json(cell).unwrap_or_else(|| Json::String(cell.to_owned())))
}

/// A cell in JSON's own spelling: `007` and `1e5` stay text, so that no digit of a part number is lost.
fn read_json(cell: &str) -> Option<Json> {
    let value: Json = serde_json::from_str(cell).ok()?;
    match &value {
        Json::Number(number) => (number.to_string() == cell).then_some(value),
        _ => Some(value),
    }
}

/// A cell says what it said after it was read and written; any value that a document may hold is what its cell says.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) {
    let read = value(text);
    assert_eq!(value(&cell(read.as_ref())), read);
    let written = serde_json::from_str::<Json>(text).ok();
    assert_eq!(value(&cell(written.as_ref())), written);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_say_what_their_values_were() {
        let values = [
            json!("plain"),
            json!(""),
            json!("12"),
            json!("007"),
            json!("true"),
            json!("null"),
            json!("\"quoted\""),
            json!("{}"),
            json!(12),
            json!(-1.5),
            json!(18_446_744_073_709_551_615_u64),
            json!(true),
            json!(null),
            json!([1, "a"]),
            json!({"a": {"b": null}}),
        ];
        for before in values {
            assert_eq!(value(&cell(Some(&before))), Some(before));
        }
        assert_eq!((cell(None), value("")), (String::new(), None));
    }

    #[test]
    fn what_only_looks_like_a_number_stays_text() {
        for text in ["007", "1e5", "+1", "1.0e0", "0x10", "1,5"] {
            assert_eq!(value(text), Some(json!(text)));
        }
    }
}
