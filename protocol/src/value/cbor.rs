//! Deterministic CBOR of JSON values, written and read by hand: reading checks every rule in one pass without allocating, which
//! decoding and encoding again would do twice per document and hop.

use std::collections::BTreeMap;

use half::f16;

use super::{MapKey, Value, ValueError};
use crate::limits::VALUE_DEPTH_MAX;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const F16: u8 = 0xf9;
const F32: u8 = 0xfa;
const F64: u8 = 0xfb;

pub(super) fn encode_into(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Integer(n) => encode_integer(*n, out),
        Value::Float(x) => encode_float(*x, out),
        Value::Text(text) => encode_text(text, out),
        Value::Array(items) => {
            encode_head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| encode_into(item, out));
        }
        Value::Map(map) => {
            encode_head(MAP, map.len() as u64, out);
            for (key, item) in map {
                encode_text(&key.0, out);
                encode_into(item, out);
            }
        }
    }
}

fn encode_integer(n: i128, out: &mut Vec<u8>) {
    // Numbers beyond these bounds became floats when they were read, so both conversions hold.
    match u64::try_from(n) {
        Ok(n) => encode_head(UNSIGNED, n, out),
        Err(_) => encode_head(NEGATIVE, u64::try_from(-1 - n).expect("integers fit 64 bits and a sign"), out),
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    encode_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "each arm is guarded by its range")]
fn encode_head(major: u8, n: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match n {
        0..24 => out.push(major | n as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, n as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the narrowed value is compared with the original")]
fn encode_float(x: f64, out: &mut Vec<u8>) {
    let half = f16::from_f64(x);
    if half.to_f64() == x {
        out.push(F16);
        out.extend_from_slice(&half.to_bits().to_be_bytes());
    } else if f64::from(x as f32) == x {
        out.push(F32);
        out.extend_from_slice(&(x as f32).to_be_bytes());
    } else {
        out.push(F64);
        out.extend_from_slice(&x.to_be_bytes());
    }
}

/// Decodes the deterministic CBOR of one value.
///
/// # Errors
/// [`ValueError::Cbor`] at the first byte that breaks a rule; [`ValueError::TooDeep`].
pub fn decode(bytes: &[u8]) -> Result<Value, ValueError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    reader.finish(value)
}

/// Checks that `bytes` are the deterministic CBOR of one value, without building it.
///
/// # Errors
/// As [`decode`].
pub fn validate(bytes: &[u8]) -> Result<(), ValueError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.skip(0)?;
    reader.finish(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Item<'a> {
    Scalar(Value),
    Text(&'a str),
    Array(u64),
    Map(u64),
}

impl<'a> Reader<'a> {
    fn finish<T>(&self, value: T) -> Result<T, ValueError> {
        if self.at == self.bytes.len() { Ok(value) } else { Err(ValueError::Cbor(self.at)) }
    }

    fn refuse<T>(&self) -> Result<T, ValueError> {
        Err(ValueError::Cbor(self.at))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], ValueError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or(ValueError::Cbor(self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| ValueError::Cbor(at))
    }

    /// The argument of an initial byte, refused unless it is the shortest form.
    fn argument(&mut self, info: u8) -> Result<u64, ValueError> {
        let (n, least) = match info {
            0..24 => (u64::from(info), 0),
            24 => (u64::from(self.array::<1>()?[0]), 24),
            25 => (u64::from(u16::from_be_bytes(self.array()?)), 0x100),
            26 => (u64::from(u32::from_be_bytes(self.array()?)), 0x1_0000),
            27 => (u64::from_be_bytes(self.array()?), 0x1_0000_0000),
            _ => return self.refuse(),
        };
        if n < least { self.refuse() } else { Ok(n) }
    }

    fn item(&mut self) -> Result<Item<'a>, ValueError> {
        let initial = self.array::<1>()?[0];
        let (major, info) = (initial >> 5, initial & 0x1f);
        Ok(match (major, initial) {
            (UNSIGNED, _) => Item::Scalar(Value::Integer(i128::from(self.argument(info)?))),
            (NEGATIVE, _) => Item::Scalar(Value::Integer(self.negative(info)?)),
            (TEXT, _) => Item::Text(self.text(info)?),
            (ARRAY, _) => Item::Array(self.argument(info)?),
            (MAP, _) => Item::Map(self.argument(info)?),
            (_, FALSE) => Item::Scalar(Value::Bool(false)),
            (_, TRUE) => Item::Scalar(Value::Bool(true)),
            (_, NULL) => Item::Scalar(Value::Null),
            (_, F16 | F32 | F64) => Item::Scalar(Value::Float(self.float(initial)?)),
            _ => return self.refuse(),
        })
    }

    /// A negative integer that JSON has too: below the least `i64` a number is read as a float, and one value has one encoding.
    fn negative(&mut self, info: u8) -> Result<i128, ValueError> {
        let at = self.at;
        let n = i64::try_from(self.argument(info)?).map_err(|_| ValueError::Cbor(at))?;
        Ok(i128::from(-1 - n))
    }

    fn text(&mut self, info: u8) -> Result<&'a str, ValueError> {
        let at = self.at;
        let len = usize::try_from(self.argument(info)?).map_err(|_| ValueError::Cbor(at))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| ValueError::Cbor(at))
    }

    /// A finite float in its shortest form.
    fn float(&mut self, initial: u8) -> Result<f64, ValueError> {
        let at = self.at;
        let x = match initial {
            F16 => f16::from_bits(u16::from_be_bytes(self.array()?)).to_f64(),
            F32 => f64::from(f32::from_be_bytes(self.array()?)),
            _ => f64::from_be_bytes(self.array()?),
        };
        let mut shortest = Vec::with_capacity(9);
        encode_float(x, &mut shortest);
        if x.is_finite() && shortest[0] == initial { Ok(x) } else { Err(ValueError::Cbor(at)) }
    }

    /// A map's next key, greater than the one before.
    fn key(&mut self, last: Option<&str>) -> Result<&'a str, ValueError> {
        let at = self.at;
        let Item::Text(key) = self.item()? else { return Err(ValueError::Cbor(at)) };
        let in_order = last.is_none_or(|last| (last.len(), last) < (key.len(), key));
        if in_order { Ok(key) } else { Err(ValueError::Cbor(at)) }
    }

    fn skip(&mut self, depth: usize) -> Result<(), ValueError> {
        match self.item()? {
            Item::Scalar(_) | Item::Text(_) => Ok(()),
            Item::Array(len) => {
                let depth = deeper(depth)?;
                (0..len).try_for_each(|_| self.skip(depth))
            }
            Item::Map(len) => {
                let depth = deeper(depth)?;
                let mut last = None;
                for _ in 0..len {
                    last = Some(self.key(last)?);
                    self.skip(depth)?;
                }
                Ok(())
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, ValueError> {
        Ok(match self.item()? {
            Item::Scalar(value) => value,
            Item::Text(text) => Value::Text(text.to_owned()),
            Item::Array(len) => {
                let depth = deeper(depth)?;
                // Not presized: the length is a stranger's claim, the items have to be there.
                let mut items = Vec::new();
                for _ in 0..len {
                    items.push(self.value(depth)?);
                }
                Value::Array(items)
            }
            Item::Map(len) => {
                let depth = deeper(depth)?;
                let mut map = BTreeMap::new();
                let mut last = None;
                for _ in 0..len {
                    let key = self.key(last)?;
                    map.insert(MapKey(key.to_owned()), self.value(depth)?);
                    last = Some(key);
                }
                Value::Map(map)
            }
        })
    }
}

fn deeper(depth: usize) -> Result<usize, ValueError> {
    if depth < VALUE_DEPTH_MAX { Ok(depth + 1) } else { Err(ValueError::TooDeep) }
}
