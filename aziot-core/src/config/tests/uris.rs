//! URLs and endpoints in settings.

use super::super::url::Url;
use super::*;

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
    use super::super::url::UrlError::*;
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

proptest! {
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
}
