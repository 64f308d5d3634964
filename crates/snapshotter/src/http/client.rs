//! The client: rustls with ring, the system's certificates and the configured ones, no environment.
//!
//! Redirects are not followed: a server must not send us to another with what is meant for it. Whoever may follow one does so
//! by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Proxy, redirect, retry};

use crate::threads::Names;
use crate::tls;
use crate::words::error::{Error, ErrorKind, Result};

/// What a configuration says of connections.
pub(crate) struct Settings<'a> {
    /// Where it is from, for errors: `registry`.
    pub(crate) section: &'static str,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) insecure: bool,
    pub(crate) proxy: Option<&'a str>,
    pub(crate) connect_timeout: Duration,
}

/// Makes a client, `adapted` by whoever wants it otherwise.
pub(crate) fn client(
    settings: &Settings<'_>,
    adapted: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client> {
    let section = settings.section;
    let mut builder = Client::builder()
        .user_agent(concat!("snapshotter/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(Names))
        .connect_timeout(settings.connect_timeout)
        .tls_backend_preconfigured(tls::client(section, settings.ca_file, settings.insecure)?);
    if let Some(proxy) = settings.proxy {
        // The cause would show the URL, which may hold a password.
        let proxy = Proxy::all(proxy)
            .map_err(|_| Error::invalid(format!("{section}.proxy is not a usable URL")))?;
        builder = builder.proxy(proxy);
    }
    adapted(builder).build().map_err(|error| {
        Error::new(ErrorKind::Internal, "cannot set up an HTTP client").with_source(error)
    })
}
