//! Logging in: which `Authorization` a request gets, and how a 401 is answered.
//!
//! Tokens are kept a scope until they expire. Credentials go to the registry itself and to the token server it names;
//! to the latter over http only where the registry itself is spoken to over http.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::answer::shown;
use super::challenge::{Bearer, Challenge};
use super::token::TokenServer;
use crate::http::Failure;
use crate::patience::Patience;
use crate::registry::credentials::{Credentials, Source};
use crate::words::digest::excerpt;
use crate::words::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Auth {
    server: TokenServer,
    source: Source,
    /// `host[:port]`, as Docker's configuration knows it.
    host: String,
    secure: bool,
    credentials: OnceCell<Credentials>,
    known: Mutex<Known>,
}

/// What was learned from challenges. Header values are marked sensitive, so that they print as nothing.
#[derive(Debug, Default)]
struct Known {
    basic: Option<HeaderValue>,
    tokens: HashMap<String, Token>,
}

struct Token {
    header: HeaderValue,
    until: Instant,
    /// Where it is got anew.
    bearer: Bearer,
}

/// Where it is got may have a secret in its query.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Token");
        shown.field("header", &self.header);
        shown.field("until", &self.until).finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn new(
        client: reqwest::Client,
        origin: &Url,
        source: Source,
        patience: Patience,
    ) -> Self {
        let host = origin.host_str().unwrap_or_default();
        Self {
            server: TokenServer::new(client, patience),
            source,
            host: match origin.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            secure: origin.scheme() == "https",
            credentials: OnceCell::new(),
            known: Mutex::default(),
        }
    }

    /// The header that is known to serve a scope.
    pub(super) fn known(&self, scope: &str) -> Option<HeaderValue> {
        let known = self.lock();
        let token = known.tokens.get(scope);
        token
            .filter(|token| token.until > Instant::now())
            .map(|token| token.header.clone())
            .or_else(|| known.basic.clone())
    }

    /// The same for a request that has no second try after a 401: a token that has expired is got anew.
    pub(super) async fn renewed(&self, scope: &str) -> Result<Option<HeaderValue>, Failure> {
        match self.expired(scope) {
            Some(bearer) => self.token(&bearer, scope).await.map(Some),
            None => Ok(self.known(scope)),
        }
    }

    fn expired(&self, scope: &str) -> Option<Bearer> {
        let known = self.lock();
        let token = known.tokens.get(scope)?;
        (token.until <= Instant::now()).then(|| token.bearer.clone())
    }

    /// The header that answers a 401; `None` where there is nothing to answer with. Bearer comes first, as a registry
    /// that offers both may take only some users' passwords.
    pub(super) async fn answer(
        &self,
        challenges: &[Challenge],
        scope: &str,
    ) -> Result<Option<HeaderValue>, Failure> {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        if let Some(bearer) = bearer {
            return self.token(bearer, scope).await.map(Some);
        }
        if challenges.contains(&Challenge::Basic) {
            return Ok(self.basic().await?);
        }
        Ok(None)
    }

    async fn basic(&self) -> Result<Option<HeaderValue>> {
        let header = basic_header(self.credentials().await?)?;
        self.lock().basic.clone_from(&header);
        Ok(header)
    }

    async fn token(&self, bearer: &Bearer, scope: &str) -> Result<HeaderValue, Failure> {
        let realm = self.realm(bearer)?;
        let credentials = self.credentials().await?;
        let wanted = bearer.scope.as_deref().unwrap_or(scope);
        let service = bearer.service.as_deref();
        let issued = self
            .server
            .issue(&realm, service, wanted, credentials)
            .await?;
        let token = Token {
            header: sensitive(&format!("Bearer {}", issued.token.expose()))?,
            // A tenth earlier, so that it does not expire on its way.
            until: Instant::now() + issued.valid.mul_f64(0.9),
            bearer: bearer.clone(),
        };
        let header = token.header.clone();
        self.lock().tokens.insert(scope.to_owned(), token);
        Ok(header)
    }

    fn realm(&self, bearer: &Bearer) -> Result<Url> {
        let refuse = |why: &str| {
            let text = format!(
                "cannot log in to {}: its token server \"{}\" {why}",
                self.host,
                Url::parse(&bearer.realm)
                    .map_or_else(|_| excerpt(&bearer.realm), |url| shown(&url))
            );
            Error::new(ErrorKind::PermissionDenied, text)
        };
        let url = Url::parse(&bearer.realm).map_err(|_| refuse("is no URL"))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if !self.secure => Ok(url),
            "http" => Err(refuse("is not reached over https")),
            _ => Err(refuse("is no http URL")),
        }
    }

    /// Found out at the first challenge. A failure is not kept: a person may have unlocked a keychain since.
    async fn credentials(&self) -> Result<&Credentials> {
        self.credentials
            .get_or_try_init(|| self.source.load(&self.host))
            .await
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `Authorization` for a user and password, else nothing.
pub(super) fn basic_header(credentials: &Credentials) -> Result<Option<HeaderValue>> {
    let Credentials::Basic { username, password } = credentials else {
        return Ok(None);
    };
    let encoded = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {encoded}")).map(Some)
}

fn sensitive(value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        let text = "the token server gave a token that cannot be sent";
        Error::new(ErrorKind::PermissionDenied, text)
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::config::Registry;
    use crate::registry::credentials::Helpers;

    fn realm(origin: &str, realm: &str) -> Result<Url> {
        let config = Registry::new(origin, "ns");
        let source = Source::new(&config, Helpers::default());
        let origin = origin.parse().unwrap();
        let auth = Auth::new(
            super::super::http::client(&config).unwrap(),
            &origin,
            source,
            config.patience(Duration::MAX),
        );
        auth.realm(&Bearer {
            realm: realm.into(),
            ..Bearer::default()
        })
    }

    #[test]
    fn a_token_server_is_reached_over_https_unless_the_registry_is_not() {
        for (origin, token_server) in [
            ("https://r", "https://auth/token"),
            ("http://r", "https://auth/token"),
            ("http://r", "http://auth/token"),
        ] {
            realm(origin, token_server).unwrap();
        }
        let error = realm("https://r", "http://u:hunter2@auth/token?x=hunter2").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "cannot log in to r: its token server \"http://auth/token\" is not reached over https"
        );
    }
}
