-- The catalog, schema version 3; where snapshots are besides here is in places.rs. Times are nanoseconds since 1970 UTC unless a column says otherwise.

-- A file's bytes in the store. A row always has a file under storage/content/blake3 unless it is marked missing.
CREATE TABLE blobs (
    id                INTEGER PRIMARY KEY,
    checksum          BLOB    NOT NULL UNIQUE CHECK (length(checksum) = 32), -- BLAKE3 of the SPF1 stream
    digest            INTEGER NOT NULL,                -- XXH3-64 of the same stream, its bits as a signed integer
    form              INTEGER NOT NULL DEFAULT 0 CHECK (form IN (0, 1)),     -- 0 plain (sparse file), 1 packed (SPF1)
    state             INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)), -- 0 good, 1 damaged, 2 missing
    size              INTEGER NOT NULL,                -- logical bytes
    data_size         INTEGER NOT NULL,                -- bytes inside the extents
    mtime_seconds     INTEGER,                         -- the inode's, as recorded; NULL: not to be trusted
    mtime_nanoseconds INTEGER,
    inode             INTEGER,                         -- its number, its bits as a signed integer; NULL: not known
    unsynced          TEXT,                            -- the boot under which it was written, until it is synced
    sha256            BLOB,                            -- of the SPF1 stream, once known: a registry layer's digest
    probe             BLOB,                            -- BLAKE3 of size, extents and 64 spread pages; large blobs only
    created_at        INTEGER NOT NULL,
    extents           BLOB    NOT NULL                 -- delta-coded map
) STRICT;
CREATE INDEX blobs_by_digest ON blobs (digest);
CREATE INDEX blobs_by_probe ON blobs (probe) WHERE probe IS NOT NULL;
CREATE INDEX blobs_unsynced ON blobs (id) WHERE unsynced IS NOT NULL;

-- A further inode with a blob's bytes and one set of attributes: what read-only restores are hardlinks to.
CREATE TABLE views (
    blob       INTEGER NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
    attributes BLOB    NOT NULL CHECK (length(attributes) = 16),             -- fingerprint of the attributes
    mtime_seconds     INTEGER NOT NULL,                -- the inode's, when its bytes were right
    mtime_nanoseconds INTEGER NOT NULL,
    inode      INTEGER NOT NULL,                       -- its number, its bits as a signed integer
    boot       TEXT    NOT NULL,                       -- a view is never synced, so it counts under this boot only
    PRIMARY KEY (blob, attributes)
) STRICT, WITHOUT ROWID;

-- A snapshot, or one being made or fetched (pending), or one removed while somebody still restores it.
CREATE TABLE snapshots (
    id               INTEGER PRIMARY KEY,
    name             TEXT    NOT NULL,
    version          TEXT    NOT NULL,
    state            INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)),  -- pending, taken here, as 1, fetched
    removed          INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    pinned           INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    manifest_digest  BLOB,                             -- sha256; NULL while pending
    created_at       INTEGER NOT NULL,
    last_accessed_at INTEGER NOT NULL,
    files            INTEGER NOT NULL DEFAULT 0,       -- regular entries
    logical_bytes    INTEGER NOT NULL DEFAULT 0,
    data_bytes       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX snapshots_by_name ON snapshots (name, version) WHERE state > 0 AND removed = 0;
CREATE INDEX snapshots_by_access ON snapshots (last_accessed_at) WHERE state > 0 AND removed = 0;

-- The document and the manifest, byte for byte.
CREATE TABLE artifacts (
    snapshot INTEGER PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,
    manifest BLOB NOT NULL,
    document BLOB NOT NULL
) STRICT;

-- Which blobs a snapshot needs. A blob's row lives exactly as long as it has a row here.
CREATE TABLE blob_references (
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    blob     INTEGER NOT NULL REFERENCES blobs (id),
    PRIMARY KEY (snapshot, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_references_by_blob ON blob_references (blob);

-- What a live owner relies on. A snapshot that is pending or removed lives exactly as long as it has a row here.
CREATE TABLE leases (
    owner     TEXT    NOT NULL,
    operation INTEGER NOT NULL,
    snapshot  INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, operation, snapshot)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_snapshot ON leases (snapshot);
