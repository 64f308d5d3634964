//! The token server: changes a user's credentials for a token of one scope, as the distribution project specifies it.
//! GET with Basic for users and passwords and for nobody, POST (OAuth 2) for refresh tokens.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::answer::{Answer, failure_of, stuck_at};
use super::auth::basic_header;
use crate::http::Failure;
use crate::patience::{Patience, Progress};
use crate::registry::credentials::Credentials;
use crate::registry::secret::Secret;
use crate::words::error::{ErrorKind, Result};

const MAX_BYTES: u64 = 1 << 20;
const CLIENT: &str = "snapshotter";
const DOING: &str = "get a token";

#[derive(Debug)]
pub(super) struct TokenServer {
    client: reqwest::Client,
    patience: Patience,
}

/// A token and how long it is good for.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) token: Secret,
    pub(super) valid: Duration,
}

#[derive(Deserialize)]
struct Answered {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds; what is no such number is as good as nothing.
    expires_in: Option<serde_json::Value>,
}

impl TokenServer {
    pub(super) fn new(client: reqwest::Client, patience: Patience) -> Self {
        Self { client, patience }
    }

    pub(super) async fn issue(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        credentials: &Credentials,
    ) -> Result<Issued, Failure> {
        let request = match credentials {
            Credentials::Identity(token) => self.by_refresh_token(realm, service, scope, token),
            credentials => self.by_password(realm, service, scope, credentials)?,
        };
        let progress = Progress::outgoing(self.patience);
        let response = match progress.watch(request.send()).await {
            Ok(result) => result.map_err(|error| failure_of(DOING, realm, None, error))?,
            Err(stuck) => return Err(stuck_at(DOING, realm, stuck)),
        };
        let answer = Answer::new(response, realm.clone(), DOING, self.patience);
        read(answer.check().await?).await
    }

    fn by_password(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        credentials: &Credentials,
    ) -> Result<reqwest::RequestBuilder> {
        let mut url = realm.clone();
        query(&mut url, service, scope);
        if let Credentials::Basic { username, .. } = credentials {
            url.query_pairs_mut().append_pair("account", username);
        }
        let request = self.client.request(Method::GET, url);
        Ok(match basic_header(credentials)? {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        })
    }

    fn by_refresh_token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        token: &Secret,
    ) -> reqwest::RequestBuilder {
        // A URL's query and a form are encoded alike.
        let mut form = realm.clone();
        form.set_query(None);
        query(&mut form, service, scope);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT)
            .append_pair("refresh_token", token.expose());
        let body = Bytes::copy_from_slice(form.query().unwrap_or_default().as_bytes());
        self.client
            .request(Method::POST, realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
    }
}

fn query(url: &mut Url, service: Option<&str>, scope: &str) {
    let mut pairs = url.query_pairs_mut();
    if let Some(service) = service {
        pairs.append_pair("service", service);
    }
    for scope in scope.split(' ') {
        pairs.append_pair("scope", scope);
    }
}

async fn read(mut answer: Answer) -> Result<Issued, Failure> {
    answer.collect(MAX_BYTES).await?;
    if !answer.status().is_success() {
        // 400 is OAuth's answer to a refresh token that is no good; whatever it is, there is no token.
        let error = answer.error(
            ErrorKind::PermissionDenied,
            &format!("the token server answered {}", answer.status()),
        );
        return Err(error.into());
    }
    let malformed = || answer.error(ErrorKind::PermissionDenied, "the answer holds no token");
    let answered: Answered = serde_json::from_slice(answer.body()).map_err(|_| malformed())?;
    let tokens = [answered.token, answered.access_token];
    let mut tokens = tokens.into_iter().flatten();
    let token = tokens.find(|token| !token.is_empty());
    Ok(Issued {
        token: Secret::new(token.ok_or_else(malformed)?),
        valid: valid(answered.expires_in.as_ref()),
    })
}

/// A minute is what the specification says of answers that do not say it; a day is long enough. A token that is good for no
/// time is good for the request it was got for.
fn valid(said: Option<&serde_json::Value>) -> Duration {
    let seconds = said.and_then(|said| match said.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => said.as_f64(),
    });
    let seconds = seconds.filter(|seconds: &f64| !seconds.is_nan());
    Duration::from_secs_f64(seconds.unwrap_or(60.0).clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_however_they_are_written() {
        for (said, seconds) in [
            (json!(300), 300.0),
            (json!(0), 0.0),
            (json!(-5), 0.0),
            (json!(59.5), 59.5),
            (json!(1e300), 86_400.0),
            (json!("300"), 300.0),
            (json!(" 300.5 "), 300.5),
            (json!("NaN"), 60.0),
            (json!("soon"), 60.0),
            (json!([1]), 60.0),
            (json!(null), 60.0),
        ] {
            let valid = valid(Some(&said));
            assert_eq!(valid, Duration::from_secs_f64(seconds), "{said}");
        }
        assert_eq!(valid(None), Duration::from_secs(60));
    }
}
