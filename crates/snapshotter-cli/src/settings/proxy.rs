//! Which proxy the environment names for an address, as curl and Go read it:
//!
//! * `https_proxy` for https and `http_proxy` for http, then `all_proxy`; each in lower case, else in capitals. A value
//!   without a scheme means http. `HTTP_PROXY` is not read by a CGI program, where anybody can set it with a header.
//! * `no_proxy` is a list with commas of what is reached directly: `*` for everything, an address, a network
//!   (`10.0.0.0/8`), a host's name, which means everything below it too and may begin with a dot; each perhaps with a port.
//! * This machine itself (`localhost` and the loopback addresses) is always reached directly.

use std::net::IpAddr;

/// The variable that names the proxy for this address, and the proxy.
pub(super) fn of(
    url: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let target = Target::of(url)?;
    let exceptions = ["no_proxy", "NO_PROXY"]
        .iter()
        .find_map(|name| variable(name));
    if target.is_here() || exceptions.is_some_and(|list| target.is_listed(&list)) {
        return None;
    }
    let names: &[&str] = match (target.https, variable("REQUEST_METHOD")) {
        (true, _) => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        (false, None) => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
        (false, Some(_)) => &["http_proxy", "all_proxy", "ALL_PROXY"],
    };
    let (name, proxy) = names
        .iter()
        .find_map(|name| Some((*name, variable(name)?)))?;
    let proxy = proxy.trim();
    if proxy.contains("://") {
        Some((name, proxy.to_owned()))
    } else {
        Some((name, format!("http://{proxy}")))
    }
}

/// Where a request goes.
struct Target {
    https: bool,
    /// In lower case; of an address in version 6 without its brackets.
    host: String,
    port: u16,
}

impl Target {
    fn of(url: &str) -> Option<Self> {
        let (https, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme.eq_ignore_ascii_case("https"), rest),
            None => (true, url),
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (_, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = split_port(place);
        let usual = if https { 443 } else { 80 };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        (!host.is_empty()).then_some(Self {
            https,
            host,
            port: port.unwrap_or(usual),
        })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn is_here(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    fn is_listed(&self, list: &str) -> bool {
        list.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .any(|entry| entry == "*" || self.is_network(entry) || self.is_host(entry))
    }

    fn is_network(&self, entry: &str) -> bool {
        let (Some(address), Some((network, bits))) = (self.address(), entry.split_once('/')) else {
            return false;
        };
        let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
            return false;
        };
        match (address, network) {
            (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => {
                same(a.to_bits().into(), b.to_bits().into(), 32 - bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => {
                same(a.to_bits(), b.to_bits(), 128 - bits)
            }
            _ => false,
        }
    }

    fn is_host(&self, entry: &str) -> bool {
        let (name, port) = split_port(entry);
        if port.is_some_and(|port| port != self.port) {
            return false;
        }
        if let Some(address) = self.address() {
            return name.parse() == Ok(address);
        }
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let above = self.host.strip_suffix(name.as_str());
        !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

/// Whether two numbers are the same but for their lowest bits.
fn same(a: u128, b: u128, but: u32) -> bool {
    (a ^ b).checked_shr(but).unwrap_or(0) == 0
}

/// `host:port`, `[::1]:port`, `::1` or a host alone.
fn split_port(place: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (
            host,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (host, None),
        },
        _ => (place, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let set = variables.iter().find(|(other, _)| *other == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        of(url, &variable).map(|(name, proxy)| format!("{name} {proxy}"))
    }

    #[test]
    fn the_scheme_chooses_the_variable_and_lower_case_wins() {
        let all = [
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "h:2"),
            ("HTTP_PROXY", "never"),
            ("ALL_PROXY", "http://a:3"),
        ];
        for (url, expected) in [
            ("https://r.example", "HTTPS_PROXY http://s:1"),
            ("r.example:5000", "HTTPS_PROXY http://s:1"),
            ("http://r.example/x", "http_proxy http://h:2"),
        ] {
            assert_eq!(proxy(url, &all).as_deref(), Some(expected), "{url}");
        }
        let only = |name| proxy("http://r.example", &[(name, "p:1")]);
        assert_eq!(only("all_proxy").as_deref(), Some("all_proxy http://p:1"));
        assert_eq!(only("HTTP_PROXY").as_deref(), Some("HTTP_PROXY http://p:1"));
        assert_eq!(only("HTTPS_PROXY"), None);
        let cgi = [("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(proxy("http://r.example", &cgi), None);
    }

    #[test]
    fn exceptions_are_hosts_networks_and_everything() {
        let is_direct = |url: &str, list: &str| {
            let variables = [("ALL_PROXY", "p:1"), ("NO_PROXY", list)];
            proxy(url, &variables).is_none()
        };
        for (url, list) in [
            ("https://r.example", "*"),
            ("https://r.example", "x, r.example"),
            ("https://R.example.", "EXAMPLE"),
            ("https://a.r.example", "r.example"),
            ("https://a.r.example", ".r.example"),
            ("https://r.example", ".r.example"),
            ("https://a.r.example", "*.r.example"),
            ("https://r.example:5000", "r.example:5000"),
            ("https://r.example", "r.example:443"),
            ("http://10.1.2.3:5000", "10.0.0.0/8"),
            ("http://10.1.2.3:5000", "10.1.2.3"),
            ("http://[fd00::1]:5000", "fd00::/8"),
            ("http://[fd00::1]", "fd00::1"),
            ("http://10.1.2.3", "0.0.0.0/0"),
        ] {
            assert!(is_direct(url, list), "{url} {list}");
        }
        for (url, list) in [
            ("https://r.example", ""),
            ("https://r.example", ",,"),
            ("https://ar.example", "r.example"),
            ("https://r.example", "a.r.example"),
            ("https://r.example", "r.example:5000"),
            ("http://11.1.2.3", "10.0.0.0/8"),
            ("http://11.1.2.3", "10.0.0.0/99"),
            ("http://10.1.2.3", "2.3"),
            ("https://10.example", "10.0.0.0/8"),
        ] {
            assert!(!is_direct(url, list), "{url} {list}");
        }
    }

    #[test]
    fn this_machine_is_reached_directly() {
        for url in [
            "http://localhost:5000",
            "http://127.0.0.1:5000",
            "https://[::1]",
            "",
            "https://",
        ] {
            assert_eq!(proxy(url, &[("ALL_PROXY", "p:1")]), None, "{url}");
        }
    }
}
