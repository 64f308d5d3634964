//! `WWW-Authenticate` (RFC 9110, 11.6.1): a list of challenges, each a scheme with parameters that are separated by
//! commas as the challenges themselves are. Only Basic and Bearer are of use; others are read and passed over.

use std::str::Chars;

/// One way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// A token server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

/// The challenges that are understood, in their order.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut read: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for element in elements(header) {
        match Element::of(&element) {
            Element::Scheme(scheme, parameter) => {
                read.push((scheme, parameter.into_iter().collect()));
            }
            Element::Parameter(parameter) => {
                if let Some((_, parameters)) = read.last_mut() {
                    parameters.push(parameter);
                }
            }
        }
    }
    read.iter()
        .filter_map(|(scheme, parameters)| challenge(scheme, parameters))
        .collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    let find = |name: &str| {
        let found = parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| find("realm"))
        .flatten()
        .map(|realm| {
            Challenge::Bearer(Bearer {
                realm,
                service: find("service"),
                scope: find("scope"),
            })
        })
}

/// Splits at commas outside of quotes.
fn elements(header: &str) -> Vec<String> {
    let (mut elements, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in header.chars() {
        if c == ',' && !quoted {
            elements.push(String::new());
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        if let Some(last) = elements.last_mut() {
            last.push(c);
        }
    }
    elements
}

enum Element {
    /// A scheme, perhaps with its first parameter.
    Scheme(String, Option<(String, String)>),
    /// A further parameter of the scheme before it.
    Parameter((String, String)),
}

impl Element {
    fn of(element: &str) -> Self {
        let element = element.trim();
        let word = element.find([' ', '\t']).unwrap_or(element.len());
        let (first, rest) = element.split_at(word);
        let rest = rest.trim_start();
        // "key = value", with the spaces that RFC 9110 tolerates, is no scheme.
        if first.contains('=') || rest.starts_with('=') {
            return parameter(element)
                .map_or_else(|| Self::Scheme(String::new(), None), Self::Parameter);
        }
        Self::Scheme(first.to_owned(), parameter(rest))
    }
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => unquote(quoted.chars()),
        None => value.to_owned(),
    };
    Some((key.trim().to_owned(), value))
}

fn unquote(mut chars: Chars<'_>) -> String {
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        })
    }

    #[test]
    fn what_registries_say() {
        let hub = r#"Bearer realm="https://auth.example.com/token",service="r.example.com",scope="repository:a/b:pull,push""#;
        let cases = [
            (
                hub,
                vec![bearer(
                    "https://auth.example.com/token",
                    Some("r.example.com"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="a, b""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"BEARER Realm=http://x , Scope = "s""#,
                vec![bearer("http://x", None, Some("s"))],
            ),
            (
                r#"Negotiate YII=, Basic realm="x", Bearer realm="y\"z",error="e""#,
                vec![Challenge::Basic, bearer("y\"z", None, None)],
            ),
            (
                r#"Digest realm="d", qop="auth", Basic realm="b""#,
                vec![Challenge::Basic],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            ("", vec![]),
            (",,=,", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(header in "[Bbearsic =\",\\\\x]{0,40}") {
            parse(&header);
        }
    }
}
