//! Tests of parsing and translating. The reference's cases are in `tests/apply`.

mod keys;
mod vectors;

use proptest::prelude::*;

use super::*;
use crate::config::{certd, identityd, keyd, tpmd};

fn translate(text: &str) -> (Output, Vec<String>) {
    let loaded = parse("config.toml", text).unwrap_or_else(|invalid| panic!("{invalid}"));
    let places = Places::default();
    let machine = Machine {
        hostname: "machine",
        certd_uid: 5555,
        identityd_uid: 5556,
        places: &places,
    };
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    (loaded.settings.translate(&machine), warnings)
}

/// Translates text that must not even warn.
fn clean(text: &str) -> Output {
    let (output, warnings) = translate(text);
    assert!(warnings.is_empty(), "{warnings:?}");
    output
}

#[track_caller]
fn error(text: &str) -> String {
    let invalid = parse("config.toml", text).unwrap_err();
    assert_eq!(invalid.problems.len(), 1, "{invalid}");
    invalid.to_string()
}

#[track_caller]
fn assert_starts(text: &str, start: &str) {
    assert!(
        text.starts_with(start),
        "`{text}`\n does not start with\n`{start}`"
    );
}

/// Provisioning that needs nothing else.
const NONE: &str = "[provisioning]\nsource = \"none\"\n";

const EMPTY_KEYD: &str = "[aziot_keys]\nhomedir_path = \"/var/lib/aziot/keyd\"\n\n[preloaded_keys]\n\n[[principal]]\nuid = 5556\n\
                          keys = [\"aziot_identityd_master_id\"]\n";
const EMPTY_CERTD: &str =
    "homedir_path = \"/var/lib/aziot/certd\"\n\n[cert_issuance]\n\n[preloaded_certs]\n";

const V4: &str = r#"hostname = "h"
parent_hostname = "parent"
[provisioning]
source = "manual"
iothub_hostname = "hub.example"
device_id = "dev-1"
[provisioning.authentication]
method = "x509"
[provisioning.authentication.identity_cert]
method = "local_ca"
subject = { cn = "not-dev-1", o = "Org", St = "X" }
[cert_issuance.local_ca]
cert = "file:///etc/pki/ca.pem"
pk = "file:///etc/pki/ca%20key.pem"
"#;

fn dps_x509(registration_id: &str, identity: &str) -> String {
    format!(
        "[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://dps\"\nid_scope = \"s\"\n[provisioning.attestation]\n\
         method = \"x509\"\nregistration_id = \"{registration_id}\"\n{identity}\n"
    )
}

#[test]
fn sc_03_dps_behind_a_parent_is_refused() {
    for name in ["local_gateway_hostname", "parent_hostname"] {
        let text = format!(
            "{name} = \"p\"\n{}",
            "[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://dps\"\nid_scope = \"s\"\n\
             attestation = { method = \"tpm\", registration_id = \"r\" }\n"
        );
        assert_starts(
            &error(&text),
            "config.toml:3:10: DPS provisioning is not supported in nested mode: ",
        );
    }
}

#[test]
fn sc_04_parent_hostname_is_a_synonym() {
    let with = |name: &str| clean(&V4.replace("parent_hostname", name)).identityd;
    assert_eq!(with("parent_hostname"), with("local_gateway_hostname"));
    let both = format!("local_gateway_hostname = \"x\"\n{V4}");
    assert_starts(
        &error(&both),
        "config.toml:3:1: duplicate field `parent_hostname`",
    );
}

#[test]
fn sc_05_cloud_timeout() {
    assert_starts(
        &error(&format!("cloud_timeout_sec = 69\n{NONE}")),
        "config.toml:1:21: cloud_timeout_sec must be at least 70 seconds: ",
    );
    let text = |n: u32| {
        clean(&format!("cloud_timeout_sec = {n}\n{NONE}"))
            .identityd
            .to_toml()
    };
    assert!(!text(70).contains("cloud_timeout_sec"));
    assert!(text(71).contains("\ncloud_timeout_sec = 71\n"));
}

#[test]
fn sc_06_max_requests_is_all_or_nothing() {
    let partial = parse(
        "c",
        &format!("{NONE}[aziot_max_requests]\nkeyd = 1\ntpmd = 1\nidentityd = 1\n"),
    )
    .unwrap_err();
    assert_starts(
        &partial.to_string(),
        "c:3:1: missing field `certd` in [aziot_max_requests]: add it",
    );
    let ten = clean(&format!(
        "{NONE}[aziot_max_requests]\nkeyd = 10\ncertd = 10\ntpmd = 10\nidentityd = 10\n"
    ));
    assert_eq!(ten.keyd.to_toml().as_str(), EMPTY_KEYD);
    assert_starts(
        &error(&format!(
            "{NONE}[aziot_max_requests]\nkeyd = 10\ncertd = 0\ntpmd = 10\nidentityd = 10\n"
        )),
        "config.toml:5:9: `aziot_max_requests.certd` is 0",
    );
}

#[test]
fn sc_09_sc_10_sc_11_renewal_of_the_device_certificate() {
    let with = |rotate: bool, threshold: &str| {
        dps_x509(
            "r",
            &format!(
                "identity_cert = {{ method = \"local_ca\", common_name = \"c\", auto_renew = {{ rotate_key = {rotate}, \
                 threshold = \"{threshold}\", retry = \"4%\" }} }}"
            ),
        )
    };
    let rotating = clean(&with(true, "1440min"));
    assert_eq!(
        rotating.keyd.principals[0].keys,
        ["aziot_identityd_master_id", "device-id", "device-id-temp"]
    );
    assert_eq!(
        rotating.certd.principals[0].certs,
        ["device-id-temp", "device-id"]
    );
    assert_eq!(
        rotating.certd.cert_issuance.certs["device-id-temp"],
        rotating.certd.cert_issuance.certs["device-id"]
    );
    assert!(
        rotating
            .identityd
            .to_toml()
            .contains("threshold = \"1day\"\n")
    );
    let keeping = clean(&with(false, "80%"));
    assert_eq!(
        keeping.keyd.principals[0].keys,
        ["aziot_identityd_master_id", "device-id"]
    );
    assert_eq!(
        keeping.certd.principals[0].certs,
        ["device-id-temp", "device-id"]
    );
    assert!(error(&with(true, "0%")).contains("renewal policy values must be positive"));
    let partial = error(&dps_x509(
        "r",
        "identity_cert = { method = \"est\", auto_renew = { threshold = \"80%\", retry = \"4%\" } }",
    ));
    assert!(partial.contains("missing field `rotate_key`"), "{partial}");

    let (both, warnings) = translate(&dps_x509(
        "r",
        "identity_cert = { method = \"local_ca\", subject = { CN = \"a\" }, common_name = \"b\" }",
    ));
    let subject = both.certd.cert_issuance.certs["device-id"].subject.clone();
    assert_eq!(subject, Some(certd::Subject::CommonName("b".into())));
    assert!(
        warnings[0].contains("identity_cert.subject` has no effect: common_name is given"),
        "{warnings:?}"
    );
}

#[test]
fn sc_12_temporary_est_keys() {
    let own =
        "bootstrap_identity_cert = \"file:///b.pem\", bootstrap_identity_pk = \"file:///b.key\"";
    let output = clean(&dps_x509(
        "r",
        &format!("identity_cert = {{ method = \"est\", common_name = \"c\", {own} }}"),
    ));
    assert_eq!(
        output.keyd.principals[1].keys,
        [
            "est-bootstrap-id-device-id",
            "est-id-device-id-temp",
            "est-id-device-id"
        ]
    );
}

#[test]
fn sc_16_endpoints_and_principals_have_no_effect_here() {
    let (output, warnings) = translate(&format!(
        "{NONE}[endpoints]\naziot_keyd = \"unix:///x\"\n[[principal]]\nuid = 1\nname = \"m\"\n"
    ));
    assert_eq!(output.keyd.to_toml().as_str(), EMPTY_KEYD);
    assert!(!output.identityd.to_toml().contains("endpoints"));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_starts(&warnings[0], "config.toml:3:2: `endpoints` has no effect: ");
    assert_starts(&warnings[1], "config.toml:5:3: `principal` has no effect: ");
}

#[test]
fn sc_17_tpm_strings_in_both_forms() {
    let arrays = clean(&format!(
        "{NONE}[tpm]\ntcti = [115, 119]\nauth_key_index = \"0x00_01_02\"\n[tpm.hierarchy_authorization]\nendorsement = [255]\nowner = \"o\"\n"
    ));
    let text = arrays.tpmd.to_toml();
    assert_eq!(
        text.as_str(),
        "tcti = \"sw\"\nauth_key_index = 258\n\n[hierarchy_authorization]\nendorsement = [255]\nowner = \"o\"\n"
    );
    // What the reference wrote, merged with a drop-in that changes the TCTI.
    let mut merged = Merged::with_scalars(tpmd::SCALARS);
    merged
        .add(
            "00-super.toml",
            "tcti = [115, 119, 116, 112, 109]\nauth_key_index = 66051\n\n[hierarchy_authorization]\nendorsement = [104, 105]\n",
        )
        .unwrap();
    merged.add("10.toml", "tcti = [100, 101]\n").unwrap();
    let settings = tpmd::Settings::read(&merged, &Places::default())
        .unwrap()
        .settings;
    assert_eq!(
        (&settings.tpm.tcti[..], settings.tpm.auth_key_index),
        (&b"de"[..], 66051)
    );
    assert_eq!(&settings.tpm.endorsement_auth[..], b"hi");

    for (line, expected) in [
        ("tcti = 5", "invalid type: integer `5`, expected byte array"),
        (
            "tcti = [1, 256]",
            "invalid value: integer `256`, expected u8",
        ),
        (
            "tcti = [115, 0]",
            "nul byte found in provided data at position: 1",
        ),
        (
            "tcti = \"a\\u0000\"",
            "nul byte found in provided data at position: 1",
        ),
        (
            "auth_key_index = 0x80_00_00",
            "invalid value: integer `8388608`, expected integer in range 0x00_00_00..=0x7F_FF_FF",
        ),
        (
            "auth_key_index = -1",
            "invalid value: integer `-1`, expected u32",
        ),
        (
            "auth_key_index = \"x\"",
            "invalid type: string, expected u32",
        ),
        (
            "auth_key_index = 1",
            "0x1 is where the storage root key is kept",
        ),
        (
            "auth_key_index = 0x010001",
            "0x10001 is where the endorsement key is kept",
        ),
    ] {
        let error = error(&format!("{NONE}[tpm]\n{line}\n"));
        assert!(error.contains(expected), "{error}");
    }
    let long = "x".repeat(64);
    let error = error(&format!(
        "{NONE}[tpm]\nhierarchy_authorization.owner = \"{long}\"\n"
    ));
    assert!(
        error.contains("has 64 bytes") && !error.contains(&long),
        "{error}"
    );
}

#[test]
fn sc_18_toml_1_1_bom_crlf_duplicates_and_unknown_keys() {
    let text = "\u{feff}hostname = \"\\e\\x41\"\r\n[provisioning]\r\nsource = \"manual\"\r\niothub_hostname = \"h\"\r\n\
                device_id = \"d\"\r\nauthentication = {\r\n  method = \"sas\",\r\n  device_id_pk = { value = \"YQ\", },\r\n}\r\n";
    assert_eq!(clean(text).identityd.hostname, "\u{1b}A");
    assert!(
        error("[provisioning]\nsource = \"none\"\nsource = \"none\"\n").contains("duplicate key")
    );
    let (_, warnings) = translate(&format!(
        "hostnam = \"x\"\n{NONE}unknown = 1\n[cert_issuance.my-cert]\nmethod = \"est\"\n[tpm]\nx = 1\n"
    ));
    assert_eq!(
        warnings,
        [
            "config.toml:1:1: unknown key `hostnam`: did you mean `hostname`?",
            "config.toml:4:1: unknown key `provisioning.unknown`: it is ignored",
            "config.toml:5:16: unknown key `cert_issuance.my-cert`: certificates of programs are configured in a file in certd's config.d directory",
            "config.toml:8:1: unknown key `tpm.x`: it is ignored",
        ]
    );
}

#[test]
fn ambiguous_input_warns_and_the_documented_form_wins() {
    let key = "device_id_pk = { value = \"YQ==\" }";
    let (output, warnings) = translate(&format!(
        "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=a;DeviceId=d;SharedAccessKey=AAAA\"\n\
         iothub_hostname = \"b\"\ndevice_id = \"e\"\nauthentication = {{ method = \"sas\", {key} }}\npayload = {{ uri = \"file:///p\" }}\n"
    ));
    assert!(
        output
            .identityd
            .to_toml()
            .contains("iothub_hostname = \"a\"")
    );
    assert_eq!(warnings.len(), 4, "{warnings:?}");

    let (output, warnings) = translate(&format!(
        "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=a\"\n\
         iothub_hostname = \"b\"\ndevice_id = \"e\"\nauthentication = {{ method = \"sas\", {key} }}\n"
    ));
    assert!(
        output
            .identityd
            .to_toml()
            .contains("iothub_hostname = \"b\"")
    );
    assert!(
        warnings[0].contains("required parameter \"DeviceId\" is missing"),
        "{warnings:?}"
    );

    let symmetric = |value: &str| {
        translate(&format!(
            "[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://d\"\nid_scope = \"s\"\n[provisioning.attestation]\n\
             method = \"symmetric_key\"\nregistration_id = \"r\"\nsymmetric_key = {{ value = \"{value}\", uri = \"file:///k\" }}\n"
        ))
    };
    let (output, warnings) = symmetric("YQ==");
    assert!(
        output.device_key.is_some() && warnings[0].contains("symmetric_key.uri` has no effect"),
        "{warnings:?}"
    );
    let (output, warnings) = symmetric("Y");
    assert!(
        output.device_key.is_none() && warnings[0].contains("is not used: not valid base64"),
        "{warnings:?}"
    );
    assert_eq!(
        output.keyd.preloaded_keys["device-id"].as_str(),
        "file:///k"
    );
}

#[test]
fn errors_point_say_what_to_do_and_hide_secrets() {
    let dps = "[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://d\"\nid_scope = \"s\"\n[provisioning.attestation]\n\
               method = \"symmetric_key\"\nregistration_id = \"r\"\n";
    for (text, expected) in [
        (String::new(), "config.toml:1:1: missing field `provisioning`: add [provisioning]"),
        ("[provisioning]\n".into(), "config.toml:1:1: missing field `source` in [provisioning]: add `source"),
        (
            "[provisioning]\nsource = \"Manual\"\n".into(),
            "config.toml:2:10: `provisioning.source`: unknown variant `Manual`, expected one of `manual`, `dps`, `none`: did you mean \"manual\"?",
        ),
        (
            "[provisioning]\nsource = \"manual\"\n".into(),
            "config.toml:1:1: missing field `connection_string` in [provisioning]: add `connection_string",
        ),
        (
            "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=h;SharedAccessKey=secret\"\n".into(),
            "config.toml:3:21: `provisioning.connection_string`: required parameter \"DeviceId\" is missing: ",
        ),
        (format!("{dps}symmetric_key = \"c2VjcmV0\"\n"), "config.toml:8:17: `provisioning.attestation.symmetric_key`: invalid type: string, expected a table: "),
        (format!("{dps}symmetric_key = {{ value = \"secret!\" }}\n"), "config.toml:8:27: `provisioning.attestation.symmetric_key.value`: not valid base64: "),
        (format!("{dps}symmetric_key = {{ }}\n"), "config.toml:8:17: missing field `value` in [provisioning.attestation.symmetric_key]: "),
        (
            format!("{dps}symmetric_key = {{ value = \"YQ==\" }}\n").replace("id_scope", "scope_id"),
            "config.toml:1:1: missing field `id_scope` in [provisioning]: rename scope_id to id_scope",
        ),
        (
            format!("{dps}symmetric_key = {{ value = \"YQ==\" }}\n").replace("https://d", "dps"),
            "config.toml:3:19: `provisioning.global_endpoint`: relative URL without a base: ",
        ),
        (format!("cloud_retries = \"1\"\n{NONE}"), "config.toml:1:17: `cloud_retries`: invalid type: string, expected u32: "),
        (format!("{NONE}[localid]\n"), "config.toml:3:1: missing field `domain` in [localid]: "),
        (
            dps_x509("r", "identity_cert = { method = \"est\", expiry_days = 0 }"),
            "config.toml:8:49: expiry_days must be greater than 0: ",
        ),
        (dps_x509("r", "identity_cert = \"file:///c\""), "config.toml:5:1: missing field `identity_pk` in [provisioning.attestation]: "),
    ] {
        let error = error(&text);
        assert_starts(&error, expected);
        assert!(!error.contains("secret") && !error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn many_problems_are_reported_at_once() {
    let invalid = parse(
        "c",
        "cloud_timeout_sec = 1\n[provisioning]\nsource = \"manual\"\niothub_hostname = \"\"\ndevice_id = 5\n\
         authentication = { method = \"sas\", device_id_pk = { value = \"@\" } }\n[aziot_keys]\na = 1\n",
    )
    .unwrap_err();
    let lines: Vec<_> = invalid
        .problems
        .iter()
        .map(|p| p.location.as_ref().unwrap().line)
        .collect();
    assert_eq!(lines, [1, 4, 5, 6, 8], "{invalid}");
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let loaded = parse(
        "c",
        "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0\"\n\
         [aziot_keys]\npin = \"hidden\"\n[tpm]\nhierarchy_authorization.owner = \"hidden\"\n",
    )
    .unwrap();
    let shown = format!(
        "{loaded:?} {:?}",
        loaded.settings.translate(&Machine {
            hostname: "",
            certd_uid: 0,
            identityd_uid: 0,
            places: &Places::default(),
        })
    );
    assert!(
        !shown.contains("hidden") && !shown.contains("115, 101, 99"),
        "{shown}"
    );
}

#[test]
fn places_under_a_root_appear_in_every_document() {
    let loaded = parse("c", "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=h;DeviceId=d;SharedAccessKey=AAAA\"\n").unwrap();
    let places = Places::under("/tmp/a b");
    let output = loaded.settings.translate(&Machine {
        hostname: "",
        certd_uid: 1,
        identityd_uid: 2,
        places: &places,
    });
    assert!(
        output
            .keyd
            .to_toml()
            .contains("device-id = \"file:///tmp/a%20b/var/secrets/aziot/keyd/device-id\"")
    );
    assert!(
        output
            .keyd
            .to_toml()
            .contains("homedir_path = \"/tmp/a b/var/lib/aziot/keyd\"")
    );
    assert!(
        output
            .certd
            .to_toml()
            .starts_with("homedir_path = \"/tmp/a b/var/lib/aziot/certd\"")
    );
    assert!(
        output
            .identityd
            .to_toml()
            .contains("homedir = \"/tmp/a b/var/lib/aziot/identityd\"")
    );
}

fn reread(output: &Output) {
    let places = Places::default();
    let merged = |text: &str| {
        let mut merged = Merged::new();
        merged.add("f", text).unwrap();
        merged
    };
    assert_eq!(
        keyd::Settings::read(&merged(&output.keyd.to_toml()), &places)
            .unwrap()
            .settings,
        output.keyd
    );
    assert_eq!(
        certd::Settings::read(&merged(&output.certd.to_toml()), &places)
            .unwrap()
            .settings,
        output.certd
    );
    assert_eq!(
        identityd::Settings::read(&merged(&output.identityd.to_toml()), &places)
            .unwrap()
            .settings,
        output.identityd
    );
    assert_eq!(
        tpmd::Settings::read(&merged(&output.tpmd.to_toml()), &places)
            .unwrap()
            .settings,
        output.tpmd
    );
}

proptest! {
    /// Whatever strings a valid super-config holds, the services read the same ones from the generated documents.
    #[test]
    fn generated_documents_are_read_back(
        hostname in ".{0,20}",
        device in ".{1,20}",
        id in ".{0,10}",
        name in "[^\0]{1,10}",
        tcti in "[^\0]{0,20}",
    ) {
        let mut writer = crate::config::Writer::new();
        writer.string("hostname", &hostname);
        writer.table(&["provisioning"]);
        writer.string("source", "manual");
        writer.string("iothub_hostname", &device);
        writer.string("device_id", &device);
        writer.table(&["provisioning", "authentication"]);
        writer.string("method", "x509");
        writer.table(&["provisioning", "authentication", "identity_cert"]);
        writer.string("method", "local_ca");
        writer.table(&["provisioning", "authentication", "identity_cert", "subject"]);
        writer.string(&name, &hostname);
        writer.table(&["preloaded_keys"]);
        writer.string(&id, "pkcs11:token=a%00b;object=%C3%A9");
        writer.table(&["tpm"]);
        writer.string("tcti", &tcti);
        let text = writer.finish();
        let loaded = parse("f", &text).unwrap();
        let places = Places::default();
        let machine = Machine { hostname: "m", certd_uid: 1, identityd_uid: 2, places: &places };
        reread(&loaded.settings.translate(&machine));
    }

    #[test]
    fn connection_strings_never_panic(text in ".{0,60}|(HostName|DeviceId|SharedAccessKey|=|;|[A-Za-z0-9+/=]){0,20}") {
        let _ = text.parse::<ConnectionString>();
    }
}
