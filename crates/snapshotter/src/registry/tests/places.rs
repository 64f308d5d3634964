//! The implementations, ready for the suite.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::tls_proxy::TlsProxy;

use super::*;

pub(super) const USER: (&str, &str) = ("robot", "correct-horse");

/// A registry and what has to live as long.
pub(super) struct Place {
    pub(super) registry: Arc<dyn MetadataRegistry>,
    _keep: Box<dyn Any + Send>,
}

impl Place {
    fn new(registry: Arc<dyn MetadataRegistry>, keep: impl Any + Send) -> Self {
        let _keep = Box::new(keep);
        Self { registry, _keep }
    }
}

fn server(kind: Kind, configure: impl Fn(Registry, &RegistryServer) -> Registry) -> Option<Place> {
    let server = or_skip(RegistryServer::start(kind))?;
    let config = configure(Registry::new(server.url(), "ns"), &server);
    Some(Place::new(opened(&config), server))
}

pub(super) fn open() -> Option<Place> {
    let kind = Kind {
        delete: true,
        ..Kind::default()
    };
    server(kind, |config, _| config)
}

pub(super) fn htpasswd() -> Option<Place> {
    let kind = Kind {
        user: Some(USER),
        delete: true,
        ..Kind::default()
    };
    server(kind, |config, _| config.credentials(USER.0, USER.1))
}

pub(super) fn private_ca() -> Option<Place> {
    let kind = Kind {
        user: Some(USER),
        tls: true,
        delete: true,
    };
    server(kind, |config, server| {
        config.credentials(USER.0, USER.1).ca_file(server.ca_file())
    })
}

/// What it says of its own address is http, and not to be believed.
pub(super) fn behind_tls() -> Option<Place> {
    let kind = Kind {
        user: Some(USER),
        delete: true,
        ..Kind::default()
    };
    let server = or_skip(RegistryServer::start(kind))?;
    let proxy = or_skip(TlsProxy::before(server.address()))?;
    let config = Registry::new(proxy.url(), "ns").ca_file(proxy.ca_file());
    let config = config.credentials(USER.0, USER.1);
    Some(Place::new(opened(&config), (server, proxy)))
}

pub(super) fn layout() -> Option<Place> {
    let dir = tempfile::tempdir().unwrap();
    Some(Place::new(opened(&layout_config(dir.path())), dir))
}

pub(super) fn layout_config(dir: &Path) -> Registry {
    Registry::new(format!("oci-layout:{}", dir.display()), "ns")
}
