-- The catalog, schema version 4. Times are nanoseconds since 1970 UTC unless a column says otherwise.
-- Ids are never used twice (AUTOINCREMENT). An object's is known inside one transaction only; elsewhere it is its key.

-- What has a name and bytes under storage/. A row lives exactly while a snapshot references it, and always has a file
-- unless it is marked missing.
CREATE TABLE objects (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    key               BLOB    NOT NULL UNIQUE CHECK (length(key) = 32),      -- BLAKE3 of its SPF1 stream; a pack's id
    kind              INTEGER NOT NULL CHECK (kind IN (0, 1, 2)),            -- 0 plain (sparse file), 1 packed (SPF1), 2 pack
    shard             INTEGER,                         -- the directory its names are in; NULL: the one above all shards
    state             INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)), -- 0 good, 1 damaged, 2 missing
    length            INTEGER NOT NULL,                -- of its file, in bytes
    data_size         INTEGER NOT NULL,                -- bytes of data in it, holes excluded
    mtime_seconds     INTEGER,                         -- the inode's, as recorded; NULL: not to be trusted
    mtime_nanoseconds INTEGER,
    inode             INTEGER,                         -- its number, its bits as a signed integer; NULL: not known
    unsynced          TEXT,                            -- the boot under which it was written, until it is synced
    created_at        INTEGER NOT NULL
) STRICT;

-- What a file's bytes are, and the object that has them: in format v1 one of its own, whose key is their checksum. A pack
-- has pages of many files, and no row here: documents of format v2 say which.
CREATE TABLE contents (
    object  INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
    digest  INTEGER NOT NULL,                          -- XXH3-64 of the SPF1 stream, its bits as a signed integer
    size    INTEGER NOT NULL,                          -- logical bytes
    sha256  BLOB,                                      -- of the SPF1 stream, once known: a registry layer's digest
    probe   BLOB,                                      -- BLAKE3 of size, extents and 64 spread pages; large ones only
    extents BLOB    NOT NULL                           -- delta-coded map
) STRICT;
CREATE INDEX contents_by_digest ON contents (digest);
CREATE INDEX contents_by_probe ON contents (probe) WHERE probe IS NOT NULL;

-- A further inode with an object's bytes and one set of attributes: what read-only restores are hardlinks to.
CREATE TABLE views (
    object     INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    attributes BLOB    NOT NULL CHECK (length(attributes) = 16),             -- fingerprint of the attributes
    mtime_seconds     INTEGER NOT NULL,                -- the inode's, when its bytes were right
    mtime_nanoseconds INTEGER NOT NULL,
    inode      INTEGER NOT NULL,                       -- its number, its bits as a signed integer
    boot       TEXT    NOT NULL,                       -- a view is never synced, so it counts under this boot only
    PRIMARY KEY (object, attributes)
) STRICT, WITHOUT ROWID;

-- A snapshot, or one being made or fetched (pending), or one removed while somebody still restores it.
CREATE TABLE snapshots (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT    NOT NULL,
    version          TEXT    NOT NULL,
    state            INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)),  -- pending, taken here, as 1, fetched
    removed          INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    format           INTEGER NOT NULL DEFAULT 1 CHECK (format IN (1, 2)),
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

-- The snapshot that a directory was last restored from or captured as: what the next capture of it starts from. A directory
-- that was made anew has another birth time, or another inode.
CREATE TABLE origins (
    device   INTEGER NOT NULL,                         -- both: their bits as signed integers
    inode    INTEGER NOT NULL,
    born     INTEGER NOT NULL,                         -- the directory's birth time, in nanoseconds since 1970
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    PRIMARY KEY (device, inode)
) STRICT, WITHOUT ROWID;
CREATE INDEX origins_by_snapshot ON origins (snapshot);

-- Which objects a snapshot needs. An object's row lives exactly as long as it has a row here.
CREATE TABLE object_references (
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    object   INTEGER NOT NULL REFERENCES objects (id),
    PRIMARY KEY (snapshot, object)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_references_by_object ON object_references (object);

-- What a live owner relies on. A snapshot that is pending or removed lives exactly as long as it has a row here.
CREATE TABLE leases (
    owner     TEXT    NOT NULL,
    operation INTEGER NOT NULL,
    snapshot  INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, operation, snapshot)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_snapshot ON leases (snapshot);

-- A place that others reach: 0 a repository of a registry, 1 a bucket or directory of contents, 2 one that a store which
-- knew no places did not note.
CREATE TABLE places (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    INTEGER NOT NULL CHECK (kind IN (0, 1, 2)),
    address TEXT    NOT NULL,
    UNIQUE (kind, address)
) STRICT;

-- The manifest was last seen in this repository under the snapshot's name, its contents at that place.
CREATE TABLE publications (
    snapshot        INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    registry        INTEGER NOT NULL REFERENCES places (id),
    content         INTEGER NOT NULL REFERENCES places (id),
    manifest_digest BLOB    NOT NULL CHECK (length(manifest_digest) = 32),
    seen_at         INTEGER NOT NULL,
    PRIMARY KEY (snapshot, registry)
) STRICT, WITHOUT ROWID;

-- The place has the object: 0 seen by ourselves, 1 a daemon says so.
CREATE TABLE object_places (
    object  INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    place   INTEGER NOT NULL REFERENCES places (id),
    seen_at INTEGER NOT NULL,
    seen_by INTEGER NOT NULL CHECK (seen_by IN (0, 1)),
    PRIMARY KEY (object, place)
) STRICT, WITHOUT ROWID;

-- Names under storage/ that this store itself took out of use and has not seen go yet. No other name is ever litter.
CREATE TABLE orphans (
    tree INTEGER NOT NULL CHECK (tree IN (0, 1)),      -- 0 content, 1 views
    name TEXT    NOT NULL,
    PRIMARY KEY (tree, name)
) STRICT, WITHOUT ROWID;

-- Which transactions that had to last this catalog has seen; the file `generation` beside metadata/ has the number too,
-- so that a catalog that went back in time is noticed.
CREATE TABLE generation (
    number    INTEGER NOT NULL,
    went_back INTEGER NOT NULL DEFAULT 0 CHECK (went_back IN (0, 1))         -- 1: it did, and nobody rebuilt it since
) STRICT;
INSERT INTO generation (number) VALUES (0);
