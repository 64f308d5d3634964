//! What the keys set: the library's configuration in pieces. A section is part of the configuration only when its main
//! key is set, but its other keys can be set before or without it, and are shown all the same.

use snapshotter::{Config, Content, ContentProvider, Credentials, Dragonfly, PruneRule, Registry};

use super::snapshots::Snapshots;
use super::tenant::Isolation;

/// The pieces.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What has no section, and `[gc]`.
    pub config: Config,
    /// Which snapshots share what they have.
    pub isolation: Isolation,
    /// `[snapshot]`.
    pub snapshot: Snapshots,
    /// `[[prune.rule]]`: what `gc --watch` prunes by.
    pub prune: Vec<PruneRule>,
    /// `[registry]`; its main key is the endpoint.
    pub registry: Registry,
    /// The main key of `[content]`.
    pub provider: Option<ContentProvider>,
    /// Where keys come from, if that was said.
    pub credentials: Option<Credentials>,
    /// The rest of `[content]`.
    pub content: Content,
    /// `[dragonfly]`; its main key is the endpoint.
    pub dragonfly: Dragonfly,
}

impl Draft {
    /// The defaults.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            isolation: Isolation::default(),
            snapshot: Snapshots::default(),
            prune: Vec::new(),
            registry: Registry::new("", ""),
            provider: None,
            credentials: None,
            content: Content::new(ContentProvider::Fs),
            dragonfly: Dragonfly::new(""),
        }
    }

    /// The registry, if there is one.
    pub fn registry(&self) -> Option<&Registry> {
        (!self.registry.endpoint.is_empty()).then_some(&self.registry)
    }

    /// The place of contents, if there is one.
    pub fn content(&self) -> Option<Content> {
        let mut content = self.content.clone();
        content.provider = self.provider?;
        content.credentials = self.credentials.unwrap_or_default();
        Some(content)
    }

    /// Dragonfly's daemon, if there is one.
    pub fn dragonfly(&self) -> Option<&Dragonfly> {
        (!self.dragonfly.endpoint.is_empty()).then_some(&self.dragonfly)
    }

    /// Keys to a bucket were given.
    pub fn has_bucket_keys(&self) -> bool {
        let content = &self.content;
        content.access_key_id.is_some()
            || content.access_key_secret.is_some()
            || content.session_token.is_some()
            || content.credential_path.is_some()
    }

    /// For the library, with the places that snapshots are published to and fetched from.
    pub fn whole(&self) -> Config {
        let mut config = self.config.clone();
        config.registry = self.registry().cloned();
        config.content = self.content();
        config.dragonfly = self.dragonfly().cloned();
        config
    }
}
