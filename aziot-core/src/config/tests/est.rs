//! Which EST server, and which credentials, a certificate is requested with.

use super::*;

const TEXT: &str = r#"
homedir_path = "/h"

[cert_issuance.est]
username = "u"
password = "p"

[cert_issuance.est.urls]
default = "https://default/"
by-id = "https://by-id/"
own = "https://by-id-too/"

[cert_issuance.own]
method = "est"
url = "https://own/"
identity_cert = "c"
identity_pk = "k"

[cert_issuance.by-id]
method = "est"
username = "half"

[cert_issuance.local]
method = "self_signed"
"#;

fn issuance(text: &str) -> certd::CertIssuance {
    let merged = merged(&[("c.toml", text)]);
    let loaded = certd::Settings::read(&merged, &Places::default()).unwrap();
    loaded.settings.cert_issuance
}

#[test]
fn cs_31_url_of_the_entry_then_of_the_id_then_the_default() {
    let all = issuance(TEXT);
    for (id, url) in [
        ("own", "https://own/"),
        ("by-id", "https://by-id/"),
        ("local", "https://default/"),
        ("unknown", "https://default/"),
    ] {
        assert_eq!(all.est_url(id), Some(url), "{id}");
    }
    let without_default = issuance(&TEXT.replace("default = ", "other = "));
    assert_eq!(without_default.est_url("own"), Some("https://own/"));
    assert_eq!(without_default.est_url("by-id"), Some("https://by-id/"));
    assert_eq!(without_default.est_url("unknown"), None);
    assert_eq!(issuance("homedir_path = \"/h\"").est_url("x"), None);
}

#[test]
fn cs_05_own_credentials_are_not_mixed_with_the_default() {
    let all = issuance(TEXT);
    let own = all.est_auth("own").unwrap();
    assert!(own.x509.is_some() && own.basic.is_none());
    // Half a pair counts as absent.
    for id in ["by-id", "local", "unknown"] {
        let auth = all.est_auth(id).unwrap();
        assert!(auth.basic.is_some() && auth.x509.is_none(), "{id}");
    }
    let none = issuance(&TEXT.replace("password", "other"));
    assert!(none.est_auth("own").is_some());
    assert_eq!(none.est_auth("by-id"), None);
}

#[test]
fn cs_06_keys_are_rotated_unless_it_says_otherwise() {
    let read = |table: &str| {
        let text =
            format!("homedir_path = \"/h\"\n[cert_issuance.est]\nidentity_auto_renew = {table}\n");
        let merged = merged(&[("c.toml", &text)]);
        certd::Settings::read(&merged, &Places::default())
            .map(|loaded| {
                loaded
                    .settings
                    .cert_issuance
                    .est
                    .unwrap()
                    .identity_auto_renew
            })
            .map_err(|problems| problems.to_string())
    };
    let without = read("{ threshold = \"50%\", retry = \"4%\" }").unwrap();
    assert!(without.rotate_key);
    assert_eq!(without.threshold.to_string(), "50%");
    let with = read("{ rotate_key = false, threshold = \"50%\", retry = \"4%\" }").unwrap();
    assert!(!with.rotate_key);
    for (table, complaint) in [
        ("{ retry = \"4%\" }", "missing field `threshold`"),
        ("{ threshold = \"50%\" }", "missing field `retry`"),
        (
            "{ rotate_key = 1, threshold = \"50%\", retry = \"4%\" }",
            "rotate_key",
        ),
    ] {
        let error = read(table).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}
