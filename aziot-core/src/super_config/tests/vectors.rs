//! Whole super-configs and the documents they become.

use super::*;

#[test]
fn sc_02_v1_no_hub() {
    let output = clean(
        "hostname = \"h\"\n[provisioning]\nsource = \"none\"\n[localid]\ndomain = \"example.com\"\n",
    );
    assert_eq!(
        output.identityd.to_toml().as_str(),
        "hostname = \"h\"\nhomedir = \"/var/lib/aziot/identityd\"\nprefer_module_identity_cache = false\n\n\
         [provisioning]\nsource = \"none\"\n\n[localid]\ndomain = \"example.com\"\n"
    );
    assert_eq!(output.keyd.to_toml().as_str(), EMPTY_KEYD);
    assert_eq!(output.certd.to_toml().as_str(), EMPTY_CERTD);
    assert_eq!(output.tpmd.to_toml().as_str(), "");
    assert_eq!(output.device_key, None);
}

/// The reference writes the two strings as arrays of bytes; we write strings, which it reads too (DESIGN 9.8).
#[test]
fn sc_02_v2_tpm_payload_and_knobs() {
    let output = clean(
        r#"hostname = "gw-7"
prefer_module_identity_cache = true
cloud_timeout_sec = 90
cloud_retries = 3

[provisioning]
source = "dps"
global_endpoint = "https://dps.example"
id_scope = "0ne000A1B2C"
payload = { uri = "file:///etc/aziot/pay load.json" }
attestation = { method = "tpm", registration_id = "gw-7" }

[tpm]
tcti = "swtpm:port=2321"
auth_key_index = 0x00_01_01
hierarchy_authorization = { owner = "own" }

[aziot_max_requests]
keyd = 10
certd = 10
tpmd = 11
identityd = 10
"#,
    );
    assert_eq!(
        output.identityd.to_toml().as_str(),
        r#"hostname = "gw-7"
homedir = "/var/lib/aziot/identityd"
prefer_module_identity_cache = true
cloud_timeout_sec = 90
cloud_retries = 3

[provisioning]
source = "dps"
global_endpoint = "https://dps.example/"
scope_id = "0ne000A1B2C"

[provisioning.attestation]
method = "tpm"
registration_id = "gw-7"

[provisioning.payload]
uri = "file:///etc/aziot/pay%20load.json"
"#
    );
    assert_eq!(
        output.tpmd.to_toml().as_str(),
        "max_requests = 11\ntcti = \"swtpm:port=2321\"\nauth_key_index = 257\n\n[hierarchy_authorization]\nowner = \"own\"\n"
    );
    assert_eq!(output.keyd.to_toml().as_str(), EMPTY_KEYD);
}

#[test]
fn sc_02_v3_everything_about_certificates() {
    let output = clean(
        r#"hostname = "gw-8"

[provisioning]
source = "dps"
global_endpoint = "https://dps.example/"
id_scope = "0ne000A1B2C"

[provisioning.attestation]
method = "x509"
registration_id = "gw-8"

[provisioning.attestation.identity_cert]
method = "est"
common_name = "ignored-by-identityd"
identity_cert = "file:///etc/pki/dev-est.pem"
identity_pk = "file:///etc/pki/dev-est.key"
auto_renew = { rotate_key = true, threshold = "1440min", retry = "90min" }

[cert_issuance.est]
trusted_certs = ["file:///etc/pki/a.pem", "file:///etc/pki/b.pem"]
identity_auto_renew = { rotate_key = false, threshold = "80%", retry = "4%" }

[cert_issuance.est.auth]
bootstrap_identity_cert = "file:///etc/pki/boot.pem"
bootstrap_identity_pk = "pkcs11:token=Dev Token;object=boot-1;type=private?pin-value=12-34"

[cert_issuance.est.urls]
default = "https://est.example:443/.well-known/est"

[cert_issuance.local_ca]
cert = { method = "self_signed", common_name = "Site CA", expiry_days = 3650 }
"#,
    );
    assert_eq!(
        output.keyd.to_toml().as_str(),
        r#"[aziot_keys]
homedir_path = "/var/lib/aziot/keyd"

[preloaded_keys]
est-bootstrap-id = "pkcs11:token=Dev%20Token;object=boot%2D1?pin-value=12%2D34"
est-id-device-id = "file:///etc/pki/dev-est.key"

[[principal]]
uid = 5556
keys = ["aziot_identityd_master_id", "device-id", "device-id-temp"]

[[principal]]
uid = 5555
keys = ["est-id-device-id", "est-bootstrap-id", "est-id", "local-ca"]
"#
    );
    assert_eq!(
        output.certd.to_toml().as_str(),
        r#"homedir_path = "/var/lib/aziot/certd"

[cert_issuance.est]
trusted_certs = ["est-server-ca-1", "est-server-ca-2"]
identity_cert = "est-id"
identity_pk = "est-id"
bootstrap_identity_cert = "est-bootstrap-id"
bootstrap_identity_pk = "est-bootstrap-id"

[cert_issuance.est.identity_auto_renew]
rotate_key = false
threshold = "80%"
retry = "4%"

[cert_issuance.est.urls]
default = "https://est.example/.well-known/est"

[cert_issuance.local_ca]
cert = "local-ca"
pk = "local-ca"

[cert_issuance.device-id]
method = "est"
identity_cert = "est-id-device-id"
identity_pk = "est-id-device-id"
common_name = "ignored-by-identityd"

[cert_issuance.device-id-temp]
method = "est"
identity_cert = "est-id-device-id"
identity_pk = "est-id-device-id"
common_name = "ignored-by-identityd"

[cert_issuance.local-ca]
method = "self_signed"
expiry_days = 3650
common_name = "Site CA"

[preloaded_certs]
est-bootstrap-id = "file:///etc/pki/boot.pem"
est-id-device-id = "file:///etc/pki/dev-est.pem"
est-server-ca-1 = "file:///etc/pki/a.pem"
est-server-ca-2 = "file:///etc/pki/b.pem"

[[principal]]
uid = 5556
certs = ["device-id-temp", "device-id"]
"#
    );
    let identityd = output.identityd.to_toml();
    let attestation = identityd
        .split("[provisioning.attestation]\n")
        .nth(1)
        .unwrap();
    assert_eq!(
        attestation,
        r#"method = "x509"
identity_cert = "device-id"
identity_pk = "device-id"
registration_id = "gw-8"

[provisioning.attestation.identity_auto_renew]
rotate_key = true
threshold = "1day"
retry = "90min"
"#
    );
}

#[test]
fn sc_02_v4_subject_in_mixed_case_and_a_parent() {
    let renew = "[provisioning.authentication.identity_cert.auto_renew]\nrotate_key = true\nthreshold = \"80%\"\nretry = \"4%\"\n";
    let (output, warnings) =
        translate(&V4.replace("[cert_issuance", &format!("{renew}[cert_issuance")));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_starts(
        &warnings[0],
        "config.toml:12:44: `provisioning.authentication.identity_cert.auto_renew` has no effect: ",
    );
    assert_eq!(
        output.identityd.to_toml().as_str(),
        r#"hostname = "h"
homedir = "/var/lib/aziot/identityd"
prefer_module_identity_cache = false

[provisioning]
local_gateway_hostname = "parent"
source = "manual"
iothub_hostname = "hub.example"
device_id = "dev-1"

[provisioning.authentication]
method = "x509"
identity_cert = "device-id"
identity_pk = "device-id"

[provisioning.authentication.csr_subject]
CN = "dev-1"
O = "Org"
ST = "X"
"#
    );
    let certd = output.certd.to_toml();
    assert!(
        certd.contains(
            "[cert_issuance.device-id.subject]\nSt = \"X\"\ncn = \"not-dev-1\"\no = \"Org\"\n"
        ),
        "{}",
        *certd
    );
    assert!(
        certd.ends_with("[[principal]]\nuid = 5556\ncerts = [\"device-id\"]\n"),
        "{}",
        *certd
    );
    let keyd = output.keyd.to_toml();
    assert!(
        keyd.contains("local-ca = \"file:///etc/pki/ca%20key.pem\"\n"),
        "{}",
        *keyd
    );
    assert!(
        keyd.ends_with("[[principal]]\nuid = 5555\nkeys = [\"local-ca\"]\n"),
        "{}",
        *keyd
    );
}

#[test]
fn sc_02_v5_sc_13_collisions_and_overrides() {
    let (output, warnings) = translate(
        "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=hub;DeviceId=d;SharedAccessKey=AAAA\"\n\
         [aziot_keys]\nhomedir_path = \"/nope\"\nfoo = \"bar\"\n[preloaded_keys]\ndevice-id = \"file:///mine\"\nkept = \"file:///kept\"\n",
    );
    let keyd = output.keyd.to_toml();
    assert_starts(
        &keyd,
        "[aziot_keys]\nfoo = \"bar\"\nhomedir_path = \"/var/lib/aziot/keyd\"\n\n[preloaded_keys]\n\
         device-id = \"file:///var/secrets/aziot/keyd/device-id\"\nkept = \"file:///kept\"\n",
    );
    assert_eq!(output.device_key.as_deref(), Some(&alloc::vec![0, 0, 0]));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_starts(
        &warnings[0],
        "config.toml:5:1: `aziot_keys.homedir_path` has no effect: ",
    );
    assert_starts(
        &warnings[1],
        "config.toml:8:1: `preloaded_keys.device-id` has no effect: ",
    );
}

#[test]
fn sc_02_v6_registration_id_without_subject() {
    let (output, warnings) = translate(&dps_x509("reg", "identity_cert = { method = \"est\" }"));
    assert!(
        output
            .identityd
            .to_toml()
            .ends_with("[provisioning.attestation]\nmethod = \"x509\"\nidentity_cert = \"device-id\"\nidentity_pk = \"device-id\"\n")
    );
    let certd = output.certd.to_toml();
    assert!(
        certd.contains("[cert_issuance.device-id]\nmethod = \"est\"\n\n[preloaded_certs]\n"),
        "{}",
        *certd
    );
    assert!(certd.ends_with("certs = [\"device-id\"]\n"), "{}", *certd);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_starts(
        &warnings[0],
        "config.toml:7:1: `provisioning.attestation.registration_id` is dropped: ",
    );
}

#[test]
fn sc_02_v7_subject_with_dps() {
    let output = clean(&dps_x509(
        "reg",
        "identity_cert = { method = \"local_ca\", subject = { cn = \"lower\", o = \"Org\", \"2.5.4.11\" = \"u\" } }",
    ));
    assert!(
        output
            .identityd
            .to_toml()
            .ends_with("[provisioning.attestation.registration_id]\nCN = \"reg\"\n\"2.5.4.11\" = \"u\"\nO = \"Org\"\n")
    );
}

#[test]
fn sc_02_v8_sc_10_sc_12_global_est() {
    let pairs = "username = \"u\"\npassword = \"p\"\nidentity_cert = \"file:///i.pem\"\nidentity_pk = \"file:///i.key\"\n\
                 bootstrap_identity_cert = \"file:///b.pem\"\nbootstrap_identity_pk = \"file:///b.key\"\n";
    let (output, warnings) = translate(&format!(
        "{NONE}[cert_issuance.est]\nidentity_auto_renew = {{ rotate_key = false, threshold = \"1440min\", retry = \"90min\" }}\n\
         [cert_issuance.est.auth]\n{pairs}"
    ));
    assert_eq!(
        output.keyd.principals[1].keys,
        ["est-bootstrap-id", "est-id"]
    );
    assert_eq!(
        output.keyd.preloaded_keys.keys().collect::<Vec<_>>(),
        ["est-bootstrap-id"]
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    // Half pairs count as absent.
    let (output, warnings) = translate(&format!(
        "{NONE}[cert_issuance.est.auth]\nusername = \"u\"\nidentity_cert = \"file:///i.pem\"\nbootstrap_identity_pk = \"file:///b\"\n"
    ));
    assert_eq!(
        output.certd.to_toml().as_str(),
        EMPTY_CERTD.replace("issuance]", "issuance.est]")
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0]
            .contains("`cert_issuance.est.auth.username` has no effect: `password` is missing"),
        "{warnings:?}"
    );

    let output = clean(&format!(
        "{NONE}[cert_issuance.est]\nidentity_auto_renew = {{ rotate_key = true, threshold = \"80%\", retry = \"4%\" }}\n"
    ));
    assert_eq!(
        output.certd.to_toml().as_str(),
        EMPTY_CERTD.replace("issuance]", "issuance.est]")
    );
}
