//! What the EST server answers, well and badly. Nothing of it makes the service hang, end, or lose what it has.

use std::time::{Duration, Instant};

use aziot_tests::client;
use aziot_tests::simulator::est::{Form, Realm, WELL_KNOWN, Yields};
use aziot_tests::simulator::{Action, CannedResponse, Config, Fault, Simulator};

use crate::device::{Bench, Plan, VERSION, names, new_key, request, request_for};

const WHOLE: [&str; 3] = ["dev", "est-int", "est-root"];

fn with(bench: &Bench, change: impl FnOnce(&mut Realm)) {
    let mut realm = Realm::default();
    change(&mut realm);
    bench.est.set_realm(WELL_KNOWN, realm);
}

/// A bench whose certificate `dev` has been issued, and that certificate.
fn issued() -> (Bench, Vec<u8>) {
    let bench = Bench::new(&Plan::open());
    let leaf = bench.created("dev", &request("dev"))[0].to_der().unwrap();
    (bench, leaf)
}

/// A request fails, and leaves the certificate that was there before.
#[track_caller]
fn fails(bench: &Bench, before: &[u8], cause: &str) {
    bench.refused("dev", &request("dev"), cause);
    let stored = bench.stored("dev").expect("the certificate from before");
    assert_eq!(stored[0].to_der().unwrap(), before);
}

#[test]
fn cs_34_certificates_come_in_every_encoding() {
    let bench = Bench::new(&Plan::open());
    for form in [
        Form::Base64,
        Form::Ragged,
        Form::OneLine,
        Form::Pem,
        Form::Der,
    ] {
        with(&bench, |realm| realm.form = form);
        assert_eq!(
            names(&bench.created("dev", &request("dev"))),
            WHOLE,
            "{form:?}"
        );
    }
}

#[test]
fn cs_34_media_types_are_told_by_what_counts() {
    let bench = Bench::new(&Plan::open());
    for media in [
        "application/pkcs7-mime",
        "application/pkcs7-mime; smime-type=certs-only; name=x",
        "Application/PKCS7-MIME",
    ] {
        with(&bench, |realm| realm.content_type = Some(media.to_owned()));
        assert_eq!(
            names(&bench.created("dev", &request("dev"))),
            WHOLE,
            "{media}"
        );
    }
}

#[test]
fn cs_34_the_chain_is_the_leaf_first_and_no_repeats() {
    let bench = Bench::new(&Plan::open());
    for yields in [Yields::Leaf, Yields::Chain, Yields::Reversed] {
        with(&bench, |realm| realm.yields = yields);
        let key = new_key();
        let chain = bench.created("dev", &request_for("dev", &key));
        assert_eq!(names(&chain), WHOLE, "{yields:?}");
        assert!(chain[0].public_key().unwrap().public_eq(&key));
        assert_eq!(names(&bench.stored("dev").unwrap()), WHOLE);
    }
}

#[test]
fn cs_35_refusals_leave_what_there_was() {
    let (bench, before) = issued();
    for (status, body) in [
        (401, ""),
        (403, "no"),
        (500, "trouble"),
        (503, "later"),
        (302, ""),
    ] {
        let canned = CannedResponse::html(status, body).with_header("location", "/elsewhere");
        bench
            .est
            .add_fault(Fault::once(Action::Respond(canned)).on_route("est-simpleenroll"))
            .unwrap();
        fails(
            &bench,
            &before,
            &format!("the EST server answered {status}"),
        );
    }
    bench.created("dev", &request("dev"));
}

#[test]
fn cs_35_html_of_a_portal_is_no_certificate() {
    let (bench, before) = issued();
    let page = CannedResponse::html(200, "<html>Please log in</html>");
    bench
        .est
        .add_fault(Fault::once(Action::Respond(page)).on_route("est-simpleenroll"))
        .unwrap();
    fails(&bench, &before, "content type \"text/html\"");
    with(&bench, |realm| realm.content_type = None);
    fails(&bench, &before, "content type");
}

#[test]
fn cs_35_what_is_no_certificate_for_the_key_is_not_taken() {
    let (bench, before) = issued();
    for yields in [Yields::Garbage, Yields::Empty, Yields::OtherKey] {
        with(&bench, |realm| realm.yields = yields);
        fails(&bench, &before, "!!! caused by: ");
    }
    with(&bench, |_| {});
    bench.created("dev", &request("dev"));
}

#[test]
fn cs_36_a_pkcs7_without_content_has_no_certificates() {
    let (bench, before) = issued();
    with(&bench, |realm| realm.yields = Yields::NoContent);
    fails(&bench, &before, "!!! caused by: ");
    // The same from `cacerts`: the certificate is worth having all the same.
    with(&bench, |_| {});
    let nothing = CannedResponse::html(200, "MAsGCSqGSIb3DQEHAg==")
        .with_header("content-type", "application/pkcs7-mime");
    bench
        .est
        .add_fault(Fault::once(Action::Respond(nothing)).on_route("est-cacerts"))
        .unwrap();
    assert_eq!(names(&bench.created("dev", &request("dev"))), ["dev"]);
}

#[test]
fn cs_35_a_server_that_is_not_trusted_gets_nothing() {
    let (bench, before) = issued();
    for action in [
        Action::UntrustedCertificate,
        Action::ExpiredCertificate,
        Action::WrongName,
    ] {
        let seen = bench.est.last_request();
        bench.est.add_fault(Fault::always(action)).unwrap();
        fails(&bench, &before, "trusted_certs in [cert_issuance.est]");
        bench.est.clear_faults();
        assert_eq!(bench.est.last_request(), seen, "nothing was sent");
    }
}

#[test]
fn cs_35_connections_that_break_off() {
    let (bench, before) = issued();
    for action in [
        Action::ResetConnection,
        Action::Reset,
        Action::LoseAnswer,
        Action::Truncate { bytes: 400 },
        Action::Truncate { bytes: 10 },
    ] {
        bench.est.add_fault(Fault::always(action)).unwrap();
        fails(&bench, &before, "!!! caused by: ");
        bench.est.clear_faults();
    }
    bench.est.stop_listening().unwrap();
    fails(&bench, &before, "Connection refused");
    bench.est.listen_again().unwrap();
    bench.created("dev", &request("dev"));
}

#[test]
fn cs_35_a_request_that_waits_for_approval_is_granted_in_time() {
    let bench = Bench::new(&Plan::open());
    with(&bench, |realm| realm.pending = 2);
    assert_eq!(names(&bench.created("dev", &request("dev"))), WHOLE);
    let enrolments = bench
        .routes(0)
        .iter()
        .filter(|route| **route == "est-simpleenroll")
        .count();
    assert_eq!(enrolments, 3);
    bench.assert_no_violations();
}

#[test]
fn cs_35_a_request_that_is_never_approved_ends_at_the_deadline() {
    let (bench, before) = issued();
    with(&bench, |realm| realm.pending = u32::MAX);
    let begin = Instant::now();
    fails(&bench, &before, "202");
    // 60 s, scaled.
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    // The server says when: more than the deadline allows is not waited for.
    with(&bench, |realm| {
        realm.pending = u32::MAX;
        realm.retry_after = Some(86_400);
    });
    fails(&bench, &before, "202");
}

#[test]
fn cs_35_the_certificate_is_kept_when_cacerts_fails() {
    let bench = Bench::new(&Plan::open());
    let trouble = CannedResponse::html(500, "trouble");
    bench
        .est
        .add_fault(Fault::once(Action::Respond(trouble)).on_route("est-cacerts"))
        .unwrap();
    assert_eq!(names(&bench.created("dev", &request("dev"))), ["dev"]);
    assert_eq!(names(&bench.stored("dev").unwrap()), ["dev"]);
}

#[test]
fn slow_answers_arrive() {
    let bench = Bench::new(&Plan::open());
    bench
        .est
        .add_fault(Fault::always(Action::Drip { bytes: 200, ms: 5 }))
        .unwrap();
    assert_eq!(names(&bench.created("dev", &request("dev"))), WHOLE);
}

#[test]
fn a_body_without_end_is_given_up() {
    let (bench, before) = issued();
    let huge = CannedResponse::html(200, &"A".repeat(3 << 20))
        .with_header("content-type", "application/pkcs7-mime");
    bench
        .est
        .add_fault(Fault::once(Action::Respond(huge)).on_route("est-simpleenroll"))
        .unwrap();
    fails(&bench, &before, "!!! caused by: ");
}

#[test]
fn a_server_that_hangs_delays_only_its_own_request() {
    let silent = tempfile::tempdir().unwrap();
    let silent = Simulator::start(Config::new(silent.path())).unwrap();
    silent
        .add_fault(Fault::always(Action::HangConnection))
        .unwrap();
    let plan = Plan {
        tables: format!(
            "[cert_issuance.dev]\nmethod = \"est\"\n[cert_issuance.hangs]\nmethod = \"est\"\nurl = \"{}\"\n",
            silent.est_url(WELL_KNOWN)
        ),
        // Time enough for a busy machine to do all the rest before the deadline.
        launch: |launch| launch.time_scale(0.5),
        ..Plan::open()
    };
    let bench = Bench::new(&plan);
    bench.import("there", "some text");
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| bench.create("hangs", &request("hangs"))))
            .collect();
        client::eventually("they hang", || silent.connection_counts().0 >= 2);
        let path = format!("/certificates/there?{VERSION}");
        assert_eq!(client::get(bench.certd.socket(), &path).status, 200);
        bench.import("there", "other text");
        bench.import("hangs", "may be written meanwhile");
        assert_eq!(names(&bench.created("dev", &request("dev"))), WHOLE);
        assert!(
            hanging.iter().all(|one| !one.is_finished()),
            "all of this was done while they hang"
        );
        for one in hanging {
            one.join().unwrap().assert_message(500, "internal error");
        }
    });
}
