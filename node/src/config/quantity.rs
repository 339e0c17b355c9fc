//! Lengths of time and sizes as the page writes them: read from what people write, shown so that they come to exactly the same.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes per second, or none for `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth(pub Option<ByteSize>);

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(size) => as_size(&size, serializer),
            None => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Bandwidth;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte size per second such as \"8MiB\", or \"unlimited\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bandwidth, E> {
                if text == "unlimited" {
                    return Ok(Bandwidth(None));
                }
                text.parse().map(|size| Bandwidth(Some(size))).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E>(self, bytes: u64) -> Result<Bandwidth, E> {
                Ok(Bandwidth(Some(ByteSize(bytes))))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A length of time such as `5m`.
pub fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a length of time such as \"200ms\", \"15s\" or \"30d\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Text)
}

pub fn as_span<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*span))
}

// serde hands over the field as it is.
#[allow(clippy::ref_option)]
pub fn as_span_if_any<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => as_span(span, serializer),
        None => serializer.serialize_none(),
    }
}

pub fn span_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

/// A number of bytes, or a text such as `128MiB`.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    struct Size;
    impl de::Visitor<'_> for Size {
        type Value = ByteSize;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size such as \"128MiB\" or \"2GiB\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
        fn visit_u64<E>(self, bytes: u64) -> Result<ByteSize, E> {
            Ok(ByteSize(bytes))
        }
        fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
            u64::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
        }
    }
    deserializer.deserialize_any(Size)
}

pub fn size_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    size(deserializer).map(Some)
}

// serde hands over fields as they are.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub fn as_size<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&size_text(*size))
}

#[allow(clippy::ref_option)]
pub fn as_size_if_any<S: Serializer>(size: &Option<ByteSize>, serializer: S) -> Result<S::Ok, S::Error> {
    match size {
        Some(size) => as_size(size, serializer),
        None => serializer.serialize_none(),
    }
}

/// In the largest unit that it is a whole number of: rounded it would not be what was configured.
pub fn size_text(size: ByteSize) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(bytes, _)| size.0 >= *bytes && size.0.is_multiple_of(*bytes));
    unit.map_or_else(|| format!("{}B", size.0), |(bytes, name)| format!("{}{name}", size.0 / bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_as_what_is_read_as_the_same() {
        for (bytes, text) in
            [(0, "0B"), (1_023, "1023B"), (1_536, "1536B"), (2_048, "2KiB"), (128 << 20, "128MiB"), (3 << 40, "3TiB")]
        {
            assert_eq!(size_text(ByteSize(bytes)), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }
}
