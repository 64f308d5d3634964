//! The table of keys: the library's configuration fields under the names it gives them, with how a value is read from
//! text and written back. Configuration files, variables, `config` and its defaults all come from here.

use std::ffi::OsStr;

use super::draft::Draft;
use super::field::Field;
use super::value::{Shape, Value};

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// `gc.interval`.
    pub name: &'static str,
    /// What it is, for a comment.
    pub what: &'static str,
    /// What its values look like.
    pub shape: Shape,
    /// Its value.
    pub get: fn(&Draft) -> Value,
    /// Sets it; the value has the shape.
    pub set: fn(&mut Draft, Value),
}

macro_rules! key {
    ($name:literal, $shape:ident, $($field:ident).+, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            shape: Shape::$shape,
            get: |draft| Value::$shape(Field::get(&draft.$($field).+)),
            set: |draft, value| {
                if let Value::$shape(value) = value {
                    Field::set(&mut draft.$($field).+, value);
                }
            },
        }
    };
}

/// All keys, in the order they are shown.
pub const KEYS: &[Key] = &[
    key!(
        "root_dir",
        Path,
        config.root_dir,
        "Where snapshots are kept. An absolute path on a local filesystem."
    ),
    key!(
        "snapshot_concurrency",
        Count,
        config.snapshot_concurrency,
        "How many files snapshots work on at once, on each filesystem, and how many are sent at once."
    ),
    key!(
        "restore_concurrency",
        Count,
        config.restore_concurrency,
        "How many files restores and verifications work on at once, on each filesystem, and how many are fetched at once."
    ),
    key!(
        "durability",
        Durability,
        config.durability,
        "\"full\": a snapshot that is reported has reached the disk, or is published. \"background\": it will."
    ),
    key!(
        "busy_timeout",
        Duration,
        config.busy_timeout,
        "How long to wait for another process that holds the catalog."
    ),
    key!(
        "relaxed_times",
        Switch,
        config.relaxed_times,
        "Lets read-only restores that differ in the modification time alone share one inode."
    ),
    key!(
        "gc.interval",
        Duration,
        config.gc.interval,
        "Time between two looks at the disk, of gc --watch and of agents."
    ),
    key!(
        "gc.disk_high_threshold_percent",
        Percent,
        config.gc.disk_high_threshold_percent,
        "Collection starts when the filesystem is this full."
    ),
    key!(
        "gc.disk_low_threshold_percent",
        Percent,
        config.gc.disk_low_threshold_percent,
        "Collection stops when it is no fuller than this."
    ),
    key!(
        "gc.max_bytes",
        Bytes,
        config.gc.max_bytes,
        "What the store may hold, \"100GiB\" for one. Collection frees what is above it."
    ),
    key!(
        "gc.batch_size",
        Count,
        config.gc.batch_size,
        "Snapshots released between two looks at what that was good for."
    ),
    key!(
        "gc.min_retention_period",
        Duration,
        config.gc.min_retention_period,
        "Snapshots used within this time are kept."
    ),
    key!(
        "gc.include_unpublished",
        Switch,
        config.gc.include_unpublished,
        "Lets snapshots go whose only copy is here, and asks nobody."
    ),
    key!(
        "gc.trust_daemon",
        Switch,
        config.gc.trust_daemon,
        "Believes Dragonfly's daemon that the bucket has an object, where the bucket cannot be asked."
    ),
    key!(
        "registry.endpoint",
        Url,
        registry.endpoint,
        "The registry of metadata: https://HOST, http://HOST:PORT, or a directory: oci-layout:/PATH."
    ),
    key!(
        "registry.namespace",
        Text,
        registry.namespace,
        "What all names are put below there."
    ),
    key!(
        "registry.username",
        Text,
        registry.username,
        "The user to log in as."
    ),
    key!(
        "registry.password",
        Secret,
        registry.password,
        "The user's password or token."
    ),
    key!(
        "registry.insecure",
        Switch,
        registry.insecure,
        "Accepts any certificate. ca_file is better."
    ),
    key!(
        "registry.ca_file",
        File,
        registry.ca_file,
        "A PEM file with authorities to trust beside the system's."
    ),
    key!(
        "registry.docker_config",
        File,
        registry.docker_config,
        "Docker's config.json, for its credentials; else $DOCKER_CONFIG/config.json, else ~/.docker/config.json."
    ),
    key!(
        "registry.proxy",
        Url,
        registry.proxy,
        "http://HOST:PORT; else what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say."
    ),
    key!(
        "registry.timeout",
        Duration,
        registry.timeout,
        "How long a request may make no progress."
    ),
    key!(
        "registry.min_rate",
        Bytes,
        registry.min_rate,
        "How few bytes a second a transfer may move, over a minute of waiting for the registry; \"0B\" is any number."
    ),
    key!(
        "registry.connect_timeout",
        Duration,
        registry.connect_timeout,
        "How long connecting may take."
    ),
    key!(
        "registry.retries",
        Count,
        registry.retries,
        "How often a request is sent again after a failure that may pass."
    ),
    key!(
        "registry.shared_with",
        SharedWith,
        registry.shared_with,
        "Who else may use what is published in a directory: \"nobody\", \"group\" (reads and publishes), or \"everyone\" (reads)."
    ),
    key!(
        "content.provider",
        Provider,
        provider,
        "Where bytes are: s3, oss, gcs, azblob, obs, cos, fs (a directory) or registry (the registry itself)."
    ),
    key!(
        "content.bucket",
        Text,
        content.bucket,
        "The bucket; of azblob, the container."
    ),
    key!(
        "content.region",
        Text,
        content.region,
        "The region of an S3 bucket."
    ),
    key!(
        "content.endpoint",
        Url,
        content.endpoint,
        "Scheme, host and perhaps port; https where no scheme is given."
    ),
    key!("content.root", File, content.root, "The directory, for fs."),
    key!(
        "content.shared_with",
        SharedWith,
        content.shared_with,
        "Who else may use what is published in a directory, for fs: \"nobody\", \"group\" (reads and publishes), or \"everyone\" (reads)."
    ),
    key!(
        "content.access_key_id",
        Secret,
        content.access_key_id,
        "The public half of the key; of azblob, the account."
    ),
    key!(
        "content.access_key_secret",
        Secret,
        content.access_key_secret,
        "The secret half of the key."
    ),
    key!(
        "content.session_token",
        Secret,
        content.session_token,
        "The token of a temporary key; of azblob, a SAS token."
    ),
    key!(
        "content.credential_path",
        File,
        content.credential_path,
        "The file with a Google service account's key."
    ),
    key!(
        "content.credentials",
        Credentials,
        credentials,
        "\"static\": the keys above alone. \"ambient\": else what the provider's own tools would find. Ambient where no key is set."
    ),
    key!(
        "content.insecure_skip_verify",
        Switch,
        content.insecure_skip_verify,
        "Accepts any certificate. ca_file is better."
    ),
    key!(
        "content.ca_file",
        File,
        content.ca_file,
        "A PEM file with authorities to trust beside the system's."
    ),
    key!(
        "content.proxy",
        Url,
        content.proxy,
        "http://HOST:PORT; else what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say."
    ),
    key!(
        "content.timeout",
        Duration,
        content.timeout,
        "How long a request may make no progress."
    ),
    key!(
        "content.min_rate",
        Bytes,
        content.min_rate,
        "How few bytes a second a transfer may move, over a minute of waiting for the server; \"0B\" is any number."
    ),
    key!(
        "content.retries",
        Count,
        content.retries,
        "How often a request is sent again after a failure that may pass."
    ),
    key!(
        "dragonfly.endpoint",
        Url,
        dragonfly.endpoint,
        "Dragonfly's daemon, in front of a bucket: unix:///var/run/dragonfly/dfdaemon.sock, or https://HOST:PORT."
    ),
    key!(
        "dragonfly.storage_dir",
        File,
        dragonfly.storage_dir,
        "Where the daemon sees the root, if that is elsewhere: it may run in a container."
    ),
    key!(
        "dragonfly.replicas",
        Count,
        dragonfly.replicas,
        "On how many nodes what was published through it is kept."
    ),
    key!(
        "dragonfly.ttl",
        Duration,
        dragonfly.ttl,
        "How long the daemons keep it, 5m to 7d; 0s is as they are configured. The bucket keeps it anyway."
    ),
    key!(
        "dragonfly.persistent",
        Switch,
        dragonfly.persistent,
        "Has this node's daemon keep what it fetches just as long."
    ),
    key!(
        "dragonfly.idle_timeout",
        Duration,
        dragonfly.idle_timeout,
        "How long a download may make no progress."
    ),
    key!(
        "dragonfly.concurrency",
        Count,
        dragonfly.concurrency,
        "How many uploads, and how many downloads, may be under way at once."
    ),
    key!(
        "dragonfly.ca_file",
        File,
        dragonfly.ca_file,
        "A PEM file with authorities to trust beside the system's, for https."
    ),
];

impl Key {
    /// The one that flags set too.
    pub const ROOT: &Self = &KEYS[0];
    /// The one without which `[registry]` means nothing.
    pub const REGISTRY: &Self = &KEYS[14];
    /// The one without which `[content]` means nothing.
    pub const CONTENT: &Self = &KEYS[27];
    /// The one without which `[dragonfly]` means nothing.
    pub const DRAGONFLY: &Self = &KEYS[44];

    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// `SNAPSHOTTER_GC_INTERVAL`.
    pub fn variable(&self) -> String {
        let name = self.name.replace('.', "_").to_uppercase();
        format!("SNAPSHOTTER_{name}")
    }

    /// `registry`, of `registry.endpoint`.
    pub fn section(&self) -> Option<&'static str> {
        self.name.split_once('.').map(|(section, _)| section)
    }

    /// Reads a value from text.
    pub fn parse(&self, text: &OsStr) -> Result<Value, String> {
        match self.shape {
            Shape::Path => return Ok(Value::Path(text.into())),
            Shape::File if !text.is_empty() => return Ok(Value::File(Some(text.into()))),
            _ => {}
        }
        let known = text.to_str().and_then(|text| match self.shape {
            // Whoever chose it may have chosen blanks too.
            Shape::Secret => self.shape.parse(text),
            shape => shape.parse(text.trim()),
        });
        known.ok_or_else(|| {
            self.refuse_as(&format!("{:?}", text.to_string_lossy()), self.shape.rule())
        })
    }

    /// Why a value is not one of this key's. One that may be a secret is not repeated.
    pub fn refuse_as(&self, given: &str, rule: &str) -> String {
        let given = if self.shape.is_secret() {
            "this"
        } else {
            given
        };
        format!("{given} is no value for {}: it should be {rule}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use snapshotter::{Config, ContentProvider, Credentials, Durability, SharedWith};

    use std::time::Duration;

    use super::*;

    fn defaults() -> Draft {
        Draft::new(Config::new("/r"))
    }

    #[test]
    fn keys_that_are_looked_up_by_their_place_are_there() {
        let names = [Key::ROOT, Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY].map(|key| key.name);
        let sections = [
            "registry.endpoint",
            "content.provider",
            "dragonfly.endpoint",
        ];
        assert_eq!((names[0], &names[1..]), ("root_dir", &sections[..]));
    }

    #[test]
    fn every_value_is_read_back_from_how_it_is_shown() {
        for key in KEYS {
            let value = (key.get)(&defaults());
            assert_eq!(key.parse(value.shown().as_ref()), Ok(value), "{}", key.name);
        }
    }

    fn another(shape: Shape) -> Value {
        let text = || Some("other".to_owned());
        match shape {
            Shape::Path => Value::Path("/other".into()),
            Shape::File => Value::File(Some("/other".into())),
            Shape::Text => Value::Text(text()),
            Shape::Url => Value::Url(text()),
            Shape::Secret => Value::Secret(text()),
            Shape::Count => Value::Count(7),
            Shape::Bytes => Value::Bytes(Some(7)),
            Shape::Percent => Value::Percent(7.5),
            Shape::Duration => Value::Duration(Duration::from_secs(7)),
            Shape::Switch => Value::Switch(true),
            Shape::Durability => Value::Durability(Durability::Background),
            Shape::Provider => Value::Provider(Some(ContentProvider::Cos)),
            Shape::Credentials => Value::Credentials(Some(Credentials::Ambient)),
            Shape::SharedWith => Value::SharedWith(SharedWith::Group),
        }
    }

    #[test]
    fn every_key_sets_itself_and_nothing_else() {
        for key in KEYS {
            let mut draft = defaults();
            let other = another(key.shape);
            (key.set)(&mut draft, other.clone());
            for each in KEYS {
                let wanted = if each.name == key.name {
                    other.clone()
                } else {
                    (each.get)(&defaults())
                };
                assert_eq!(
                    (each.get)(&draft),
                    wanted,
                    "{} after {}",
                    each.name,
                    key.name
                );
            }
        }
    }

    #[test]
    fn main_keys_are_where_they_are_looked_for() {
        let main = [Key::ROOT, Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY];
        assert_eq!(
            main.map(|key| key.name),
            [
                "root_dir",
                "registry.endpoint",
                "content.provider",
                "dragonfly.endpoint"
            ]
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"hunter2\xff");
        for key in KEYS.iter().filter(|key| key.shape.is_secret()) {
            let refused = key.parse(bytes).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let secret = |name: &str| Key::named(name).unwrap().shape == Shape::Secret;
        for name in [
            "registry.password",
            "content.access_key_id",
            "content.access_key_secret",
            "content.session_token",
        ] {
            assert!(secret(name), "{name}");
        }
    }
}
