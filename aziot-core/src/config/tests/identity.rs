//! Settings of the Identity Service.

use super::super::identityd::{Attestation, IdType, LocalIdAttributes, Source, Subject};
use super::*;

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
