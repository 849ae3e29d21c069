//! By way of a proxy.

use aziot_tests::http_proxy::Proxy;
use aziot_tests::simulator::est::Realm;

use crate::device::{Bench, Plan, names, request};

/// `us er` and `pä:s%s`.
const CREDENTIALS: &str = "us%20er:p%C3%A4:s%25s";
const HEADER: &str = "Basic dXMgZXI6cMOkOnMlcw==";

fn through(proxy: String) -> Plan {
    Plan {
        envs: vec![("HTTPS_PROXY", proxy), ("NO_PROXY", String::new())],
        ..Plan::open()
    }
}

#[test]
fn cs_40_a_tunnel_for_https_with_credentials_for_the_proxy_alone() {
    let proxy = Proxy::start(Some(HEADER)).unwrap();
    let url = format!("http://{CREDENTIALS}@localhost:{}", proxy.port());
    let bench = Bench::new(&through(url));
    assert_eq!(names(&bench.created("dev", &request("dev"))).len(), 3);
    let requests = proxy.requests();
    assert!(!requests.is_empty());
    let destination = format!("localhost:{}", bench.est.port());
    for request in &requests {
        assert_eq!(
            (request.method.as_str(), &request.target),
            ("CONNECT", &destination)
        );
        assert_eq!(request.header("host"), Some(destination.as_str()));
        assert_eq!(
            request.header("authorization"),
            None,
            "the proxy is not the server"
        );
    }
    let log = bench.certd.log().text();
    assert!(log.contains("Detected HTTPS proxy server http://"), "{log}");
    assert!(log.contains("******"), "{log}");
    assert!(!log.contains("C3%A4") && !log.contains("pä"), "{log}");
    bench.assert_no_violations();
}

#[test]
fn cs_40_wrong_credentials_are_the_proxys_refusal() {
    let proxy = Proxy::start(Some(HEADER)).unwrap();
    let bench = Bench::new(&through(format!("http://localhost:{}", proxy.port())));
    bench.refused("dev", &request("dev"), "407");
    assert_eq!(bench.est.last_request(), 0);
}

#[test]
fn cs_40_hosts_in_no_proxy_are_reached_directly() {
    let proxy = Proxy::start(None).unwrap();
    for list in ["localhost", ".example,localhost", "*"] {
        let plan = Plan {
            envs: vec![
                ("https_proxy", format!("localhost:{}", proxy.port())),
                ("no_proxy", list.to_owned()),
            ],
            ..Plan::open()
        };
        let bench = Bench::new(&plan);
        bench.created("dev", &request("dev"));
        assert!(proxy.requests().is_empty(), "{list}");
    }
}

#[test]
fn cs_40_an_empty_variable_is_none_and_a_missing_scheme_is_http() {
    let bench = Bench::new(&through(String::new()));
    bench.created("dev", &request("dev"));
    let proxy = Proxy::start(None).unwrap();
    let bench = Bench::new(&through(format!("localhost:{}", proxy.port())));
    bench.created("dev", &request("dev"));
    assert!(!proxy.requests().is_empty());
}

#[test]
fn cs_40_a_proxy_that_nobody_runs_is_named() {
    let port = Proxy::start(None).unwrap().port();
    let bench = Bench::new(&Plan {
        realm: Realm::default(),
        ..through(format!("http://localhost:{port}"))
    });
    bench.refused("dev", &request("dev"), &format!("localhost:{port}"));
}
