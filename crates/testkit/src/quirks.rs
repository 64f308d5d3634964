//! A registry that works, but for one thing: each [`Quirk`] is what users of some registry, or of some proxy before one, have
//! met in the field.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::weather::{Asked, Reply, Weather};

/// What is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Nothing.
    None,
    /// HEAD of a blob is 405.
    HeadNotAllowed,
    /// HEAD of a blob has no `Content-Length`.
    HeadWithoutLength,
    /// HEAD of a blob has `Content-Length: 0`.
    HeadOfNoLength,
    /// Blobs are at a storage, whose addresses are signed for GET: it answers HEAD with 403.
    HeadForbiddenAtStorage,
    /// HEAD of a blob is 405, and ranges are not known: only sending it again tells.
    HeadNotAllowedNorRanges,
    /// `Location` is relative.
    LocationRelative,
    /// `Location` has scheme and host.
    LocationAbsolute,
    /// `Location` is at another host, which must not see credentials.
    LocationElsewhere,
    /// `Location` comes with POST alone.
    LocationOnce,
    /// POST is sent on with 307.
    PostRedirected,
    /// POST is answered with 201.
    PostCreated,
    /// POST is answered with 202 and no `Location`.
    PostWithoutLocation,
    /// A request with a longer body than this is 413.
    Limit(usize),
    /// The first request of this method, to an upload, is answered with this status; half of its body is kept.
    FailsOnce(&'static str, u16),
    /// The first of this method, to an upload, is answered so, and the upload is forgotten.
    ForgetsOnce(&'static str, u16),
    /// The first of this method, to an upload, is not answered; half of its body is kept.
    HangsUpOnce(&'static str),
    /// So many reads of whatever was written are answered with what was there before.
    Lags(usize),
    /// What has a tag keeps it.
    Immutable,
}

/// The server.
#[derive(Debug)]
pub struct Quirky {
    server: Weather,
    shelf: Arc<Mutex<Shelf>>,
    /// Where blobs or uploads are, where that is another host.
    _elsewhere: Weather,
}

#[derive(Debug, Default)]
struct Shelf {
    home: String,
    elsewhere: String,
    blobs: HashMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
    /// What garbage collection has removed, and a cache does not know of that.
    collected: HashMap<String, usize>,
    /// What was there before, and how often it is still answered with.
    stale: HashMap<String, (usize, Option<Vec<u8>>)>,
    did: HashSet<&'static str>,
    begun: usize,
}

/// A registry with one quirk.
impl Quirky {
    /// Starts one.
    #[must_use]
    pub fn new(quirk: Quirk) -> Self {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (here, there) = (Arc::clone(&shelf), Arc::clone(&shelf));
        let elsewhere = Weather::new(move |asked, _| lock(&there).storage(asked, quirk));
        let server = Weather::new(move |asked, _| lock(&here).answer(asked, quirk));
        lock(&shelf).home = server.url();
        lock(&shelf).elsewhere = elsewhere.url();
        Self {
            server,
            shelf,
            _elsewhere: elsewhere,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.server.asked()
    }

    /// Removes all blobs, as garbage collection does behind the back of a cache: HEAD finds them, and a GET promises bytes
    /// that do not come. What is pushed again is there again.
    pub fn collect(&self) {
        let mut shelf = lock(&self.shelf);
        let gone: Vec<_> = shelf.blobs.drain().collect();
        let gone = gone
            .into_iter()
            .map(|(digest, bytes)| (digest, bytes.len()));
        shelf.collected.extend(gone);
    }

    /// How many blobs it has.
    pub fn blobs(&self) -> usize {
        lock(&self.shelf).blobs.len()
    }

    /// The manifest of `repository:tag` or `repository@digest`.
    pub fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.shelf).manifests.get(name).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: Vec<_> = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", hex.concat())
}

impl Shelf {
    fn answer(&mut self, asked: &Asked, quirk: Quirk) -> Reply {
        let is_too_long = |limit: usize| asked.body.len() > limit;
        if matches!(quirk, Quirk::Limit(limit) if is_too_long(limit)) {
            return Reply::status(413);
        }
        let path = asked.path().strip_prefix("/v2/").unwrap_or_default();
        if let Some((repository, which)) = path.split_once("/manifests/") {
            return self.manifest(asked, repository, which, quirk);
        }
        match path.split_once("/blobs/") {
            Some((_, rest)) if rest.starts_with("uploads/") => self.upload(asked, quirk),
            Some((_, digest)) => self.blob(asked, digest, quirk),
            None => Reply::status(404),
        }
    }

    fn manifest(&mut self, asked: &Asked, repository: &str, which: &str, quirk: Quirk) -> Reply {
        let separator = if which.contains(':') { '@' } else { ':' };
        let name = format!("{repository}{separator}{which}");
        if asked.method != "PUT" {
            let found = self.manifests.get(&name).cloned();
            let found = self.stale(&name).unwrap_or(found);
            return found.map_or_else(|| Reply::status(404), Reply::ok);
        }
        let before = self.manifests.get(&name).cloned();
        if quirk == Quirk::Immutable && before.as_ref().is_some_and(|old| *old != asked.body) {
            let body = r#"{"errors":[{"code":"TAG_IMMUTABLE","message":"the tag cannot be overwritten"}]}"#;
            return Reply::Full(400, Vec::new(), body.into());
        }
        self.grows_stale(&name, before, quirk);
        let digest = digest_of(&asked.body);
        self.manifests.insert(name, asked.body.clone());
        self.manifests
            .insert(format!("{repository}@{digest}"), asked.body.clone());
        Reply::status(201).with("Docker-Content-Digest", digest)
    }

    fn grows_stale(&mut self, name: &str, before: Option<Vec<u8>>, quirk: Quirk) {
        if let Quirk::Lags(reads) = quirk {
            self.stale.insert(name.to_owned(), (reads, before));
        }
    }

    fn stale(&mut self, name: &str) -> Option<Option<Vec<u8>>> {
        let (reads, before) = self.stale.get_mut(name).filter(|(reads, _)| *reads > 0)?;
        *reads -= 1;
        Some(before.clone())
    }

    fn blob(&mut self, asked: &Asked, digest: &str, quirk: Quirk) -> Reply {
        if let Some(None) = self.stale(digest) {
            return Reply::status(404);
        }
        if let Some(size) = self.collected.get(digest) {
            return from_cache(asked, *size);
        }
        let Some(bytes) = self.blobs.get(digest) else {
            return Reply::status(404);
        };
        let is_head = asked.method == "HEAD";
        match quirk {
            Quirk::HeadNotAllowed | Quirk::HeadNotAllowedNorRanges if is_head => Reply::status(405),
            Quirk::HeadNotAllowedNorRanges if asked.header("range").is_some() => Reply::status(400),
            Quirk::HeadWithoutLength if is_head => Reply::Unsized(200, Vec::new()),
            Quirk::HeadOfNoLength if is_head => Reply::status(200),
            Quirk::HeadForbiddenAtStorage => {
                let target = format!("{}/{digest}?signature=get", self.elsewhere);
                Reply::status(307).with("Location", target)
            }
            _ => ranged(asked, bytes),
        }
    }

    /// Another host, which knows nobody.
    fn storage(&mut self, asked: &Asked, quirk: Quirk) -> Reply {
        if asked.header("authorization").is_some() {
            return Reply::status(400);
        }
        if quirk == Quirk::LocationElsewhere {
            return self.upload(asked, quirk);
        }
        if asked.method == "HEAD" {
            return Reply::status(403);
        }
        let found = self.blobs.get(asked.path().trim_start_matches('/'));
        found.map_or_else(|| Reply::status(404), |bytes| ranged(asked, bytes))
    }

    fn upload(&mut self, asked: &Asked, quirk: Quirk) -> Reply {
        if asked.method == "POST" {
            return self.begin(asked, quirk);
        }
        let session = asked.path().to_owned();
        let Some(mut bytes) = self.uploads.remove(&session) else {
            return Reply::status(404);
        };
        if let Some(reply) = self.fails(asked, &mut bytes, quirk) {
            if !matches!(quirk, Quirk::ForgetsOnce(..)) {
                self.uploads.insert(session, bytes);
            }
            return reply;
        }
        match &*asked.method {
            "DELETE" => return Reply::status(204),
            "PUT" => return self.commit(asked, bytes, quirk),
            "PATCH" if !fits(asked, bytes.len()) => {
                self.uploads.insert(session, bytes);
                return Reply::status(416);
            }
            _ => bytes.extend_from_slice(&asked.body),
        }
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        let location = self.location(&session, quirk);
        self.uploads.insert(session, bytes);
        let status = if asked.method == "GET" { 204 } else { 202 };
        let reply = Reply::status(status).with("Range", range);
        match quirk {
            Quirk::LocationOnce => reply,
            _ => reply.with("Location", location),
        }
    }

    fn begin(&mut self, asked: &Asked, quirk: Quirk) -> Reply {
        if quirk == Quirk::PostRedirected && !asked.target.contains("again") {
            let again = format!("{}?again", asked.target);
            return Reply::status(307).with("Location", again);
        }
        self.begun += 1;
        let session = format!("{}{}", asked.path(), self.begun);
        let location = self.location(&session, quirk);
        self.uploads.insert(session, Vec::new());
        match quirk {
            Quirk::PostWithoutLocation => Reply::status(202),
            Quirk::PostCreated => Reply::status(201).with("Location", location),
            _ => Reply::status(202).with("Location", location),
        }
    }

    fn location(&self, session: &str, quirk: Quirk) -> String {
        match quirk {
            Quirk::LocationRelative => session.rsplit('/').next().unwrap_or_default().to_owned(),
            Quirk::LocationAbsolute => format!("{}{session}", self.home),
            Quirk::LocationElsewhere => format!("{}{session}", self.elsewhere),
            _ => session.to_owned(),
        }
    }

    /// What goes wrong, once.
    fn fails(&mut self, asked: &Asked, bytes: &mut Vec<u8>, quirk: Quirk) -> Option<Reply> {
        let (method, reply) = match quirk {
            Quirk::FailsOnce(method, status) | Quirk::ForgetsOnce(method, status) => {
                (method, Reply::status(status))
            }
            Quirk::HangsUpOnce(method) => (method, Reply::HangUp),
            _ => return None,
        };
        if asked.method != method || !self.did.insert(method) {
            return None;
        }
        if method == "PATCH" {
            bytes.extend_from_slice(&asked.body[..asked.body.len() / 2]);
        }
        Some(reply)
    }

    fn commit(&mut self, asked: &Asked, mut bytes: Vec<u8>, quirk: Quirk) -> Reply {
        bytes.extend_from_slice(&asked.body);
        let digest = digest_of(&bytes);
        if !asked.target.replace("%3A", ":").ends_with(&digest) {
            return Reply::status(400);
        }
        self.grows_stale(&digest, None, quirk);
        self.collected.remove(&digest);
        self.blobs.insert(digest.clone(), bytes);
        match quirk {
            // Then only a look tells.
            Quirk::Lags(_) => Reply::status(201),
            _ => Reply::status(201).with("Docker-Content-Digest", digest),
        }
    }
}

/// A chunk that says where it belongs has to belong there.
fn fits(asked: &Asked, at: usize) -> bool {
    let Some(range) = asked.header("content-range") else {
        return at == 0;
    };
    let length = asked.body.len();
    range == format!("{at}-{}", (at + length).saturating_sub(1))
}

/// A GET as the server would answer it that knows ranges.
fn ranged(asked: &Asked, bytes: &[u8]) -> Reply {
    let Some((first, last)) = range_of(asked) else {
        return Reply::ok(bytes);
    };
    let total = bytes.len();
    if first >= total {
        return Reply::status(416).with("Content-Range", format!("bytes */{total}"));
    }
    let last = last.min(total - 1);
    Reply::Full(206, Vec::new(), bytes[first..=last].to_vec())
        .with("Content-Range", format!("bytes {first}-{last}/{total}"))
}

/// The same of what is not there any more: the head is the cache's, and nothing follows.
fn from_cache(asked: &Asked, size: usize) -> Reply {
    match range_of(asked) {
        Some((first, last)) => Reply::status(206)
            .with("Content-Length", (last - first + 1).to_string())
            .with("Content-Range", format!("bytes {first}-{last}/{size}")),
        None => Reply::status(200).with("Content-Length", size.to_string()),
    }
}

fn range_of(asked: &Asked) -> Option<(usize, usize)> {
    let range = asked.header("range")?.strip_prefix("bytes=")?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
