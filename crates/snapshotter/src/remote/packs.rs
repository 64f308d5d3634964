//! The packs of a snapshot of format v2, from wherever contents are. A pack comes as a file: from a stream, from a file that is
//! here already, or from one that somebody delivers, which then is the pack. It gets its name only when all of its frames are
//! right; it is not decoded for that.

mod came;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::contents::Contents;
use super::fetch::{Context, Fetched};
use super::flight::{Follow, Lead, Turn};
use super::runtime::Wanted;
use crate::catalog::Totals;
use crate::format::artifact::ManifestError;
use crate::format::document::paged::{MAX_ALL_FRAMES, PackEntry, PagedDocument};
use crate::format::pack::{FOOTER_BYTES, ROW_BYTES};
use crate::lock::lock;
use crate::registry::{Layers, Repository};
use crate::store::{PackReader, StagedPack, Store, pack_key};
use crate::transport::ContentTransport;
use crate::words::digest::Checksum;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;
use crate::words::page::PAGE_BYTES;
use crate::words::progress::{Event, Phase, WarningKind};
use crate::words::total::total;
use came::Came;
pub(super) use came::read_back;

/// Brings the packs that a document names and that are not here, for a snapshot that is to reference them all.
pub(super) fn fetch(
    context: &Context<'_>,
    snapshot: i64,
    (repository, layers): (&Repository, Layers),
    document: &PagedDocument,
) -> Result<Fetched> {
    let packs = document.packs.iter();
    let named: HashMap<Checksum, &PackEntry> =
        packs.map(|pack| (pack_key(pack.id), pack)).collect();
    let keys: Vec<Checksum> = document
        .packs
        .iter()
        .map(|pack| pack_key(pack.id))
        .collect();
    let mut lacking = context.store.reference_packs(snapshot, &keys)?;
    let reused_blobs = (keys.len() - lacking.len()) as u64;
    let fetching = Fetching {
        context,
        snapshot,
        named,
        fetched: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    if !lacking.is_empty() {
        let contents = context.remote.contents(repository, layers)?;
        fetching.plan(&contents, &lacking)?;
        while !lacking.is_empty() {
            let followed = fetching.lead_all(&contents, &lacking)?;
            lacking = fetching.follow_all(&followed)?;
        }
    }
    require_fitting(context.store, document)?;
    Ok(Fetched {
        snapshot,
        fetched_blobs: fetching.fetched.into_inner(),
        fetched_bytes: fetching.bytes.into_inner(),
        reused_blobs,
    })
}

/// Packs that are right each for itself may not be those that the document describes.
fn require_fitting(store: &Store, document: &PagedDocument) -> Result<()> {
    let packs = document.packs.iter().map(|named| store.read_pack(named.id));
    let packs: Vec<PackReader> = packs.collect::<Result<_>>()?;
    let layouts: Vec<_> = packs.iter().map(PackReader::layout).collect();
    let fits = document.check_packs(&layouts);
    fits.map(|_| ())
        .map_err(|error| Error::damaged("the document and its packs disagree").with_source(error))
}

/// What a snapshot amounts to, whose packs are here.
///
/// # Errors
/// `Damaged` where its map is not one that can be.
pub(super) fn totals(store: &Store, document: &PagedDocument) -> Result<Totals> {
    let map = store.map_of(document)?;
    let inodes: Vec<(u64, u64)> = document
        .places()
        .map(|(file, place)| {
            let pages = map.range(place).map(|extent| extent.pages).sum::<u64>();
            (
                file.size,
                pages.saturating_mul(PAGE_BYTES as u64).min(file.size),
            )
        })
        .collect();
    Ok(Totals::new(
        document.entries.files.len(),
        inodes.into_iter(),
    ))
}

struct Fetching<'a> {
    context: &'a Context<'a>,
    snapshot: i64,
    named: HashMap<Checksum, &'a PackEntry>,
    fetched: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Fetching<'a> {
    fn plan(&self, contents: &Contents, lacking: &[Checksum]) -> Result<()> {
        let mut bytes = 0;
        for key in lacking {
            let object = self.object(key)?;
            let known = contents.layer(object.name).map(|layer| layer.size);
            // About as many as its pages, compressed.
            bytes = total([bytes, known.unwrap_or_else(|| self.likely(key))]);
        }
        self.context.activity.tell(|| Event::Planned {
            phase: Phase::Fetch,
            files: lacking.len() as u64,
            bytes,
        });
        Ok(())
    }

    fn object(&self, key: &Checksum) -> Result<Object> {
        let named = self.named.get(key).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "a pack is fetched that nobody named")
        })?;
        Ok(named_object(named))
    }

    /// About how long a pack is.
    fn likely(&self, key: &Checksum) -> u64 {
        self.named.get(key).map_or(0, |named| likely_length(named))
    }

    /// Fetches what nobody fetches, and says what others do.
    fn lead_all(&self, contents: &Contents, keys: &[Checksum]) -> Result<Vec<(Follow, Checksum)>> {
        let followed = Mutex::new(Vec::new());
        let (limit, activity) = (self.context.limit, self.context.activity);
        limit.for_each(activity, keys.len(), |index| {
            let key = keys[index];
            activity.check()?;
            match self.context.flights.join(self.object(&key)?, self.snapshot) {
                Turn::Follow(follow) => lock(&followed).push((follow, key)),
                Turn::Lead(lead) => {
                    // Somebody may have led, and ended, since it was found missing.
                    let store = self.context.store;
                    if !store.reference_packs(self.snapshot, &[key])?.is_empty() {
                        self.lead(contents, key, &lead)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(followed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the flights of others, and says what they did not bring. This call holds no permit and leads nothing.
    fn follow_all(&self, followed: &[(Follow, Checksum)]) -> Result<Vec<Checksum>> {
        for (follow, _) in followed {
            follow.wait(self.context.activity)?;
        }
        let keys: Vec<Checksum> = followed.iter().map(|(_, key)| *key).collect();
        self.context.store.reference_packs(self.snapshot, &keys)
    }

    /// Fetches a pack, and gives it to all who wait for it; once more where what came was damaged, from behind a daemon.
    fn lead(&self, contents: &Contents, key: Checksum, lead: &Lead<'_>) -> Result<()> {
        let activity = self.context.activity;
        let wanted = || match activity.check() {
            Err(cancelled) if !lead.has_followers() => Err(cancelled),
            _ => Ok(()),
        };
        let staged = match self.stage(contents, &contents.transport, key, &wanted) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::warn!(%error, "what was fetched is damaged; it is fetched again");
                let way = contents.direct.as_ref().unwrap_or(&contents.transport);
                let staged = self.stage(contents, way, key, &wanted)?;
                if contents.direct.is_some() {
                    let text =
                        format!("dragonfly brought wrong bytes, the bucket right ones: {error}");
                    activity.warn(WarningKind::Direct, None, text);
                }
                staged
            }
            staged => staged?,
        };
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(staged.length, Ordering::Relaxed);
        let store = self.context.store;
        store.commit_packs(self.snapshot, &mut [staged])?;
        for follower in lead.followers() {
            // One that has given up has no snapshot any more, and any other looks for itself.
            if let Err(error) = store.reference_packs(follower, &[key]) {
                tracing::debug!(%error, "a follower was not given what came");
            }
        }
        Ok(())
    }

    /// Makes a pack a whole file in staging.
    fn stage(
        &self,
        contents: &Contents,
        transport: &Arc<dyn ContentTransport>,
        key: Checksum,
        wanted: Wanted<'_>,
    ) -> Result<StagedPack<'a>> {
        let object = self.object(&key)?;
        let came = Came {
            store: self.context.store,
            transport,
            object,
            likely: self.likely(&key),
            key,
            rate: &self.context.remote.rates.download,
            wanted,
            activity: self.context.activity,
        };
        #[cfg(feature = "dragonfly")]
        if let Some(deliveries) = transport.deliveries() {
            return came.delivered(deliveries);
        }
        came.staged(contents.layer(object.name).map(|layer| layer.size))
    }
}

/// A pack as it is asked for: no larger than one that has so many pages can be.
pub(super) fn named_object(named: &PackEntry) -> Object {
    let pages = named.pages.saturating_mul(PAGE_BYTES as u64);
    Object::pack(*named.id.as_bytes(), total([pages, MOST_BESIDE_PAGES]))
}

/// About how long one is whose pages are compressed.
pub(super) fn likely_length(named: &PackEntry) -> u64 {
    named.pages.saturating_mul(PAGE_BYTES as u64) / 3
}

pub(super) fn cannot_describe(error: ManifestError) -> Error {
    let text = "the snapshot cannot be described in the registry";
    Error::new(ErrorKind::Unsupported, text).with_source(error)
}

/// What a pack has beside its pages at most, in bytes: its map, its table and its footer.
const MOST_BESIDE_PAGES: u64 =
    (512 << 20) + MAX_ALL_FRAMES * ROW_BYTES as u64 + FOOTER_BYTES as u64;
