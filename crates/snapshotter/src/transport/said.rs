//! What servers say, made fit to be shown: one bounded line, with every secret we know of cut out of it, should a server,
//! a daemon or a proxy have sent one back.

use std::fmt;

use super::config::Content;
use crate::words::digest::visible;

/// Shown of what a server says, in characters.
const SHOWN: usize = 240;

/// Cuts out the secrets of a configuration.
#[derive(Clone)]
pub(super) struct Scrub {
    secrets: Vec<String>,
}

impl Scrub {
    pub(super) fn new(content: &Content) -> Self {
        Self {
            secrets: secrets(content),
        }
    }

    pub(super) fn line(&self, message: &str) -> String {
        let mut text = without_signatures(message);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "…");
        }
        let mut line: String = text.chars().take(SHOWN).flat_map(visible).collect();
        if text.chars().nth(SHOWN).is_some() {
            line.push('…');
        }
        line
    }
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub").finish_non_exhaustive()
    }
}

/// Signatures are good for minutes and one request, but nobody else's business: a server that sends a request back shows
/// them in its URL or in a header.
fn without_signatures(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        let found = ["authorization", "signature=", "sig="]
            .iter()
            .filter_map(|name| lower.find(name).map(|at| at + name.len()))
            .min();
        match found {
            // The rest of the line may have more of it: nothing after a signature is worth the risk.
            Some(end) => clean.extend([&line[..end], " …\n"]),
            None => clean.push_str(line),
        }
    }
    clean
}

fn secrets(content: &Content) -> Vec<String> {
    let fields = [
        &content.access_key_id,
        &content.access_key_secret,
        &content.session_token,
        &content.proxy,
    ];
    let mut secrets: Vec<String> = fields.into_iter().flatten().cloned().collect();
    let parts = secrets.clone();
    // The signature of a SAS token, and the user and password of a proxy, may come back without the rest.
    for part in parts.iter().flat_map(|whole| whole.split(['&', '@', '/'])) {
        let value = part.split_once("sig=").map_or(part, |(_, value)| value);
        if value.len() >= 12 || part.contains(':') && value.len() > 4 {
            secrets.push(value.to_owned());
        }
    }
    secrets.retain(|secret| secret.len() > 3 && secret != "http:" && secret != "https:");
    // The longest first, so that what is left of one is not taken for the whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// What a server, or the way to it, had to say.
#[derive(Debug)]
pub(super) struct Said(pub(super) String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => f.write_str("the server did not say why"),
            said => f.write_str(said),
        }
    }
}

impl std::error::Error for Said {}
