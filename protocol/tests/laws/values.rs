//! Values are deterministic: one value, one byte string, and the same JSON out as in.

use anabranch_protocol::value::{MapKey, Value, ValueError, decode, validate};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::world::json;

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("JSON has no infinity", |x| x.is_finite()),
        any::<u16>().prop_map(|bits| half::f16::from_bits(bits).to_f64()).prop_filter("finite", |x| x.is_finite()),
        any::<f32>().prop_map(f64::from).prop_filter("finite", |x| x.is_finite()),
        Just(-0.0),
        Just(1.0),
        Just(f64::MIN_POSITIVE),
        Just(9_007_199_254_740_993.0),
    ]
}

pub fn any_value() -> impl Strategy<Value = Value> {
    let integer = prop_oneof![any::<u64>().prop_map(i128::from), any::<i64>().prop_map(i128::from), -30..300_i128];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        integer.prop_map(Value::Integer),
        finite().prop_map(Value::Float),
        "\\PC{0,30}".prop_map(Value::Text),
        any::<String>().prop_map(Value::Text),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map("\\PC{0,4}".prop_map(MapKey), inner, 0..6).prop_map(Value::Map),
        ]
    })
}

/// ciborium's view of a value, as another implementation of RFC 8949.
fn foreign(value: &Value) -> ciborium::Value {
    match value {
        Value::Null => ciborium::Value::Null,
        Value::Bool(b) => ciborium::Value::Bool(*b),
        Value::Integer(n) => ciborium::Value::Integer((*n).try_into().unwrap()),
        Value::Float(x) => ciborium::Value::Float(*x),
        Value::Text(text) => ciborium::Value::Text(text.clone()),
        Value::Array(items) => ciborium::Value::Array(items.iter().map(foreign).collect()),
        Value::Map(map) => {
            ciborium::Value::Map(map.iter().map(|(k, v)| (ciborium::Value::Text(k.0.clone()), foreign(v))).collect())
        }
    }
}

/// Validation is what decoding and encoding again would say.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let again = decode(bytes).map(|value| value.encode());
    prop_assert_eq!(validate(bytes).is_ok(), again.as_deref() == Ok(bytes), "{:02x?}", bytes);
    prop_assert_eq!(validate(bytes).err(), again.err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_to_cbor_and_back(value in any_value()) {
        let bytes = value.encode();
        prop_assert_eq!(validate(&bytes), Ok(()));
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(&read, &value);
        let text = read.to_json();
        let again = Value::from_json(text.as_bytes()).unwrap();
        prop_assert_eq!(again.encode(), bytes, "{}", text);
        prop_assert_eq!(again.to_json(), text);
    }

    #[test]
    fn ciborium_reads_and_writes_the_same_bytes(value in any_value()) {
        let bytes = value.encode();
        let read: ciborium::Value = ciborium::from_reader(&bytes[..]).unwrap();
        prop_assert_eq!(&read, &foreign(&value));
        let mut written = Vec::new();
        ciborium::into_writer(&read, &mut written).unwrap();
        prop_assert_eq!(written, bytes);
    }

    #[test]
    fn validate_is_decode_and_encode_on_any_bytes(bytes in vec(any::<u8>(), 0..24)) {
        agree(&bytes)?;
    }

    #[test]
    fn validate_is_decode_and_encode_on_damaged_values(
        value in any_value(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index, how in 0..4,
    ) {
        let mut bytes = value.encode();
        match how {
            0 => { let at = at.index(bytes.len()); bytes[at] = byte; }
            1 => bytes.truncate(cut.index(bytes.len())),
            2 => bytes.insert(at.index(bytes.len()), byte),
            _ => bytes.push(byte),
        }
        agree(&bytes)?;
    }
}

#[test]
fn every_half_float_takes_three_bytes() {
    for bits in 0..=u16::MAX {
        let x = half::f16::from_bits(bits).to_f64();
        if x.is_finite() {
            let bytes = Value::Float(x).encode();
            assert_eq!(bytes, [&[0xf9][..], &bits.to_be_bytes()].concat());
            assert_eq!(decode(&bytes), Ok(Value::Float(x)));
        }
    }
}

#[test]
fn known_values_have_known_bytes() {
    // RFC 8949, appendix A.
    for (text, hex) in [
        ("0", "00"),
        ("23", "17"),
        ("24", "1818"),
        ("1000000", "1a000f4240"),
        ("18446744073709551615", "1bffffffffffffffff"),
        ("-1", "20"),
        ("-9223372036854775808", "3b7fffffffffffffff"),
        ("1.0", "f93c00"),
        ("-0.0", "f98000"),
        ("0.0", "f90000"),
        ("1.1", "fb3ff199999999999a"),
        ("100000.0", "fa47c35000"),
        ("65504.0", "f97bff"),
        ("5.960464477539063e-8", "f90001"),
        ("-4.1", "fbc010666666666666"),
        ("null", "f6"),
        ("\"\\u6c34\"", "63e6b0b4"),
        ("[1,[2,3]]", "8201820203"),
        ("{\"b\":[2,3],\"a\":1}", "a26161016162820203"),
        ("{\"aa\":1,\"b\":2}", "a261620262616101"),
    ] {
        assert_eq!(data_encoding::HEXLOWER.encode(&json(text).encode()), hex, "{text}");
    }
}

#[test]
fn signs_and_kinds_of_numbers_survive() {
    for text in ["-0.0", "1.0", "1", "18446744073709551615", "-9223372036854775808", "1e+300", "5e-324", "0.1"] {
        assert_eq!(decode(&json(text).encode()).unwrap().to_json(), text, "{text}");
    }
    // Beyond 64 bits numbers are read as the nearest double, as JavaScript does.
    assert_eq!(json("18446744073709551616"), Value::Float(18_446_744_073_709_551_616.0));
    assert_eq!(json("-9223372036854775809"), Value::Float(-9_223_372_036_854_775_808.0));
    assert!(matches!(Value::from_json(b"1e999"), Err(ValueError::Json(_))));
}

#[test]
fn what_json_cannot_say_is_refused() {
    for (hex, why) in [
        ("3b8000000000000000", "below the least i64, which JSON text would read as a float"),
        ("3bffffffffffffffff", "-2^64"),
        ("f97e00", "NaN"),
        ("f97c00", "infinity"),
        ("f7", "undefined"),
        ("4100", "a byte string"),
        ("c000", "a tag"),
        ("1800", "a longer integer"),
        ("fa3f800000", "a longer float"),
        ("5fff", "an indefinite length"),
        ("9fff", "an indefinite list"),
        ("a10000", "a key that is not text"),
        ("a2616100616100", "a duplicate key"),
        ("a2616200616100", "keys out of order"),
        ("61ff", "bytes that are not UTF-8"),
        ("0000", "trailing bytes"),
        ("", "nothing"),
        ("9bffffffffffffffff", "an absurd length"),
        ("7bffffffffffffffff", "an absurd text"),
    ] {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert!(validate(&bytes).is_err() && decode(&bytes).is_err(), "{why}");
    }
    for text in ["{\"a\":1,\"a\":1}", "{\"a\":{\"b\":1,\"b\":2}}", "[{\"a\":1,\"\\u0061\":2}]", "1 2", "NaN", "\"\\ud800\""] {
        assert!(matches!(Value::from_json(text.as_bytes()), Err(ValueError::Json(_))), "{text}");
    }
}

#[test]
fn nesting_ends_at_64_levels() {
    for (open, close, byte, inner) in [("[", "]", vec![0x81], "0"), ("{\"a\":", "}", vec![0xa1, 0x61, b'a'], "0")] {
        let text = |depth| format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
        let bytes = |depth| [byte.repeat(depth), vec![0]].concat();
        assert_eq!(json(&text(64)).encode(), bytes(64));
        assert_eq!(validate(&bytes(64)), Ok(()));
        assert_eq!(Value::from_json(text(65).as_bytes()), Err(ValueError::TooDeep));
        assert_eq!(validate(&bytes(65)), Err(ValueError::TooDeep));
        assert_eq!(decode(&bytes(1 << 20)), Err(ValueError::TooDeep));
        assert!(Value::from_json(text(100_000).as_bytes()).is_err());
    }
}

#[test]
fn merge_patch_does_what_rfc_7396_shows() {
    for (target, patch, result) in [
        ("{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"),
        ("{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"),
        ("{\"a\":\"b\"}", "{\"a\":null}", "{}"),
        ("{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"),
        ("{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"),
        ("{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"),
        ("{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"),
        ("{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"),
        ("[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"),
        ("{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"),
        ("{\"a\":\"foo\"}", "null", "null"),
        ("{\"a\":\"foo\"}", "\"bar\"", "\"bar\""),
        ("{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"),
        ("[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"),
        ("{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"),
    ] {
        assert_eq!(json(target).merge_patch(json(patch)), json(result), "{target} + {patch}");
    }
}
