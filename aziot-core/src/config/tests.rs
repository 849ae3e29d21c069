//! Tests of merging, decoding and writing.

mod est;
mod identity;
mod uris;

use alloc::format;
use alloc::string::{String, ToString as _};

use proptest::prelude::*;

use super::*;

fn merged(documents: &[(&str, &str)]) -> Merged {
    let mut merged = Merged::new();
    for (name, text) in documents {
        merged.add(name, text).unwrap();
    }
    merged
}

fn identityd(text: &str) -> Result<Loaded<identityd::Settings>, Invalid> {
    identityd::Settings::read(&merged(&[("i.toml", text)]), &Places::default())
}

fn keyd(text: &str) -> Result<Loaded<keyd::Settings>, Invalid> {
    keyd::Settings::read(&merged(&[("k.toml", text)]), &Places::default())
}

/// The only error of `result`.
#[track_caller]
fn error<T: core::fmt::Debug>(result: Result<T, Invalid>) -> String {
    let invalid = result.unwrap_err();
    assert_eq!(invalid.problems.len(), 1, "{invalid}");
    invalid.to_string()
}

#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` is not in `{text}`");
}

const MANUAL: &str = "hostname = \"h\"\nhomedir = \"/d\"\n[provisioning]\nsource = \"manual\"\niothub_hostname = \"hub\"\n\
                      device_id = \"d\"\nauthentication = { method = \"sas\", device_id_pk = \"device-id\" }\n";
const NONE: &str = "hostname = \"h\"\nhomedir = \"/d\"\nprovisioning = { source = \"none\" }\n";

/// A merged tree as text, to compare with.
fn show(merged: &Merged) -> String {
    fn show_value(value: &Value, out: &mut String) {
        use super::tree::Kind;
        match &value.kind {
            Kind::Text(text) => out.push_str(&format!("{:?}", text.as_str())),
            Kind::Integer(n) => out.push_str(&n.to_string()),
            Kind::Boolean(b) => out.push_str(&b.to_string()),
            Kind::Other(name) => out.push_str(name),
            Kind::Array(items) => {
                out.push('[');
                for item in items {
                    show_value(item, out);
                    out.push(',');
                }
                out.push(']');
            }
            Kind::Table(inner) => table(inner, out),
        }
    }
    fn table(table: &super::tree::Table, out: &mut String) {
        out.push('{');
        for (key, entry) in &table.0 {
            out.push_str(&format!("{key}="));
            show_value(&entry.value, out);
            out.push(' ');
        }
        out.push('}');
    }
    let mut out = String::new();
    table(&merged.root, &mut out);
    out
}

#[test]
fn cl_01_merge_vector() {
    let merged = merged(&[
        (
            "config.toml",
            "a = 1\narr = [1,2]\nt = { x = 1, y = [1] }\nmix = [1]\nmix2 = { q = 1 }\nsc = \"s\"\n\
             [[principal]]\nuid = 1\nkeys = [\"a\"]\n",
        ),
        (".hid.toml", "b = \"hidden\""),
        (
            "00-a.toml",
            "a = 2\narr = [2,3]\nt = { x = 2, z = 3, y = [1,2] }\nmix = \"now a string\"\nmix2 = [1]\n\
             sc = { now = \"table\" }\n[[principal]]\nuid = 1\nkeys = [\"b\"]\n",
        ),
        ("10-x.toml", "a = 10"),
        ("9-x.toml", "a = 9"),
        ("Z.toml", "Z = 1\na = \"upper\""),
    ]);
    assert_eq!(
        show(&merged),
        "{Z=1 a=\"upper\" arr=[1,2,2,3,] b=\"hidden\" mix=\"now a string\" mix2=[1,] \
         principal=[{keys=[\"a\",] uid=1 },{keys=[\"b\",] uid=1 },] sc={now=\"table\" } t={x=2 y=[1,1,2,] z=3 } }"
    );
    // The place is that of the document that won.
    let mut places = alloc::vec::Vec::new();
    merged.for_each_key(&mut |path, at| places.push(format!("{path} {at}")));
    assert!(places.contains(&"a Z.toml:2:1".into()), "{places:?}");
    assert!(places.contains(&"t.x 00-a.toml:3:7".into()), "{places:?}");
}

#[test]
fn cl_05_arrays_append_at_any_depth_and_other_types_replace() {
    let deep = merged(&[
        ("1", "a.b.c = [1]"),
        ("2", "[a.b]\nc = [2]\n"),
        ("3", "a = { b = { c = [[3]] } }"),
    ]);
    assert_eq!(show(&deep), "{a={b={c=[1,2,[3,],] } } }");
    for (first, second, result) in [
        ("a = [1]", "a = 1", "{a=1 }"),
        ("a = 1", "a = [1]", "{a=[1,] }"),
        ("a = { b = 1 }", "a = 1", "{a=1 }"),
        ("a = 1", "a = { b = 1 }", "{a={b=1 } }"),
        ("a = [1]", "a = { b = 1 }", "{a={b=1 } }"),
        ("a = { b = 1 }", "a = [1]", "{a=[1,] }"),
    ] {
        assert_eq!(show(&merged(&[("1", first), ("2", second)])), result);
    }
}

#[test]
fn arrays_declared_as_scalars_are_replaced() {
    let mut merged = Merged::with_scalars(&["t.s"]);
    merged.add("1", "t.s = [1]\nt.l = [1]").unwrap();
    merged.add("2", "t.s = [2]\nt.l = [2]").unwrap();
    assert_eq!(show(&merged), "{t={l=[1,2,] s=[2,] } }");
}

#[test]
fn places_count_characters_and_skip_the_byte_order_mark() {
    let merged = merged(&[(
        "f",
        "\u{feff}a = 1\r\n\"é\" = 1\r\nb = [\r\n  2,\r\n]\r\n'日本'.x = 1 \r\n",
    )]);
    let mut places = alloc::vec::Vec::new();
    merged.for_each_key(&mut |path, at| places.push(format!("{path} {at}")));
    assert_eq!(places, ["a f:1:1", "b f:3:1", "é f:2:1", "日本.x f:6:6"]);
}

#[test]
fn broken_documents_are_refused_with_their_place_and_without_their_text() {
    for (text, place, part) in [
        ("a = 1\nb = \"secret", "f:2:", "invalid TOML"),
        ("a = 1\n  a = \"secret\"", "f:2:3: ", "duplicate key"),
        ("a = secret", "f:1:5: ", "must be quoted"),
        ("[secret\n", "f:1:", "invalid TOML"),
        (
            "a = 1\nb = 99999999999999999999",
            "f:2:5: ",
            "does not fit in 64 bits",
        ),
    ] {
        let problem = Merged::new().add("f", text).unwrap_err().to_string();
        assert!(problem.starts_with(place), "{problem}");
        assert_has(&problem, part);
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[test]
fn limits_are_refused_by_name() {
    let mut merged = Merged::new();
    let full = format!("#{}", "x".repeat(DOCUMENT_BYTES - 1));
    let problem = merged
        .add("f", &format!("{full}x"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        problem,
        "f:1:1: document of 65537 bytes exceeds the limit of 65536 bytes: split it into several files"
    );
    for i in 0..4 {
        merged.add(&i.to_string(), &full).unwrap();
    }
    assert_has(
        &merged.add("f", "a = 1").unwrap_err().to_string(),
        "exceed the limit of 262144 bytes",
    );

    // Counted over all documents.
    let half = format!("a = [{}]", "1,".repeat(VALUES / 2 - 1));
    let mut merged = Merged::new();
    merged.add("1", &half).unwrap();
    merged.add("2", &half).unwrap();
    let problem = merged.add("f", "b = 1").unwrap_err().to_string();
    assert!(
        problem.starts_with("f:1:5: all documents together have more than 16384 values"),
        "{problem}"
    );

    let mut merged = Merged::new();
    for i in 0..DOCUMENTS {
        merged.add(&i.to_string(), "").unwrap();
    }
    assert_has(
        &merged.add("f", "").unwrap_err().to_string(),
        "more than 512 documents",
    );
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("{}a = 1", "a.".repeat(30_000)),
        format!("a = {}", "[".repeat(30_000)),
        format!("[{}a]", "a.".repeat(30_000)),
    ] {
        assert_has(
            &Merged::new().add("f", &text).unwrap_err().to_string(),
            "recurs",
        );
    }
}

#[test]
fn ks_30_keyd_defaults_and_all_keys() {
    let empty = keyd::Settings::read(&Merged::new(), &Places::under("/root")).unwrap();
    assert_eq!(empty.settings.max_requests, 10);
    assert_eq!(
        empty.settings.endpoint,
        Endpoint::Unix(b"/root/run/aziot/keyd.sock".to_vec())
    );
    assert!(empty.warnings.is_empty());

    let loaded = keyd(
        "max_requests = 20\n[aziot_keys]\nhomedir_path = \"/h\"\n[preloaded_keys]\nk = \"pkcs11:slot-id=0?pin-value=1234\"\n\
         [endpoints]\naziot_keyd = \"unix:///run/a%20b/../k.sock\"\n[[principal]]\nuid = 4294967295\nkeys = [\"a*\"]\nextra = 1\n",
    )
    .unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.max_requests, 20);
    assert_eq!(settings.aziot_keys["homedir_path"].as_str(), "/h");
    assert_eq!(
        settings.preloaded_keys["k"].as_str(),
        "pkcs11:slot-id=0?pin-value=1234"
    );
    assert_eq!(settings.endpoint, Endpoint::Unix(b"/run/k.sock".to_vec()));
    assert_eq!(
        settings.principals,
        [keyd::Principal {
            uid: u32::MAX,
            keys: alloc::vec!["a*".into()]
        }]
    );
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(
        loaded.warnings[0].to_string(),
        "k.toml:11:1: unknown key `principal.extra`: it is ignored"
    );
    assert!(
        !format!("{settings:?}").contains("1234"),
        "a PIN must not show"
    );
}

#[test]
fn ks_30_wrong_types_are_errors_with_place_and_remedy() {
    for (text, expected) in [
        (
            "max_requests = -1",
            "k.toml:1:16: `max_requests`: invalid value: integer `-1`, expected u64: write a whole number",
        ),
        (
            "max_requests = \"x\"",
            "k.toml:1:16: `max_requests`: invalid type: string, expected u64: write",
        ),
        (
            "aziot_keys = 5",
            "k.toml:1:14: `aziot_keys`: invalid type: integer `5`, expected a table: ",
        ),
        (
            "[aziot_keys]\nslot = 5",
            "k.toml:2:8: `aziot_keys.slot`: invalid type: integer `5`, expected a string: write the value in quotes",
        ),
        (
            "[preloaded_keys]\na = true",
            "k.toml:2:5: `preloaded_keys.a`: invalid type: boolean `true`, expected a string: ",
        ),
        (
            "[[principal]]\nuid = 1",
            "k.toml:1:1: missing field `keys` in [principal]: add `keys = ",
        ),
        (
            "[[principal]]\nkeys = []\nuid = 4294967296",
            "k.toml:3:7: `principal.uid`: invalid value: integer `4294967296`, expected u32: ",
        ),
        (
            "[[principal]]\nuid = 1\nkeys = \"a\"",
            "k.toml:3:8: `principal.keys`: invalid type: string, expected a sequence: ",
        ),
        (
            "[principal]\nuid = 1",
            "k.toml:1:1: `principal`: invalid type: map, expected a sequence: write one [[principal]] for each",
        ),
        (
            "[endpoints]\naziot_keyd = \"unix://run/x\"",
            "k.toml:2:14: `endpoints.aziot_keyd`: malformed URI: unix URI could not be converted to a file path: ",
        ),
        (
            "[endpoints]\naziot_keyd = \"foo\"",
            "k.toml:2:14: `endpoints.aziot_keyd`: malformed URI: relative URL without a base: ",
        ),
    ] {
        let error = error(keyd(text));
        assert!(
            error.starts_with(expected),
            "{error}\n does not start with\n{expected}"
        );
        let remedy = error.rsplit(": ").next().unwrap();
        assert!(remedy.len() > 5, "{error}");
    }
}

#[test]
fn all_errors_are_reported_in_document_order() {
    let invalid =
        keyd("max_requests = true\n[aziot_keys]\na = 1\nb = 2\n[[principal]]\nuid = -1\n")
            .unwrap_err();
    let lines: alloc::vec::Vec<_> = invalid
        .problems
        .iter()
        .map(|p| p.location.as_ref().unwrap().line)
        .collect();
    assert_eq!(lines, [1, 3, 4, 5, 6]);
}

#[test]
fn long_reports_say_how_much_is_left_out() {
    let text: String = (0..100).map(|i| format!("unknown{i} = 1\n")).collect();
    let warnings = keyd(&text).unwrap().warnings;
    assert_eq!(warnings.len(), PROBLEMS + 1);
    assert_eq!(warnings[PROBLEMS].to_string(), "… and 36 more");
}

#[test]
fn unknown_keys_suggest_what_was_meant() {
    for (text, expected) in [
        (
            "max_request = 1",
            "unknown key `max_request`: did you mean `max_requests`?",
        ),
        (
            "max-requests = 1",
            "unknown key `max-requests`: did you mean `max_requests`?",
        ),
        (
            "[aziot_key]\na = \"b\"",
            "unknown key `aziot_key`: did you mean `aziot_keys`?",
        ),
        (
            "[[principals]]\nuid = 1",
            "unknown key `principals`: did you mean `principal`?",
        ),
        (
            "something_else = 1",
            "unknown key `something_else`: it is ignored",
        ),
        // The right key is there as well, so this is no misspelling of it.
        (
            "max_requests = 1\nmax_request = 1",
            "unknown key `max_request`: it is ignored",
        ),
    ] {
        let warnings = keyd(text).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_has(&warnings[0].to_string(), expected);
    }
}

#[test]
fn strings_are_written_in_the_reference_forms() {
    for (value, expected) in [
        ("plain", "\"plain\""),
        ("a\"b", "'a\"b'"),
        ("a\\b", "'a\\b'"),
        ("a\\b'c", "'''a\\b'c'''"),
        ("a\"b'c", "\"\"\"a\"b'c\"\"\""),
        ("a\nb", "\"\"\"\na\nb\"\"\""),
        ("a\n\\b", "'''\na\n\\b'''"),
        ("a\tb", "\"a\\tb\""),
        ("a\rb", "\"a\\rb\""),
        ("a\u{1}\u{7f}b", "\"a\\u0001\\u007Fb\""),
        ("é", "\"é\""),
        ("", "\"\""),
    ] {
        let mut writer = Writer::new();
        writer.string("k", value);
        assert_eq!(
            writer.finish().as_str(),
            format!("k = {expected}\n"),
            "{value:?}"
        );
    }
    for (key, expected) in [
        ("a-b_1", "a-b_1"),
        ("a.b", "\"a.b\""),
        ("", "\"\""),
        ("é", "\"é\""),
    ] {
        let mut writer = Writer::new();
        writer.plain(key, 1);
        assert_eq!(writer.finish().as_str(), format!("{expected} = 1\n"));
    }
}

fn principal_strategy() -> impl Strategy<Value = keyd::Principal> {
    (any::<u32>(), proptest::collection::vec(".*", 0..3))
        .prop_map(|(uid, keys)| keyd::Principal { uid, keys })
}

proptest! {
    /// Whatever is written is read back the same.
    #[test]
    fn keyd_settings_round_trip(
        max_requests in 0..=i64::MAX as u64,
        aziot_keys in proptest::collection::btree_map(".*", ".*", 0..4),
        preloaded_keys in proptest::collection::btree_map(".*", ".*", 0..4),
        principals in proptest::collection::vec(principal_strategy(), 0..4),
    ) {
        let secrets = |map: alloc::collections::BTreeMap<String, String>| map.into_iter().map(|(k, v)| (k, Secret::new(v))).collect();
        let settings = keyd::Settings {
            max_requests,
            aziot_keys: secrets(aziot_keys),
            preloaded_keys: secrets(preloaded_keys),
            endpoint: Endpoint::default_of("/run/aziot", "keyd"),
            principals,
        };
        let text = settings.to_toml();
        prop_assert_eq!(keyd(&text).unwrap().settings, settings);
    }

    /// No text makes the parser or a decoder panic.
    #[test]
    fn arbitrary_text_never_panics(text in "([a-z_.\"'\\[\\]={} ,#\n0-9\\\\é-]|provisioning|source|principal|uid|keys){0,80}") {
        let mut merged = Merged::new();
        if merged.add("f", &text).is_ok() {
            let _ = keyd::Settings::read(&merged, &Places::default());
            let _ = identityd::Settings::read(&merged, &Places::default());
        }
    }

    #[test]
    fn policies_round_trip(n in 1i64..10_000, unit in "%|min|day") {
        if let Ok(policy) = format!("{n}{unit}").parse::<Policy>() {
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
}
