//! Which hosts are reached without the proxy.

use core::net::IpAddr;

use super::Authority;

/// The value of `NO_PROXY`: what to reach directly, with commas between.
///
/// Each item is `*` (everything), a host name (which stands for the names below it too, with or without `.` or `*.` in
/// front), an address, or a network in the form `address/bits`; a `:port` restricts it to that port. An IPv6 address with a
/// port is in brackets. Letter case does not count, nor does white space around an item. What is none of these matches
/// nothing.
///
/// ```
/// use aziot_core::uri::{Authority, NoProxy};
///
/// let exempt = NoProxy::new("localhost, .corp.example:8443, 10.0.0.0/8");
/// let covers = |text| exempt.covers(&Authority::parse(text, 443).unwrap());
/// assert!(covers("localhost") && covers("est.corp.example:8443") && covers("10.1.2.3"));
/// assert!(!covers("est.corp.example") && !covers("notcorp.example:8443"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NoProxy<'a>(&'a str);

impl<'a> NoProxy<'a> {
    /// Takes the value as it is; it is read whenever it is asked.
    #[must_use]
    pub const fn new(list: &'a str) -> Self {
        Self(list)
    }

    /// Whether this host and port are to be reached directly.
    #[must_use]
    pub fn covers(&self, peer: &Authority<'_>) -> bool {
        let address = peer.host().parse::<IpAddr>().ok();
        self.0.split(',').any(|item| {
            let item = item.trim_ascii();
            if item == "*" {
                return true;
            }
            let (host, port) = split_port(item);
            if port.is_some_and(|port| port.parse() != Ok(peer.port())) {
                return false;
            }
            match address {
                Some(address) => covers_address(host, address),
                None => covers_name(host, peer.host()),
            }
        })
    }
}

/// Host without brackets, and port. The colons of an IPv6 address are none before a port, unless it is in brackets.
fn split_port(item: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = item.strip_prefix('[').and_then(|item| item.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match item.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (item, None),
    }
}

fn covers_address(item: &str, address: IpAddr) -> bool {
    let (network, bits) = match item.split_once('/') {
        Some((network, bits)) => (network, Some(bits)),
        None => (item, None),
    };
    let (Ok(network), Ok(bits)) = (
        network.parse::<IpAddr>(),
        bits.map_or(Ok(u32::MAX), str::parse),
    ) else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = u32::from(network) ^ u32::from(address);
            differing.leading_zeros() >= bits.min(u32::BITS)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = u128::from(network) ^ u128::from(address);
            differing.leading_zeros() >= bits.min(u128::BITS)
        }
        _ => false,
    }
}

fn covers_name(item: &str, host: &str) -> bool {
    let domain = item.strip_prefix("*.").or_else(|| item.strip_prefix('.'));
    let domain = without_root(domain.unwrap_or(item)).as_bytes();
    let host = without_root(host).as_bytes();
    let Some(above) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let (below, end) = host.split_at_checked(above).unwrap_or_default();
    !domain.is_empty() && end.eq_ignore_ascii_case(domain) && matches!(below, [] | [.., b'.'])
}

/// The name without the dot that stands for the root.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(list: &str, peer: &str) -> bool {
        NoProxy::new(list).covers(&Authority::parse(peer, 443).unwrap())
    }

    #[test]
    fn names_stand_for_what_is_below_them() {
        for list in [
            "example.com",
            ".example.com",
            "*.example.com",
            " EXAMPLE.com ",
            "x,example.com",
            "example.com.",
        ] {
            assert!(covers(list, "est.example.com"), "{list}");
            assert!(covers(list, "example.com:8443"), "{list}");
            assert!(covers(list, "a.b.Example.COM."), "{list}");
            assert!(!covers(list, "notexample.com"), "{list}");
            assert!(!covers(list, "example.com.evil"), "{list}");
            assert!(!covers(list, "com"), "{list}");
        }
        assert!(covers("*", "anything") && covers("a, *", "[::1]"));
        for nothing in ["", ",", ".", "*.", ":", ":443", "/", "[]", "[", "[]:443"] {
            assert!(!covers(nothing, "example.com"), "{nothing}");
            assert!(!covers(nothing, "10.0.0.1"), "{nothing}");
        }
    }

    #[test]
    fn ports_restrict() {
        assert!(covers("example.com:443", "example.com"));
        assert!(!covers("example.com:443", "example.com:8443"));
        assert!(!covers("example.com:x", "example.com"));
        assert!(!covers("example.com:", "example.com"));
        assert!(covers("[::1]:8443", "[::1]:8443"));
        assert!(!covers("[::1]:8443", "[::1]"));
        assert!(covers("10.0.0.1:443", "10.0.0.1") && !covers("10.0.0.1:80", "10.0.0.1"));
    }

    #[test]
    fn addresses_and_networks() {
        assert!(covers("127.0.0.1", "127.0.0.1") && !covers("127.0.0.1", "127.0.0.2"));
        assert!(covers("10.0.0.0/8", "10.255.0.1") && !covers("10.0.0.0/8", "11.0.0.1"));
        assert!(covers("0.0.0.0/0", "8.8.8.8") && !covers("0.0.0.0/0", "[::1]"));
        assert!(
            covers("192.168.1.5/32", "192.168.1.5") && !covers("192.168.1.4/32", "192.168.1.5")
        );
        assert!(covers("fd00::/8", "[fd12::1]") && !covers("fd00::/8", "[fe80::1]"));
        assert!(covers("::1", "[::1]") && covers("[::1]", "[0:0::1]"));
        assert!(!covers("10.0.0.0/x", "10.0.0.0") && !covers("10.0.0.0/", "10.0.0.0"));
        // An address is not a name.
        assert!(!covers("0.1", "127.0.0.1"));
        assert!(!covers("10.0.0.0/8", "ten.example"));
    }

    proptest! {
        #[test]
        fn any_list_is_read(list in any::<String>(), items in "[a-z0-9.:*/\\[\\], ]{0,40}") {
            for list in [list, items] {
                for peer in ["example.com", "10.0.0.1", "[::1]:1"] {
                    let _ = covers(&list, peer);
                }
            }
        }
    }
}
