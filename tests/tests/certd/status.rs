//! `GET /status`: which certificates there are, and how they stand.

use aziot_tests::certd::{Services, certificate_file, csr, ec_key, issued, root};
use aziot_tests::client::{Response, request};
use aziot_tests::openapi::Document;
use serde_json::Value;

/// All that is told is as documented.
fn status(services: &Services) -> Response {
    let target = "/status?api-version=2026-11-01";
    let answer = services.connect().exchange(request("GET", target, None));
    let promised = Document::load("certs");
    promised.named("status").check(&answer).unwrap();
    answer
}

/// The entry of a certificate.
fn entry(status: &Value, id: &str) -> Value {
    let all = status["certificates"].as_array().unwrap();
    let found = all.iter().find(|entry| entry["id"] == id);
    found.cloned().unwrap_or(Value::Null)
}

#[test]
fn the_status_tells_what_there_is() {
    let root = root(
        "[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n[cert_issuance.leaf]\nmethod = \"local_ca\"\n\
         [cert_issuance.never]\nmethod = \"local_ca\"\n",
    );
    let file = root.write("bundle.pem", "no certificate\n");
    root.write(
        "etc/aziot/certd/config.d/p.toml",
        format!(
            "[preloaded_certs]\nfile = \"file://{}\"\ngone = \"file:///nowhere/at/all.pem\"\nlist = [\"leaf\", \"ca\"]\n\
             http = \"http://x/\"\n",
            file.display()
        ),
    );
    let services = Services::on(root);
    let _ = services.authority("ca", "ec-p256", 60);
    let leaf = issued(&services.create("leaf", &csr(&ec_key(), "leaf"))).remove(0);
    assert_eq!(services.put("used", "text").status, 201);
    let stranger = certificate_file(&services.root, "stranger");
    std::fs::write(&stranger, "text").unwrap();
    let response = status(&services);
    assert_eq!(response.status, 200, "{response}");
    let told = response.json();
    assert_eq!(told["state"], "running");
    assert_eq!(
        (&told["reason"], &told["nextAttempt"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(told["more"], 0);
    let known = entry(&told, "leaf");
    assert_eq!(known["location"], "store");
    let place = services.file("leaf").display().to_string();
    assert_eq!(known["place"], place.as_str());
    assert_eq!(known["renewal"], Value::Null);
    let expiry = known["notAfter"].as_str().unwrap().to_owned();
    let seconds = {
        let epoch = openssl::asn1::Asn1Time::from_unix(0).unwrap();
        let diff = epoch.diff(leaf.not_after()).unwrap();
        u64::try_from(i64::from(diff.days) * 86_400 + i64::from(diff.secs)).unwrap()
    };
    let expected = aziot_core::time::UnixTime::from_secs(seconds).unwrap();
    assert_eq!(expiry, expected.rfc3339().to_string());
    assert_eq!(entry(&told, "list")["location"], "list");
    assert_eq!(entry(&told, "list")["notAfter"], expiry.as_str());
    assert_eq!(entry(&told, "file")["location"], "preloaded");
    assert_eq!(
        entry(&told, "file")["lastError"],
        "there is no certificate in it"
    );
    let gone = entry(&told, "gone");
    assert_eq!(
        (&gone["place"], &gone["lastError"]),
        (&"/nowhere/at/all.pem".into(), &Value::Null)
    );
    let http = entry(&told, "http");
    assert!(
        http["lastError"]
            .as_str()
            .unwrap()
            .contains("unrecognized scheme"),
        "{http}"
    );
    // Configured to be issued, but not there; used by a client; a file that nobody has used.
    assert_eq!(entry(&told, "never"), Value::Null);
    assert_eq!(
        entry(&told, "used")["lastError"],
        "there is no certificate in it"
    );
    let unnamed: Vec<&Value> = told["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["id"].is_null())
        .collect();
    assert_eq!(unnamed.len(), 1);
    assert_eq!(unnamed[0]["place"], stranger.display().to_string().as_str());
    // Once it is used, its id is known; once it is deleted, it is gone.
    assert_eq!(services.get("stranger").status, 200);
    assert_eq!(services.delete("used").status, 204);
    let told = status(&services).json();
    assert_eq!(entry(&told, "stranger")["location"], "store");
    assert_eq!(entry(&told, "used"), Value::Null);
}

#[test]
fn the_status_does_not_need_a_store() {
    let services = Services::start("");
    let told = status(&services).json();
    assert_eq!(told["certificates"], Value::Array(Vec::new()));
    // The new version has everything else as well.
    let target = "/certificates/x?api-version=2026-11-01";
    services
        .connect()
        .exchange(request("GET", target, None))
        .assert_message(
            400,
            "parameter \"id\" has an invalid value\ncaused by: not found",
        );
}
