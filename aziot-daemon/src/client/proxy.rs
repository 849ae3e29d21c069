//! The proxy on the way to the cloud.

use std::env;
use std::ffi::OsString;
use std::fmt;

use aziot_core::base64;
use aziot_core::percent::{self, Plus};
use aziot_core::uri::{Authority, NoProxy, Url, UrlError};
use zeroize::Zeroizing;

/// Which proxy to use, and for whom. The environment is the process's, so this is read once.
#[derive(Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    exempt: String,
}

/// A proxy for HTTP.
pub(super) struct Proxy {
    /// Whether TLS is made to the proxy itself.
    pub(super) tls: bool,
    /// Host and port.
    pub(super) authority: String,
    /// The value of `proxy-authorization`.
    pub(super) authorization: Option<Zeroizing<String>>,
    /// What messages and logs call it.
    shown: String,
}

impl Proxies {
    /// Straight to everybody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What `HTTPS_PROXY`, else `https_proxy`, and `NO_PROXY`, else `no_proxy`, say. A value that is empty or not UTF-8
    /// counts as none.
    ///
    /// # Errors
    /// The value is not a URL of a proxy.
    pub fn from_env() -> Result<Self, ProxyError> {
        Self::read(|name| env::var_os(name))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ProxyError> {
        let text = |names: [&str; 2]| {
            names.iter().find_map(|name| {
                let value = variable(name)?.into_string().ok()?;
                Some(value).filter(|value| !value.trim_ascii().is_empty())
            })
        };
        let proxy = match text(["HTTPS_PROXY", "https_proxy"]) {
            Some(value) => Some(Proxy::parse(&Zeroizing::new(value))?),
            None => None,
        };
        Ok(Self {
            proxy,
            exempt: text(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        })
    }

    #[cfg(test)]
    pub(super) fn using(url: &str) -> Self {
        Self {
            proxy: Some(Proxy::parse(url).unwrap()),
            exempt: String::new(),
        }
    }

    /// The proxy's URL for the log, with the password as `******`, if there is a proxy.
    #[must_use]
    pub fn shown(&self) -> Option<&str> {
        self.proxy.as_ref().map(|proxy| proxy.shown.as_str())
    }

    /// The proxy for connections to this peer.
    pub(super) fn proxy_for(&self, peer: &Authority<'_>) -> Option<&Proxy> {
        self.proxy
            .as_ref()
            .filter(|_| !NoProxy::new(&self.exempt).covers(peer))
    }
}

impl Proxy {
    /// Reads a URL, or `host:port`, which means the same with `http://` in front.
    fn parse(value: &str) -> Result<Self, ProxyError> {
        let value = value.trim_ascii();
        let scheme = if value.contains("://") { "" } else { "http://" };
        let text = Zeroizing::new([scheme, value].concat());
        let mut normal = Zeroizing::new(vec![0; text.len() * 3 + 16]);
        let url = Url::parse(&text, &mut normal).map_err(ProxyError::Url)?;
        let (tls, default_port) = match url.scheme() {
            "http" => (false, 80),
            "https" => (true, 443),
            other => return Err(ProxyError::Scheme(other.to_owned())),
        };
        let authority = Authority::parse(url.host_and_port(), default_port)
            .map_err(ProxyError::Url)?
            .to_string();
        let (authorization, masked) = match url.user_info() {
            None => (None, String::new()),
            Some(user_info) => {
                let (user, password, mask) = match user_info.split_once(':') {
                    Some((user, password)) => (user, password, ":******@"),
                    None => (user_info, "", "@"),
                };
                (Some(basic(user, password)), format!("{user}{mask}"))
            }
        };
        let (scheme, place) = (url.scheme(), url.host_and_port());
        let shown = format!("{scheme}://{masked}{place}{}", url.path());
        Ok(Self {
            tls,
            authority,
            authorization,
            shown,
        })
    }
}

/// Credentials as `proxy-authorization` has them (RFC 7617), from what stands percent-encoded in a URL.
fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
    bytes.extend(percent::decode(user, Plus::Plus));
    bytes.push(b':');
    bytes.extend(percent::decode(password, Plus::Plus));
    let mut encoded = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    // There is room for all of it.
    let encoded = base64::encode(&bytes, &mut encoded).unwrap_or_default();
    let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + encoded.len()));
    value.push_str("Basic ");
    value.push_str(encoded);
    value
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.shown)
    }
}

/// Why `HTTPS_PROXY` cannot be used. The text does not show its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// It names a scheme other than `http` and `https`.
    Scheme(String),
    /// It is no URL.
    Url(UrlError),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid proxy uri\ncaused by: ")?;
        match self {
            Self::Scheme(scheme) => write!(f, "unrecognized scheme {scheme:?}")?,
            Self::Url(error) => error.fmt(f)?,
        }
        f.write_str(
            "; set HTTPS_PROXY to http://HOST:PORT or https://HOST:PORT and restart the service",
        )
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn proxy(value: &str) -> Proxy {
        read(&[("HTTPS_PROXY", value)]).unwrap().proxy.unwrap()
    }

    #[test]
    fn hc_07_which_variable_counts() {
        let of = |variables: &[(&str, &str)]| {
            let proxies = read(variables).unwrap();
            proxies.shown().map(ToOwned::to_owned)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HTTPS_PROXY", "")]), None);
        assert_eq!(
            of(&[("http_proxy", "http://p"), ("ALL_PROXY", "http://p")]),
            None
        );
        let both = [
            ("https_proxy", "http://lower"),
            ("HTTPS_PROXY", "http://upper"),
        ];
        assert_eq!(of(&both).as_deref(), Some("http://upper/"));
        assert_eq!(of(&both[..1]).as_deref(), Some("http://lower/"));
        let empty = [("https_proxy", "http://lower"), ("HTTPS_PROXY", " ")];
        assert_eq!(of(&empty).as_deref(), Some("http://lower/"));
    }

    #[test]
    fn cs_40_forms_of_the_url() {
        for (value, tls, authority) in [
            ("http://proxy", false, "proxy:80"),
            ("http://Proxy:3128/path?query", false, "proxy:3128"),
            ("https://proxy", true, "proxy:443"),
            ("proxy:3128", false, "proxy:3128"),
            ("127.0.0.1:3128", false, "127.0.0.1:3128"),
            ("user:pw@proxy:3128", false, "proxy:3128"),
            ("http://[::1]:3128", false, "[::1]:3128"),
        ] {
            let proxy = proxy(value);
            assert_eq!(
                (proxy.tls, proxy.authority.as_str()),
                (tls, authority),
                "{value}"
            );
        }
        for (value, text) in [
            ("socks5://secret@h", "unrecognized scheme \"socks5\""),
            ("http://", "invalid proxy uri"),
            ("http://secret@h:99999", "invalid proxy uri"),
        ] {
            let error = read(&[("HTTPS_PROXY", value)]).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn cs_40_credentials_are_decoded_and_masked() {
        let with = proxy("http://us%2fer:p%40w@proxy:3128");
        assert_eq!(
            with.authorization.as_ref().unwrap().as_str(),
            "Basic dXMvZXI6cEB3"
        );
        assert_eq!(with.shown, "http://us%2fer:******@proxy:3128/");
        assert!(!format!("{with:?}").contains("p%40w"));
        let without = proxy("http://user@proxy");
        // `user:`
        assert_eq!(
            without.authorization.as_ref().unwrap().as_str(),
            "Basic dXNlcjo="
        );
        assert_eq!(without.shown, "http://user@proxy/");
        assert!(proxy("http://proxy").authorization.is_none());
    }

    #[test]
    fn exemptions() {
        let exempt = read(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "direct.example")]).unwrap();
        let peer = |text: &'static str| Authority::parse(text, 443).unwrap();
        assert!(exempt.proxy_for(&peer("other.example")).is_some());
        assert!(exempt.proxy_for(&peer("direct.example")).is_none());
        assert!(Proxies::none().proxy_for(&peer("other.example")).is_none());
    }
}
