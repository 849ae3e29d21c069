//! Tests of merging, decoding and writing.

use alloc::format;
use alloc::string::String;

use super::identityd::{Attestation, IdType, LocalIdAttributes, Source, Subject};
use super::url::Url;
use super::*;
use alloc::string::ToString as _;
use proptest::prelude::*;

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
fn http_endpoints_warn_and_the_default_is_used() {
    let loaded =
        keyd("[endpoints]\naziot_keyd = \"http://127.0.0.1:8888\"\naziot_certd = \"unix:///c\"")
            .unwrap();
    assert_eq!(
        loaded.settings.endpoint,
        Endpoint::Unix(b"/run/aziot/keyd.sock".to_vec())
    );
    assert_eq!(loaded.warnings.len(), 1);
    assert_has(&loaded.warnings[0].to_string(), "k.toml:2:1: ");
}

#[test]
fn hc_06_connector_uris() {
    let unix = |path: &str| Ok(Endpoint::Unix(path.as_bytes().to_vec()));
    let no_path = "unix URI could not be converted to a file path";
    for (uri, expected) in [
        ("unix:///run/aziot/keyd.sock", unix("/run/aziot/keyd.sock")),
        ("unix:/run/x", unix("/run/x")),
        ("unix://localhost/run/x", unix("/run/x")),
        ("UNIX:///run/x", unix("/run/x")),
        ("unix:///run/a%20b", unix("/run/a b")),
        ("unix:///run/a?b#c", unix("/run/a")),
        ("unix:///a/../b", unix("/b")),
        ("unix://run/x.sock", Err(no_path)),
        ("unix://", Err(no_path)),
        ("http://127.0.0.1:8888", unix("/run/aziot/keyd.sock")),
        ("fd://3", Ok(Endpoint::Fd(3))),
        ("fd://NAME", Ok(Endpoint::FdName("NAME".into()))),
        ("fd:3", Err("fd URI does not have a host")),
        ("fd:///3", Err("fd URI does not have a host")),
        ("https://x", Err("unrecognized scheme")),
        ("ftp://x", Err("unrecognized scheme")),
        ("", Err("relative URL without a base")),
        ("foo", Err("relative URL without a base")),
    ] {
        let read = keyd(&format!("[endpoints]\naziot_keyd = \"{uri}\"\n"));
        match expected {
            Ok(endpoint) => assert_eq!(read.unwrap().settings.endpoint, endpoint, "{uri}"),
            Err(reason) => assert_has(&error(read), &format!("malformed URI: {reason}")),
        }
    }
}

#[test]
fn urls_are_normalised() {
    for (text, expected) in [
        (
            "https://Global.azure-devices-provisioning.net",
            "https://global.azure-devices-provisioning.net/",
        ),
        ("HTTPS://h:443/a/./b/../c", "https://h/a/c"),
        ("http://h:80?q", "http://h/?q"),
        ("https://h:8443", "https://h:8443/"),
        ("https:h/x", "https://h/x"),
        ("https:\\\\h\\x", "https://h/x"),
        ("https://u%41:p w@h/", "https://u%41:p%20w@h/"),
        (
            "https://h/a b/é?x y#z z",
            "https://h/a%20b/%C3%A9?x%20y#z%20z",
        ),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("https://[2001:DB8:0:0:0:0:0:1]", "https://[2001:db8::1]/"),
        ("https://127.0.0.1", "https://127.0.0.1/"),
        ("https://h/%2e%2E/x/..", "https://h/"),
        (
            "https://est.example:443/.well-known/est",
            "https://est.example/.well-known/est",
        ),
        (
            "file:///etc/aziot/pay load.json",
            "file:///etc/aziot/pay%20load.json",
        ),
        ("file://localhost/a", "file:///a"),
        ("file:a", "file:///a"),
        ("file:/a", "file:///a"),
        ("file://Host/a", "file://host/a"),
        (" \thttps://h\n", "https://h/"),
        ("foo://Bar/a b", "foo://Bar/a%20b"),
        ("foo:opaque text", "foo:opaque text"),
        ("foo:/.//x", "foo:/.//x"),
        ("https://h/a\nb", "https://h/ab"),
    ] {
        assert_eq!(
            text.parse::<Url>().map(|url| url.to_string()),
            Ok(expected.into()),
            "{text}"
        );
    }
    use super::url::UrlError::*;
    for (text, error) in [
        ("", RelativeWithoutBase),
        ("example.com", RelativeWithoutBase),
        ("/a", RelativeWithoutBase),
        ("1a:b", RelativeWithoutBase),
        ("https://", EmptyHost),
        ("https:///", EmptyHost),
        ("https://a b/", InvalidCharacter),
        ("https://a<b/", InvalidCharacter),
        ("https://bücher.example/", NonAsciiHost),
        ("https://1.2.3/", InvalidIpv4),
        ("https://[::g]/", InvalidIpv6),
        ("https://h:99999/", InvalidPort),
        ("https://h:a/", InvalidPort),
    ] {
        assert_eq!(
            text.parse::<Url>().map(|url| url.to_string()),
            Err(error),
            "{text}"
        );
    }
}

#[test]
fn urls_are_shown_without_passwords() {
    for (text, shown) in [
        ("http://u:p@h/x@y", "http://h/x@y"),
        ("http://h/x@y", "http://h/x@y"),
        ("foo:a@b", "foo:a@b"),
    ] {
        let url: Url = text.parse().unwrap();
        assert_eq!(url.without_user_info(), shown);
        assert!(!format!("{url:?}").contains("u:p"));
    }
}

#[test]
fn is_01_required_keys() {
    assert_has(
        &error(identityd(&MANUAL.replace("hostname = \"h\"", ""))),
        "i.toml:1:1: missing field `hostname`: add",
    );
    assert_has(
        &error(identityd(&MANUAL.replace("homedir", "x"))),
        "missing field `homedir`: add",
    );
    assert_has(
        &error(identityd("hostname = \"h\"\nhomedir = \"/d\"\n")),
        "missing field `provisioning`: add",
    );
    assert_has(
        &error(identityd(&NONE.replace("source", "sauce"))),
        "i.toml:3:16: missing field `source` in [provisioning]: add",
    );
    assert_has(
        &error(identityd(
            "hostname = \"h\"\nhomedir = \"/d\"\n[provisioning]\nsource = \"dps\"\nscope_id = \"s\"\n\
             attestation = { method = \"tpm\", registration_id = \"r\" }\n",
        )),
        "i.toml:3:1: missing field `global_endpoint` in [provisioning]: add",
    );
    let nothing = identityd::Settings::read(&Merged::new(), &Places::default()).unwrap_err();
    assert_has(&nothing.to_string(), "missing field `hostname`: add");
}

#[test]
fn is_02_numbers_and_defaults() {
    let settings = identityd(MANUAL).unwrap().settings;
    assert_eq!(
        (
            settings.cloud_timeout_sec,
            settings.cloud_retries,
            settings.max_requests,
            settings.prefer_module_identity_cache
        ),
        (70, 1, 10, false)
    );
    let low = error(identityd(&format!("cloud_timeout_sec = 69\n{MANUAL}")));
    assert!(
        low.starts_with("i.toml:1:21: cloud_timeout_sec must be at least 70 seconds: "),
        "{low}"
    );
    assert_eq!(
        identityd(&format!("cloud_timeout_sec = 70\n{MANUAL}"))
            .unwrap()
            .settings
            .cloud_timeout_sec,
        70
    );
    assert_eq!(
        identityd(&format!("cloud_retries = 4294967295\n{MANUAL}"))
            .unwrap()
            .settings
            .cloud_retries,
        u32::MAX
    );
    error(identityd(&format!("cloud_retries = 4294967296\n{MANUAL}")));
}

#[test]
fn is_03_idtype_is_a_list() {
    let with = |idtype: &str| {
        format!(
            "{MANUAL}[[principal]]\nuid = 1\nname = \"m\"\n{idtype}\n[localid]\ndomain = \"d\"\n"
        )
    };
    let bare = error(identityd(&with("idtype = \"device\"")));
    assert_has(
        &bare,
        "invalid type: string \"device\", expected a sequence: write idtype = [\"device\"]",
    );
    let all = identityd(&with("idtype = [\"device\",\"module\",\"local\"]"))
        .unwrap()
        .settings;
    assert_eq!(
        all.principals[0].id_types.as_deref(),
        Some(&[IdType::Device, IdType::Module, IdType::Local][..])
    );
    let empty = identityd(&with("idtype = []")).unwrap().settings;
    assert_eq!(empty.principals[0].id_types.as_deref(), Some(&[][..]));
    let none = identityd(&with("")).unwrap().settings;
    assert_eq!(none.principals[0].id_types, None);
    assert_has(
        &error(identityd(&with("idtype = [\"modul\"]"))),
        "unknown variant `modul`, expected one of `device`, `module`, `local`: did you mean \"module\"?",
    );
}

#[test]
fn is_04_source() {
    assert_has(
        &error(identityd(&NONE.replace("none", "DPS"))),
        "unknown variant `DPS`, expected one of `manual`, `dps`, `none`: did you mean \"dps\"?",
    );
    let pasted = error(identityd(
        &NONE.replace("none", "HostName=h;SharedAccessKey=secret"),
    ));
    assert_has(&pasted, "unknown variant `…`");
}

#[test]
fn is_05_rules_between_principals() {
    let principal = |more: &str| format!("[[principal]]\nuid = 1\nname = \"m\"\n{more}\n");
    for (text, line, message) in [
        (
            format!(
                "{MANUAL}{}[[principal]]\nuid = 2\nname = \"m\"\n",
                principal("")
            ),
            12,
            "duplicate module name: m",
        ),
        (
            format!("{MANUAL}{}", principal("idtype = [\"local\"]")),
            8,
            "invalid config for m: local id type requires localid config",
        ),
        (
            format!(
                "{MANUAL}{}",
                principal("idtype = [\"module\"]\nlocalid = { type = \"x509\" }")
            ),
            8,
            "invalid config for m: local identity options specified for non-local identity",
        ),
        (
            format!("{NONE}{}", principal("idtype = [\"module\"]")),
            4,
            "invalid config for m: module or device identity requires provisioning with IoT Hub",
        ),
    ] {
        let error = error(identityd(&text));
        assert!(
            error.starts_with(&format!("i.toml:{line}:1: {message}: ")),
            "{error}"
        );
    }
    // Without idtype the last three do not apply.
    identityd(&format!(
        "{NONE}{}",
        principal("localid = { type = \"x509\" }")
    ))
    .unwrap();
}

#[test]
fn is_06_principals_of_several_files_add_up() {
    let settings = identityd::Settings::read(
        &merged(&[
            ("main", MANUAL),
            (
                "a",
                "hostname = \"other\"\n[[principal]]\nuid = 1\nname = \"a\"\n",
            ),
            (
                "b",
                "[[principal]]\nuid = 2\nname = \"b\"\nidtype = [\"module\"]\n",
            ),
        ]),
        &Places::default(),
    )
    .unwrap()
    .settings;
    assert_eq!(settings.hostname, "other");
    let names: alloc::vec::Vec<_> = settings
        .principals
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn is_07_unknown_keys_are_ignored_and_endpoints_are_read() {
    let loaded = identityd(&format!(
        "always_reprovision_on_startup = false\ndynamic_reprovisioning = true\n{MANUAL}[endpoints]\naziot_keyd = \"unix:///k\"\n"
    ))
    .unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert_eq!(
        loaded.settings.endpoints.keyd,
        Endpoint::Unix(b"/k".to_vec())
    );
    assert_eq!(
        loaded.settings.endpoints.certd,
        Endpoint::Unix(b"/run/aziot/certd.sock".to_vec())
    );
}

fn x509(subject: &str) -> String {
    format!(
        "{}[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://DPS\"\nscope_id = \"s\"\n[provisioning.attestation]\n\
         method = \"x509\"\nidentity_cert = \"c\"\nidentity_pk = \"k\"\n{subject}\n",
        "hostname = \"h\"\nhomedir = \"/d\"\n"
    )
}

#[test]
fn is_08_subjects() {
    let read = |subject: &str| {
        identityd(&x509(&format!("registration_id = {subject}"))).map(|loaded| {
            match loaded.settings.provisioning.source {
                Source::Dps {
                    attestation:
                        Attestation::X509 {
                            registration_id, ..
                        },
                    ..
                } => registration_id.unwrap(),
                other => unreachable!("{other:?}"),
            }
        })
    };
    assert_eq!(read("\"r\"").unwrap(), Subject::CommonName("r".into()));
    let fields = [("L".into(), "AQ".into()), ("ST".into(), "x".into())].into();
    assert_eq!(
        read("{ cn = \"r\", l = \"AQ\", St = \"x\" }").unwrap(),
        Subject::Name {
            common_name: "r".into(),
            fields
        }
    );
    assert_has(
        &error(read("{ L = \"x\" }")),
        "missing field `CN` in [provisioning.attestation.registration_id]",
    );
    assert_has(
        &error(read("{ CN = 5 }")),
        "`provisioning.attestation.registration_id.CN`: invalid type: integer `5`",
    );
    assert_has(
        &error(read("{ CN = \"\" }")),
        "`provisioning.attestation.registration_id.CN` is empty",
    );
    assert_has(
        &error(read("5")),
        "invalid type: integer `5`, expected a string or a table with `CN`",
    );
}

#[test]
fn is_09_renewal_policies() {
    let read = |renew: &str| identityd(&x509(&format!("identity_auto_renew = {renew}")));
    read("{ rotate_key = true, threshold = \"80%\", retry = \"4%\" }").unwrap();
    assert_has(
        &error(read("{ threshold = \"80%\", retry = \"4%\" }")),
        "missing field `rotate_key` in [provisioning.attestation.identity_auto_renew]: add `rotate_key = true`",
    );
    assert_has(
        &error(read(
            "{ rotate_key = true, threshold = \"100%\", retry = \"4%\" }",
        )),
        "`provisioning.attestation.identity_auto_renew.threshold`: lifetime percentage must be less than 100: ",
    );
}

#[test]
fn sc_09_policy_table() {
    for (text, expected) in [
        ("80%", "80%"),
        ("+80%", "80%"),
        ("007%", "7%"),
        ("+5%", "5%"),
        ("90min", "90min"),
        ("10day", "10day"),
        ("1440min", "1day"),
        ("1441min", "1441min"),
        ("36min", "36min"),
        ("2day", "2day"),
        ("99%", "99%"),
    ] {
        assert_eq!(
            text.parse::<Policy>().map(|p| p.to_string()),
            Ok(expected.into()),
            "{text}"
        );
    }
    use PolicyError::*;
    for (text, error) in [
        ("", Empty),
        ("day", Number),
        ("%", Number),
        ("min", Number),
        ("80 %", Number),
        (" 80%", Number),
        ("80.5%", Number),
        ("1.5%", Number),
        ("5 %", Number),
        ("5MIN", Number),
        ("1week", Number),
        ("10days", Number),
        ("1mins", Number),
        ("1year", Number),
        ("5", Number),
        ("1h", Unit),
        ("1440", Unit),
        ("1Day", Unit),
        ("n", Unit),
        ("ay", Unit),
        ("ny", Unit),
        ("5y", Unit),
        ("é", Number),
        ("0%", NotPositive),
        ("0min", NotPositive),
        ("-5%", NotPositive),
        ("-1day", NotPositive),
        ("100%", Percentage),
        ("101%", Percentage),
        ("153722867280912931min", TooLong),
        ("106751991167301day", TooLong),
    ] {
        assert_eq!(text.parse::<Policy>(), Err(error), "{text}");
    }
    assert_eq!(
        "106751991167300day"
            .parse::<Policy>()
            .map(|p| p.to_string()),
        Ok("106751991167300day".into())
    );
}

#[test]
fn nested_dps_is_refused_at_load() {
    let text = x509("").replace(
        "source = \"dps\"",
        "source = \"dps\"\nlocal_gateway_hostname = \"parent\"",
    );
    assert_has(
        &error(identityd(&text)),
        "i.toml:5:26: DPS provisioning is not supported in nested mode: ",
    );
}

#[test]
fn suspicious_settings_warn() {
    let two = format!(
        "{MANUAL}[[principal]]\nuid = 7\nname = \"p\"\n[[principal]]\nuid = 7\nname = \"q\"\n"
    );
    let warnings = identityd(&two).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_has(
        &warnings[0].to_string(),
        "i.toml:11:1: uid 7 of principal q is also that of principal p",
    );

    let payload = x509("").replace(
        "[provisioning.att",
        "payload = { uri = \"https://x/\" }\n[provisioning.att",
    );
    let warnings = identityd(&payload).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_has(
        &warnings[0].to_string(),
        "`provisioning.payload.uri` is no file: URI",
    );
}

/// The sample of `identity-service` 18.6.
const PREV_STATE: &str = r#"hostname = "myhost"
homedir = "/var/lib/aziot/identityd"
prefer_module_identity_cache = false
cloud_timeout_sec = 100
cloud_retries = 3

[provisioning]
source = "dps"
global_endpoint = "https://localhost:8443/"
scope_id = "0ne000ABCDE"

[provisioning.attestation]
method = "symmetric_key"
registration_id = "my-dev"
symmetric_key = "device-id-symkey"

[provisioning.payload]
uri = "file:///etc/aziot/payload.json"

[[principal]]
uid = 7
name = "p"
idtype = ["local"]

[principal.localid]
type = "x509"
attributes = "server"

[[principal]]
uid = 7
name = "p2"
idtype = ["module"]

[[principal]]
uid = 8
name = "q"

[localid]
domain = "d"
"#;

#[test]
fn prev_state_is_written_as_the_sample() {
    let configured = PREV_STATE.replace("localhost:8443/", "localhost:8443");
    let settings = identityd(&configured).unwrap().settings;
    assert_eq!(settings.to_toml().as_str(), PREV_STATE);
    assert_eq!(
        settings.principals[0].localid,
        Some(LocalIdAttributes::Server)
    );
    assert_eq!(identityd(PREV_STATE).unwrap().settings, settings);
}

#[test]
fn prev_state_of_a_certificate_enrolment_keeps_subjects() {
    let text = x509(
        "registration_id = { o = \"Org\", cn = \"r\" }\nidentity_auto_renew = { rotate_key = true, threshold = \"1440min\", retry = \"90min\" }",
    );
    let settings = identityd(&text).unwrap().settings;
    let expected = r#"hostname = "h"
homedir = "/d"
prefer_module_identity_cache = false

[provisioning]
source = "dps"
global_endpoint = "https://dps/"
scope_id = "s"

[provisioning.attestation]
method = "x509"
identity_cert = "c"
identity_pk = "k"

[provisioning.attestation.registration_id]
CN = "r"
O = "Org"

[provisioning.attestation.identity_auto_renew]
rotate_key = true
threshold = "1day"
retry = "90min"
"#;
    assert_eq!(settings.to_toml().as_str(), expected);
}

#[test]
fn device_info_is_read() {
    let text = "hub_name = \"example.azure-devices.net\"\nlocal_gateway_hostname = \"gw\"\ndevice_id = \"my-device\"\n";
    let info = device_info("device_info", text).unwrap().unwrap();
    assert_eq!(
        (
            info.hub_name.as_str(),
            info.local_gateway_hostname.as_str(),
            info.device_id.as_str()
        ),
        ("example.azure-devices.net", "gw", "my-device")
    );
    assert_eq!(device_info("device_info", "unprovisioned"), Ok(None));
    assert_has(
        &device_info("/d/device_info", "hub_name = \"x\"")
            .unwrap_err()
            .to_string(),
        "/d/device_info:1:1: missing field `device_id`",
    );
    device_info("device_info", "").unwrap_err();
}

#[test]
fn changed_settings_name_what_needs_a_restart() {
    let old = keyd("").unwrap().settings;
    let new = keyd("max_requests = 1\naziot_keys.a = \"b\"\n[[principal]]\nuid = 1\nkeys = []")
        .unwrap()
        .settings;
    assert_eq!(old.restart_needed(&new), ["max_requests", "aziot_keys"]);
    assert!(new.restart_needed(&new).is_empty());
    let old = identityd(MANUAL).unwrap().settings;
    let new = identityd(NONE).unwrap().settings;
    assert!(old.restart_needed(&new).is_empty());
    assert!(old.reprovisioning_needed(&new));
    let moved = identityd(&MANUAL.replace("/d", "/e")).unwrap().settings;
    assert_eq!(old.restart_needed(&moved), ["homedir"]);
    assert!(!old.reprovisioning_needed(&moved));
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

    /// A normalised URL stays as it is.
    #[test]
    fn normalisation_of_urls_is_idempotent(text in "(https?|file|unix|foo):[/a-zA-Z0-9.:@%é ?#\\\\-]{0,30}") {
        if let Ok(url) = text.parse::<Url>() {
            let once = url.to_string();
            let twice = once.parse::<Url>().map(|url| url.to_string());
            prop_assert_eq!(twice.as_ref(), Ok(&once));
        }
    }

    /// File URLs and paths convert both ways.
    #[test]
    fn file_urls_round_trip(path in "/[^\0/.][^\0]{0,20}") {
        prop_assume!(!path.contains("/.") && !path.contains("//"));
        let url = crate::uri::FileUri(path.as_bytes()).to_string();
        prop_assert_eq!(url.parse::<Url>().unwrap().file_path(), Some(path.into_bytes()));
    }

    #[test]
    fn policies_round_trip(n in 1i64..10_000, unit in "%|min|day") {
        if let Ok(policy) = format!("{n}{unit}").parse::<Policy>() {
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
}
