//! The HTTP client: rustls with ring, the system's certificates and the configured ones, no environment.
//!
//! Redirects are not followed: a signature is made for one host, and a server must not send us to another.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Proxy, redirect};

use crate::threads::Names;
use crate::tls;
use crate::transport::config::Content;
use crate::words::error::{Error, ErrorKind, Result};

const AGENT: &str = concat!("snapshotter/", env!("CARGO_PKG_VERSION"));

/// A connection that is not there by then will not be.
const CONNECT: Duration = Duration::from_secs(15);

pub(super) fn new(content: &Content) -> Result<Client> {
    let tls = tls::client(
        "content",
        content.ca_file.as_deref(),
        content.insecure_skip_verify,
    )?;
    let mut builder = Client::builder()
        .user_agent(AGENT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(Names))
        .http1_only()
        .connect_timeout(content.timeout.min(CONNECT))
        .tls_backend_preconfigured(tls);
    if let Some(proxy) = &content.proxy {
        // The cause would show the URL, which may hold a password.
        let proxy =
            Proxy::all(proxy).map_err(|_| Error::invalid("content.proxy is not a usable URL"))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| {
        Error::new(ErrorKind::Internal, "cannot set up an HTTP client").with_source(error)
    })
}
