use proptest::prelude::*;
use serde::Deserialize;
use std::fmt::Debug;

use super::*;
use crate::output::Output;
use crate::{json_enum, json_input, json_object};

json_object! {
    #[derive(Debug, PartialEq)]
    struct Item<'a> {
        key_id: &'a str = "keyId",
        n: Option<Bytes<'a>> = "n",
    }

    #[derive(Debug, PartialEq)]
    struct Numbers {
        small: u8 = "small",
        signed: i64 = "signed",
        flag: Option<bool> = "flag" [omit],
    }
}

json_input! {
    #[derive(Debug, PartialEq)]
    struct Outer<'a> {
        items: heapless::Vec<Item<'a>, 2> = "items",
        raw: Option<Raw<'a>> = "raw",
        word: Option<Word> = "word",
    }
}

json_enum! {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Word {
        One = "one",
        Two = "two",
        Three = "three",
    }
}

fn read<'a, T: FromJson<'a> + Debug>(input: &'a mut [u8]) -> Result<T, String> {
    from_slice(input).map_err(|error| error.to_string())
}

#[test]
fn ht_10_vectors_26_to_34() {
    for (text, error) in [
        (
            r#"{"keyId":"#,
            "EOF while parsing a value at line 1 column 9",
        ),
        ("{}", "missing field `keyId` at line 1 column 2"),
        (
            r#"{"keyId":1}"#,
            "invalid type: integer `1`, expected a string at line 1 column 10",
        ),
        (
            r#"{"keyId":"k"}x"#,
            "trailing characters at line 1 column 14",
        ),
        (
            r#"{"keyId":"a","keyId":"b"}"#,
            "duplicate field `keyId` at line 1 column 20",
        ),
        (
            r#"{"keyId":"a","n":"@@"}"#,
            "Invalid symbol 64, offset 0. at line 1 column 21",
        ),
        (
            r#"{"keyId":"a","n":"YQ"}"#,
            "Invalid padding at line 1 column 21",
        ),
        (
            r#"{"keyId":"a","n":"_-8="}"#,
            "Invalid symbol 95, offset 0. at line 1 column 23",
        ),
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        (
            r#"{"keyId":"a","n":5}"#,
            "invalid type: integer `5`, expected a base64-encoded string at line 1 column 18",
        ),
        ("\u{feff}{}", "expected value at line 1 column 1"),
        (
            r#"["a"]"#,
            "invalid length 1, expected struct Item with 2 elements at line 1 column 5",
        ),
        ("[\"a\",null,1]", "trailing characters at line 1 column 11"),
        (
            "7",
            "invalid type: integer `7`, expected struct Item at line 1 column 1",
        ),
    ] {
        let mut document = text.as_bytes().to_vec();
        assert_eq!(
            read::<Item<'_>>(&mut document).unwrap_err(),
            error,
            "{text}"
        );
    }
    let mut bad = b"{\"keyId\":\"\xff\"}".to_vec();
    assert_eq!(
        read::<Item<'_>>(&mut bad).unwrap_err(),
        "invalid unicode code point at line 1 column 11"
    );
    for text in [
        r#"["k",null]"#,
        r#"{"keyId":"k","zz":[1]}"#,
        "{\"keyId\":\"k\"} \n",
        r#"{"n":null,"keyId":"k"}"#,
    ] {
        let mut document = text.as_bytes().to_vec();
        assert_eq!(
            read::<Item<'_>>(&mut document).unwrap(),
            Item {
                key_id: "k",
                n: None
            }
        );
    }
}

#[test]
fn a_document_is_utf8_throughout() {
    for (document, place) in [
        (&b"\xff"[..], "1 column 1"),
        (b"{\"keyId\":\"k\",\"zz\":\"\xc3\"}", "1 column 20"),
        (b"{\n \"\xed\xa0\x80\":1}", "2 column 3"),
    ] {
        assert_eq!(
            super::require_utf8(document).unwrap_err().to_string(),
            format!("invalid unicode code point at line {place}")
        );
    }
    super::require_utf8("{\"k\":\"é\u{10ffff}\"}".as_bytes()).unwrap();
}

#[test]
fn ks_06_strings_and_bytes_are_decoded_in_place() {
    let mut document = br#"{"keyId":"a\/\u00e9\ud83d\ude00\n\"","n":"QUI\u003d"}"#.to_vec();
    let range = document.as_ptr_range();
    let item: Item<'_> = read(&mut document).unwrap();
    assert_eq!(item.key_id, "a/é😀\n\"");
    assert_eq!(item.n, Some(Bytes(b"AB")));
    assert!(range.contains(&item.key_id.as_ptr()));
}

#[test]
fn lists_raw_values_and_words() {
    let mut document =
        br#"{"items":[{"keyId":"a"},["b","QQ=="]],"raw": {"x" : "\ud800"} ,"word":"two"}"#.to_vec();
    let outer: Outer<'_> = read(&mut document).unwrap();
    assert_eq!(outer.items.len(), 2);
    assert_eq!(outer.raw.unwrap().as_str(), r#"{"x" : "\ud800"}"#);
    assert_eq!(outer.word, Some(Word::Two));

    for (text, error) in [
        (
            r#"{"items":[["a",null],["a",null],["a",null]]}"#,
            "invalid length: more than 2 elements at line 1 column 42",
        ),
        (
            r#"{"items":[],"word":"x"}"#,
            "unknown variant `x`, expected one of `one`, `two`, `three` at line 1 column 22",
        ),
        (
            r#"{"items":{}}"#,
            "invalid type: map, expected a sequence at line 1 column 9",
        ),
    ] {
        let mut document = text.as_bytes().to_vec();
        assert_eq!(read::<Outer<'_>>(&mut document).unwrap_err(), error);
    }
}

#[test]
fn deferred_values_lose_their_position() {
    let mut document = b"  {\"keyId\":\n1}".to_vec();
    let mut reader = Reader::new(&mut document);
    let deferred = Deferred::from_json(&mut reader).unwrap();
    assert!(!deferred.is_null());
    assert_eq!(
        deferred.decode::<Item<'_>>().unwrap_err().to_string(),
        "invalid type: integer `1`, expected a string"
    );
}

#[test]
fn raw_values_from_constants() {
    assert_eq!(Raw::new(" [1, 2]\n").unwrap().as_str(), "[1, 2]");
    assert_eq!(
        Raw::new("[1,\n2] x").unwrap_err().to_string(),
        "trailing characters at line 2 column 4"
    );
    let mut out = [0; 16];
    let length = to_slice(&Raw::new("{ }").unwrap(), &mut out).unwrap();
    assert_eq!(&out[..length], b"{ }");
}

#[test]
fn nesting_is_bounded() {
    for (levels, result) in [
        (127, Ok(())),
        (
            128,
            Err("recursion limit exceeded at line 1 column 128".to_owned()),
        ),
    ] {
        let text = "[".repeat(levels) + &"]".repeat(levels);
        let theirs = serde_json::from_str::<serde_json::Value>(&text)
            .map(drop)
            .map_err(|error| error.to_string());
        assert_eq!(theirs, result);
        let mut bytes = text.into_bytes();
        assert_eq!(
            validate(&mut bytes).map_err(|error| error.to_string()),
            result
        );
    }
    // Far deeper documents cost nothing either.
    let mut deep = vec![b'['; 1_000_000];
    assert!(validate(&mut deep).is_err());
    // The level that a value is at counts.
    let mut inner = r#"{"items":[],"raw":"#.to_owned() + &"[".repeat(127);
    inner += &"]".repeat(127);
    inner += "}";
    let mut inner = inner.into_bytes();
    assert!(
        read::<Outer<'_>>(&mut inner)
            .unwrap_err()
            .starts_with("recursion limit exceeded")
    );
}

#[test]
fn written_strings_are_escaped_like_the_reference_does() {
    let text: String = (0..=0x7f_u8)
        .map(char::from)
        .chain("é\u{2028}😀".chars())
        .collect();
    let mut out = vec![0; 1024];
    let length = to_slice(text.as_str(), &mut out).unwrap();
    assert_eq!(
        core::str::from_utf8(&out[..length]).unwrap(),
        serde_json::to_string(&text).unwrap()
    );
    let length =
        write_message(&format_args!("a \"b\"\ncaused by: {}\u{1f}", 'é'), &mut out).unwrap();
    assert_eq!(
        core::str::from_utf8(&out[..length]).unwrap(),
        r#"{"message":"a \"b\"\ncaused by: é\u001f"}"#
    );
    for short in 0..length {
        assert_eq!(
            write_message(
                &format_args!("a \"b\"\ncaused by: {}\u{1f}", 'é'),
                &mut out[..short]
            ),
            Err(BufferFull)
        );
    }
}

#[test]
fn written_objects() {
    let mut out = [0; 128];
    let item = Item {
        key_id: "a\\",
        n: Some(Bytes(b"\xfb\xff")),
    };
    let length = to_slice(&item, &mut out).unwrap();
    assert_eq!(&out[..length], br#"{"keyId":"a\\","n":"+/8="}"#);
    let item = Item { n: None, ..item };
    let length = to_slice(&item, &mut out).unwrap();
    assert_eq!(&out[..length], br#"{"keyId":"a\\","n":null}"#);
    let numbers = Numbers {
        small: 255,
        signed: i64::MIN,
        flag: None,
    };
    let length = to_slice(&numbers, &mut out).unwrap();
    assert_eq!(
        &out[..length],
        br#"{"small":255,"signed":-9223372036854775808}"#
    );
    assert_eq!(read(&mut out[..length]), Ok(numbers));
}

/// The same types for the decoder whose texts clients know.
mod theirs {
    use super::*;

    #[derive(Debug, Deserialize)]
    pub struct Item {
        #[serde(rename = "keyId")]
        pub key_id: String,
        pub n: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    pub struct Numbers {
        pub small: u8,
        pub signed: i64,
        pub flag: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    pub struct Outer {
        pub items: Vec<Inner>,
        pub raw: Option<serde::de::IgnoredAny>,
    }

    #[derive(Debug, Deserialize)]
    pub struct Inner {
        pub inner: Item,
    }
}

json_input! {
    #[derive(Debug, PartialEq)]
    struct PlainOuter<'a> {
        items: heapless::Vec<PlainInner<'a>, 64> = "items",
        raw: Option<Ignored> = "raw",
    }

    #[derive(Debug, PartialEq)]
    struct PlainInner<'a> {
        inner: Plain<'a> = "inner",
    }

    #[derive(Debug, PartialEq)]
    struct Plain<'a> {
        key_id: &'a str = "keyId",
        n: Option<&'a str> = "n",
    }
}

/// Type names differ between the two sets of types.
fn same_names(text: &str) -> String {
    text.replace("PlainOuter", "Outer")
        .replace("PlainInner", "Inner")
        .replace("Plain", "Item")
}

/// Documents that are nearly of the types above: valid ones with a few bytes changed, cut, doubled.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    const SEEDS: &[&str] = &[
        r#"{"keyId":"a\u00e9\ud83d\ude00","n":"x\n\/","zz":[1,-2.5e+3,{"a":null,"b":[true,false,{}]}]}"#,
        r#"["a",null]"#,
        "{\"keyId\" : \"a\",\n\t\"n\"\n:\n null , \"x\":{\"\\u0041\":[ ]} }",
        r#"{"small":200,"signed":-9223372036854775808,"flag":null,"more":0}"#,
        r#"[7,-1,true]"#,
        r#"{"items":[{"inner":{"keyId":"k","n":null}},{"inner":["a","b"]},[{"keyId":""}]],"raw":[[],{},"\udfff"]}"#,
        "{\n \"items\": [ [ [ \"a\" , \"é\" ] ] ] ,\n \"raw\" : -0.1 \n}",
    ];
    const BITS: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\n",
        b" ",
        b"0",
        b"-",
        b".",
        b"e",
        b"u",
        b"\\u",
        b"\\ud800",
        b"\\udc00",
        b"null",
        b"nul",
        b"true",
        b"1",
        b"300",
        b"\xff",
        b"\xc3",
        b"\x1f",
        b"\"keyId\":",
        b"\"a\"",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"\\x",
    ];
    let edit = (
        any::<proptest::sample::Index>(),
        0..4_usize,
        proptest::sample::select(BITS),
    );
    (
        proptest::sample::select(SEEDS),
        proptest::collection::vec(edit, 0..4),
        proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
    )
        .prop_map(|(seed, edits, cut)| {
            let mut text = seed.as_bytes().to_vec();
            for (place, removed, bits) in edits {
                let place = place.index(text.len() + 1);
                let end = text.len().min(place + removed);
                text.splice(place..end, bits.iter().copied());
            }
            if let Some(cut) = cut {
                text.truncate(cut.index(text.len() + 1));
            }
            text
        })
}

/// What serde_json says where numbers are floating-point is not compared: it prints them rounded.
fn comparable(text: &Result<String, String>) -> bool {
    !matches!(text, Err(text) if text.contains("floating point") || text.contains("out of range"))
}

fn compare(ours: Result<String, String>, theirs: &Result<String, String>, document: &[u8]) {
    if comparable(theirs) {
        let ours = ours.map_err(|text| same_names(&text));
        assert_eq!(&ours, theirs, "{}", String::from_utf8_lossy(document));
    } else {
        assert!(ours.is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn same_answers_as_serde_json(document in nearly_json()) {
        let mut copy = document.clone();
        compare(
            read::<Plain<'_>>(&mut copy).map(|v| format!("{:?} {:?}", v.key_id, v.n)),
            &serde_json::from_slice::<theirs::Item>(&document)
                .map(|v| format!("{:?} {:?}", v.key_id, v.n.as_deref()))
                .map_err(|error| error.to_string()),
            &document,
        );
        let mut copy = document.clone();
        compare(
            read::<Numbers>(&mut copy).map(|v| format!("{} {} {:?}", v.small, v.signed, v.flag)),
            &serde_json::from_slice::<theirs::Numbers>(&document)
                .map(|v| format!("{} {} {:?}", v.small, v.signed, v.flag))
                .map_err(|error| error.to_string()),
            &document,
        );
        let mut copy = document.clone();
        compare(
            read::<PlainOuter<'_>>(&mut copy).map(|v| {
                let keys = v.items.iter().map(|item| item.inner.key_id);
                format!("{:?} {}", keys.collect::<Vec<_>>(), v.raw.is_some())
            }),
            &serde_json::from_slice::<theirs::Outer>(&document)
                .map(|v| {
                    let keys = v.items.iter().map(|item| &item.inner.key_id);
                    format!("{:?} {}", keys.collect::<Vec<_>>(), v.raw.is_some())
                })
                .map_err(|error| error.to_string()),
            &document,
        );
        let mut copy = document.clone();
        let ours = validate(&mut copy).map_err(|error| error.to_string());
        let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&document)
            .map(drop)
            .map_err(|error| error.to_string());
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(&copy, &document, "validation must not write");
        prop_assert_eq!(check(&document).map_err(|error| error.to_string()), theirs);
    }

    #[test]
    fn any_string_survives(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let mut out = vec![0; text.len() * 6 + bytes.len() * 2 + 64];
        let item = Item { key_id: &text, n: Some(Bytes(&bytes)) };
        let length = to_slice(&item, &mut out).unwrap();
        let theirs: serde_json::Value = serde_json::from_slice(&out[..length]).unwrap();
        prop_assert_eq!(theirs["keyId"].as_str(), Some(text.as_str()));
        prop_assert_eq!(read(&mut out[..length]), Ok(item));
        // The other way round, with all that can be escaped escaped.
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let mut document = format!("\"{escaped}\"").into_bytes();
        prop_assert_eq!(read::<&str>(&mut document), Ok(text.as_str()));
    }

    #[test]
    fn any_bytes_are_answered(mut document in any::<Vec<u8>>()) {
        let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&document).is_ok();
        prop_assert_eq!(validate(&mut document).is_ok(), theirs);
        let _ = read::<Item<'_>>(&mut document);
    }
}

proptest! {
    #[test]
    fn put_strings_equal_written_ones(text in any::<String>()) {
        let mut buffer = vec![0; text.len() * 6 + 2];
        let mut output = Output::new(&mut buffer);
        put_string(&text, &mut output);
        let put = output.finish_str().unwrap();
        prop_assert_eq!(put, serde_json::to_string(&text).unwrap());
        let mut written = vec![0; put.len()];
        let length = to_slice(text.as_str(), &mut written).unwrap();
        prop_assert_eq!(put.as_bytes(), &written[..length]);
    }

    #[test]
    fn base64_members_equal_written_ones(bytes in any::<Vec<u8>>(), missing in 0..40_usize) {
        #[derive(serde::Serialize)]
        struct Object<'a> {
            signature: Bytes<'a>,
        }

        let mut written = vec![0; bytes.len() * 2 + 64];
        let length = to_slice(&Object { signature: Bytes(&bytes) }, &mut written).unwrap();
        let mut put = vec![0; length];
        prop_assert_eq!(write_base64_member("signature", &bytes, &mut put), Ok(length));
        prop_assert_eq!(&put, &written[..length]);
        if missing > 0 {
            let short = length.saturating_sub(missing);
            prop_assert_eq!(write_base64_member("signature", &bytes, &mut put[..short]), Err(BufferFull));
        }
    }
}
