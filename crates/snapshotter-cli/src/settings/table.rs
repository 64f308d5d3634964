//! The table of keys: the library's configuration fields under the names it gives them, and the command's own defaults of
//! snapshots.

use super::field::Field;
use super::keys::{Key, key};
use super::value::{Shape, Value};

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
        "isolation",
        Isolation,
        isolation,
        "\"none\", or \"name\": snapshots whose names differ in the first component share nothing."
    ),
    key!(
        "limit_upload",
        Bytes,
        config.limit_upload,
        "How many bytes of contents a second are sent at most: \"10MiB\"."
    ),
    key!(
        "limit_download",
        Bytes,
        config.limit_download,
        "How many are fetched at most."
    ),
    key!(
        "cache.max_bytes",
        Bytes,
        config.cache.max_bytes,
        "What whole files may take that restores of format v2 are made from, \"20GiB\" for one. 0: there are none."
    ),
    key!(
        "cache.keep",
        Count,
        config.cache.keep,
        "How many of them there are of each path of a name, the newest. 0: there are none."
    ),
    key!(
        "cache.copies",
        Switch,
        config.cache.copies,
        "Keeps files to copy from where the filesystem does not clone: each is on the disk twice."
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
        "registry.chunk_bytes",
        Bytes,
        registry.chunk_bytes,
        "How many bytes of an upload one request may have, for proxies that limit requests; all of them where it is not set."
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
        "content.server_side_encryption",
        Text,
        content.server_side_encryption,
        "How S3 encrypts what is written: AES256, aws:kms or aws:kms:dsse; else as the bucket says."
    ),
    key!(
        "content.kms_key_id",
        Text,
        content.kms_key_id,
        "The key for aws:kms; else the account's own."
    ),
    key!(
        "content.storage_class",
        Text,
        content.storage_class,
        "The S3 storage class of what is written; not GLACIER or DEEP_ARCHIVE, which cannot be read at once."
    ),
    key!(
        "content.prefix",
        Text,
        content.prefix,
        "What the names of all objects in the bucket begin with, \"tenants/a\" for one. The Go library knows none."
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
    key!(
        "snapshot.format",
        Format,
        snapshot.format,
        "How snapshots are kept: \"v1\", or \"v2\", in pages that are stored once in a line of snapshots."
    ),
    key!(
        "snapshot.parent",
        Parent,
        snapshot.parent,
        "What one of format v2 is compared with: \"origin\" (what the directory came from), \"latest\" (of its name) or \"none\"."
    ),
    key!(
        "snapshot.compression",
        Compression,
        snapshot.compression,
        "How pages of format v2 are compressed: \"none\", or \"zstd:\" and a level from 1 to 19."
    ),
    key!(
        "snapshot.frame_pages",
        FramePages,
        snapshot.frame_pages,
        "How many pages of format v2 are compressed together: 16, or 4 for packs that are to be read a page here and a page there."
    ),
    key!(
        "snapshot.index_bytes",
        Bytes,
        snapshot.index_bytes,
        "Memory for finding pages again that moved, 26 bytes a page; beyond it they are stored again."
    ),
    key!(
        "prune.rule",
        Rules,
        prune,
        "What gc --watch prunes by, here: names, keep_last, keep_within and others, as the flags of snapshotter prune. The first that has a name counts for it."
    ),
];
