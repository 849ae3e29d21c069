//! Configuration: what it may be, and what happens when it changes (certificates-service 2).

use std::fs;

use aziot_core::config::certd::{Settings, Subject};
use aziot_core::config::{Merged, Places};
use aziot_tests::certd::{
    Services, VERSION, certificate_file, configure, csr, ec_key, issued, root,
};
use aziot_tests::client::{Client, request};
use aziot_tests::daemon::Launch;
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::json;

const FINISHED: &str = "Config update finished.";

fn settings(text: &str) -> (Settings, Vec<String>) {
    let mut merged = Merged::new();
    merged
        .add("config.toml", &format!("homedir_path = \"/h\"\n{text}"))
        .unwrap();
    let loaded = Settings::read(&merged, &Places::default()).unwrap();
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    (loaded.settings, warnings)
}

#[test]
fn cs_01_without_configuration_it_does_not_start() {
    let root = Root::new();
    fs::remove_dir(root.join("etc/aziot/certd/config.d")).unwrap();
    let finished = Launch::service("aziot-certd", &root).fails();
    finished
        .assert_logged("could not read config")
        .assert_logged("missing field `homedir_path`");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn cs_02_drop_ins_are_merged_in_the_order_of_their_names() {
    let root = root("max_requests = 3\n[preloaded_certs]\nall = [\"a\"]\nx = \"file:///nowhere\"");
    let file = |name: &str, text: &str| root.write(format!("certs/{name}"), text);
    let url = |name: &str| format!("file://{}", file(name, &format!("{name}\n")).display());
    root.write(
        "etc/aziot/certd/config.d/20.toml",
        format!(
            "[preloaded_certs]\nall = [\"c\"]\nx = \"{}\"",
            url("twenty")
        ),
    );
    root.write(
        "etc/aziot/certd/config.d/10.toml",
        format!(
            "[preloaded_certs]\nall = [\"b\"]\nx = \"{}\"\nb = \"{}\"",
            url("ten"),
            url("b")
        ),
    );
    for ignored in ["30.toml~", "30.TOML", "30.toml.d/x.toml"] {
        root.write(format!("etc/aziot/certd/config.d/{ignored}"), "broken [");
    }
    let elsewhere = root.write("elsewhere.toml", "broken [");
    std::os::unix::fs::symlink(elsewhere, root.join("etc/aziot/certd/config.d/40.toml")).unwrap();
    let services = Services::on(root);
    for (id, text) in [("a", "a\n"), ("c", "c\n")] {
        assert_eq!(services.put(id, text).status, 201);
    }
    assert_eq!(services.get("x").member("pem"), "twenty\n", "replaced");
    assert_eq!(services.get("all").member("pem"), "a\nb\nc\n", "appended");
    // From the main file alone: three connections, and no more.
    let mut open: Vec<Client> = (0..3).map(|_| services.connect()).collect();
    for client in &mut open {
        let target = format!("/certificates/x?{VERSION}");
        assert_eq!(client.exchange(request("GET", &target, None)).status, 200);
    }
    services.connect().assert_closed();
}

#[test]
fn cs_03_issuance_options_are_checked() {
    for (entry, complaint) in [
        (
            "method = \"self_signed\"\nexpiry_days = 0",
            "expiry_days must be greater than 0",
        ),
        (
            "method = \"magic\"",
            "unknown variant `magic`, expected one of `est`, `local_ca`, `self_signed`",
        ),
        ("expiry_days = 1", "missing field `method`"),
    ] {
        let root = root(&format!("[cert_issuance.x]\n{entry}"));
        Launch::service("aziot-certd", &root)
            .fails()
            .assert_logged("could not read config")
            .assert_logged(complaint);
    }
    let services =
        Services::start("unheard = 1\n[cert_issuance.x]\nmethod = \"self_signed\"\nof = true");
    services.certd.log().wait_for("unheard");
    services.get("x").assert_message(
        400,
        "parameter \"id\" has an invalid value\ncaused by: not found",
    );
}

#[test]
fn cs_04_the_subject_of_the_configuration() {
    let long = format!("{}á{}", "a".repeat(63), "aBBB");
    let services = Services::start(&format!(
        "[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n\
         [cert_issuance.cn]\nmethod = \"local_ca\"\ncommon_name = \"test-device\"\n\
         [cert_issuance.cn.subject]\nO = \"other\"\n\
         [cert_issuance.fields]\nmethod = \"local_ca\"\n\
         subject = {{ L = \"AQ\", ST = \"Antarctica\", CN = \"test-device\" }}\n\
         [cert_issuance.long]\nmethod = \"local_ca\"\ncommon_name = \"{long}\"\n\
         [cert_issuance.empty]\nmethod = \"local_ca\"\nsubject = {{}}\n\
         [cert_issuance.types]\nmethod = \"local_ca\"\n\
         subject = {{ emailAddress = \"a@b.c\", serialNumber = \"12\", DC = \"com\" }}\n\
         [cert_issuance.unknown]\nmethod = \"local_ca\"\nsubject = {{ Nonsense = \"x\" }}\n\
         [cert_issuance.lower]\nmethod = \"local_ca\"\nsubject = {{ cn = \"x\" }}\n\
         [cert_issuance.country]\nmethod = \"local_ca\"\nsubject = {{ C = \"AUT\" }}\n\
         [cert_issuance.nothing]\nmethod = \"local_ca\"\ncommon_name = \"\"\n\
         [cert_issuance.none]\nmethod = \"local_ca\"\n"
    ));
    let _ = services.authority("ca", "ec-p256", 100);
    let csr = csr(&ec_key(), "asked");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let longest = format!("304c314a304806035504030c41{}c3a1", "61".repeat(63));
    for (id, der) in [
        ("cn", "30163114301206035504030c0b746573742d646576696365"),
        (
            "fields",
            "30383114301206035504030c0b746573742d646576696365310b300906035504070c0241513113301106035504080c0a416e7461726374\
             696361",
        ),
        ("long", longest.as_str()),
        ("empty", "3000"),
        (
            "types",
            "303831133011060a0992268993f22c6401191603636f6d3114301206092a864886f70d01090116056140622e63310b3009060355040513\
             023132",
        ),
        ("none", "3010310e300c06035504030c0561736b6564"),
    ] {
        let issued = issued(&services.create(id, &csr));
        assert_eq!(
            hex(&issued[0].subject_name().to_der().unwrap()),
            der,
            "{id}"
        );
    }
    for id in ["unknown", "lower", "country", "nothing"] {
        services
            .certd
            .log()
            .wait_for(&format!("cert {id:?} cannot be issued with the configured"));
        services
            .create(id, &csr)
            .assert_message(500, "internal error");
        services.get(id).assert_message(
            400,
            "parameter \"id\" has an invalid value\ncaused by: not found",
        );
    }
}

#[test]
fn cs_04_a_subject_of_the_wrong_type_counts_as_absent() {
    for (keys, expected) in [
        ("common_name = 5", None),
        ("subject = \"x\"", None),
        ("subject = { CN = \"x\", O = 5 }", None),
        ("common_name = 5\nsubject = { CN = \"x\" }", None),
        (
            "common_name = \"x\"\nsubject = 5",
            Some(Subject::CommonName("x".to_owned())),
        ),
    ] {
        let (settings, warnings) = settings(&format!(
            "[cert_issuance.x]\nmethod = \"local_ca\"\n{keys}\n"
        ));
        assert_eq!(
            settings.cert_issuance.certs["x"].subject, expected,
            "{keys}"
        );
        assert!(!warnings.is_empty(), "{keys}");
    }
}

#[test]
fn cs_05_incomplete_groups_count_as_absent() {
    let auth = |keys: &str| {
        let (settings, warnings) =
            settings(&format!("[cert_issuance.x]\nmethod = \"est\"\n{keys}"));
        (settings.cert_issuance.certs["x"].auth.clone(), warnings)
    };
    let identity = "identity_cert = \"c\"\nidentity_pk = \"k\"\n";
    let basic = "username = \"u\"\npassword = \"p\"\n";
    let bootstrap = "bootstrap_identity_cert = \"bc\"\nbootstrap_identity_pk = \"bk\"\n";
    let (both, warnings) = auth(&format!("{identity}{basic}{bootstrap}"));
    assert!(both.basic.is_some() && warnings.is_empty(), "{warnings:?}");
    let x509 = both.x509.unwrap();
    assert_eq!(x509.identity_cert, "c");
    assert_eq!(x509.bootstrap, Some(("bc".into(), "bk".into())));
    for (keys, has_basic, missing) in [
        ("username = \"u\"\n".to_owned(), false, "password"),
        (
            format!("{identity}bootstrap_identity_cert = \"bc\"\n"),
            false,
            "bootstrap_identity_pk",
        ),
        (
            format!("{basic}identity_cert = \"c\"\n"),
            true,
            "identity_pk",
        ),
        (format!("{basic}{bootstrap}"), true, "identity_cert"),
        (
            "username = 5\npassword = \"p\"\n".to_owned(),
            false,
            "username",
        ),
        (
            format!(
                "{basic}{identity}bootstrap_identity_cert = [1]\nbootstrap_identity_pk = \"k\"\n"
            ),
            true,
            "bootstrap_identity_cert",
        ),
    ] {
        let (auth, warnings) = auth(&keys);
        assert_eq!(auth.basic.is_some(), has_basic, "{keys}");
        assert!(auth.x509.is_none(), "{keys}");
        assert!(
            warnings.iter().any(|warning| warning.contains(missing)),
            "{warnings:?}"
        );
    }
    // The place that documentation has shown counts as well; what is directly in the table wins.
    let (settings, warnings) = settings(
        "[cert_issuance.est]\nusername = \"direct\"\npassword = \"p\"\n\
         [cert_issuance.est.auth]\nusername = \"nested\"\npassword = \"p\"\nidentity_cert = \"c\"\nidentity_pk = \"k\"\n",
    );
    let est = settings.cert_issuance.est.unwrap();
    assert_eq!(est.auth.basic.unwrap().0, "direct");
    assert!(est.auth.x509.is_some());
    assert!(
        warnings.iter().any(|warning| warning.contains("auth")),
        "{warnings:?}"
    );
}

#[test]
fn cs_06_when_identities_are_renewed() {
    let table = |policy: &str| format!("[cert_issuance.est]\nidentity_auto_renew = {policy}\n");
    let policy = |text: &str| {
        let est = settings(text).0.cert_issuance.est.unwrap();
        let policy = est.identity_auto_renew;
        let (threshold, retry) = (policy.threshold.to_string(), policy.retry.to_string());
        (policy.rotate_key, threshold, retry)
    };
    let own = |rotate, threshold: &str, retry: &str| (rotate, threshold.into(), retry.into());
    assert_eq!(policy("[cert_issuance.est]\n"), own(true, "80%", "4%"));
    let written = table("{ rotate_key = false, threshold = \"1440min\", retry = \"007%\" }");
    assert_eq!(policy(&written), own(false, "1day", "7%"));
    for (threshold, complaint) in [
        ("", "policy not specified"),
        ("80.5%", "policy could not be parsed as number"),
        ("1h", "bad units for policy"),
        ("0min", "renewal policy values must be positive"),
        ("100%", "lifetime percentage must be less than 100"),
    ] {
        let bad = format!("{{ rotate_key = true, threshold = \"{threshold}\", retry = \"4%\" }}");
        Launch::service("aziot-certd", &root(&table(&bad)))
            .fails()
            .assert_logged("could not read config")
            .assert_logged(complaint);
    }
}

#[test]
fn cs_07_the_configuration_is_written_in_one_order() {
    let text = "max_requests = 10\nendpoints = { aziot_certd = \"unix:///a\", aziot_keyd = \"unix:///b\" }\n\
                [preloaded_certs]\nz = [\"y\"]\na = \"file:///a\"\n\
                [cert_issuance.z]\nmethod = \"local_ca\"\nexpiry_days = 90\nsubject = { ST = \"s\", C = \"AT\" }\n\
                [cert_issuance.b]\nmethod = \"est\"\nurl = \"http://x\"\npassword = \"p\"\nusername = \"u\"\n\
                [cert_issuance.local_ca]\npk = \"p\"\ncert = \"c\"\n\
                [cert_issuance.est]\ntrusted_certs = []\nidentity_pk = \"k\"\nidentity_cert = \"c\"\n\
                identity_auto_renew = { rotate_key = true, threshold = \"80%\", retry = \"4%\" }\n\
                [[principal]]\nuid = 2\ncerts = [\"b\"]\n[[principal]]\nuid = 1\ncerts = []\n";
    let (first, _) = settings(text);
    let written = first.to_toml();
    let keys: Vec<&str> = written
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split(" =").next().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "homedir_path",
            "[cert_issuance.est]",
            "identity_cert",
            "identity_pk",
            "[cert_issuance.local_ca]",
            "cert",
            "pk",
            "[cert_issuance.b]",
            "method",
            "url",
            "username",
            "password",
            "[cert_issuance.z]",
            "method",
            "expiry_days",
            "[cert_issuance.z.subject]",
            "C",
            "ST",
            "[preloaded_certs]",
            "a",
            "z",
            "[[principal]]",
            "uid",
            "certs",
            "[[principal]]",
            "uid",
            "certs",
        ]
    );
    assert!(written.contains("\"http://x/\""), "{}", written.as_str());
    let mut merged = Merged::new();
    merged.add("again.toml", &written).unwrap();
    let mut again = Settings::read(&merged, &Places::default())
        .unwrap()
        .settings;
    assert_ne!(again, first, "endpoints are not written");
    again.endpoint = first.endpoint.clone();
    again.keyd_endpoint = first.keyd_endpoint.clone();
    assert_eq!(again, first);
}

/// Reversed by design: sockets follow the setting in every build.
#[test]
fn cs_08_endpoints_count() {
    let root = root("");
    let socket = root.join("elsewhere.sock");
    configure(
        &root,
        &format!("[endpoints]\naziot_certd = \"unix://{}\"", socket.display()),
    );
    let daemon = Launch::service("aziot-certd", &root)
        .socket(&socket)
        .start();
    let target = format!("/certificates/x?{VERSION}");
    Client::connect(&socket)
        .exchange(request("GET", &target, None))
        .assert_message(
            400,
            "parameter \"id\" has an invalid value\ncaused by: not found",
        );
    daemon.stop();
    // The Keys Service is reached through a file, nothing else.
    configure(&root, "[endpoints]\naziot_keyd = \"fd://3\"");
    Launch::service("aziot-certd", &root)
        .fails()
        .assert_logged("`endpoints.aziot_keyd` has to be a unix:// URI");
}

#[test]
fn cs_09_a_changed_configuration_takes_effect() {
    const UID: u32 = 40_000;
    let root = root("[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"");
    let services = Services::on(root);
    let _ = services.authority("ca", "ec-p256", 100);
    let csr = csr(&ec_key(), "x");
    services
        .create("x", &csr)
        .assert_message(500, "internal error");
    let dropin = "etc/aziot/certd/config.d/50.toml";
    let log = services.certd.log();
    let file = services.root.write("pre.pem", "pre\n");
    services.root.write(
        dropin,
        format!(
            "homedir_path = \"/elsewhere\"\nmax_requests = 1\n[cert_issuance.x]\nmethod = \"local_ca\"\n\
             [preloaded_certs]\npre = \"file://{}\"\n[[principal]]\nuid = {UID}\ncerts = [\"a*\"]\n",
            file.display()
        ),
    );
    log.wait_for_more(FINISHED, 0);
    assert_eq!(
        log.count("Detected change in config files. Updating config."),
        1
    );
    for name in ["homedir_path", "max_requests"] {
        log.wait_for(&format!("{name} has changed; the change takes effect when"));
    }
    assert_eq!(services.get("pre").member("pem"), "pre\n");
    assert_eq!(issued(&services.create("x", &csr)).len(), 2);
    assert!(
        certificate_file(&services.root, "x").exists(),
        "in the old home"
    );
    let one = services.connect();
    assert_eq!(services.get("x").status, 200, "beside another connection");
    drop(one);
    if users::can_change("principals") {
        let put = |id: &str| {
            let target = format!("/certificates/{id}?{VERSION}");
            services
                .connect_as(UID)
                .exchange(request("PUT", &target, Some(&json!({ "pem": "" }))))
                .status
        };
        assert_eq!((put("ab"), put("b")), (201, 401));
    }

    // A broken file leaves all as it was, and is complained of with its place.
    let warning = "Detected config file update, but new config failed to parse. Error: ";
    services
        .root
        .replace(dropin, "[cert_issuance.x]\nmethod = \"magic\"\n");
    let line = log.wait_for_more(warning, 0);
    assert!(line.contains("50.toml:2:"), "{line}");
    assert_eq!(services.get("pre").status, 200);

    // A file that is replaced by renaming is seen, every time.
    for round in ["one", "two", "three"] {
        let seen = log.count(FINISHED);
        services
            .root
            .replace(dropin, format!("[preloaded_certs]\n{round} = [\"x\"]\n"));
        log.wait_for_more(FINISHED, seen);
        assert_eq!(services.get(round).status, 200);
    }
    assert_eq!(services.get("pre").status, 400, "not preloaded any more");
    // SIGHUP reads it again at once, and a reading that finds nothing new is not told.
    let seen = log.count(FINISHED);
    services.certd.signal(libc::SIGHUP);
    services
        .root
        .replace(dropin, "[preloaded_certs]\nfour = [\"x\"]\n");
    services.certd.signal(libc::SIGHUP);
    log.wait_for_more(FINISHED, seen);
    assert_eq!(services.get("four").status, 200);
    assert_eq!(log.count(FINISHED), seen + 1);
}
