//! Taking a snapshot in format v2: files into pages, of which those are stored that neither the parent has nor this snapshot
//! had before. Plan → find the parent → capture → describe → finish.

mod capture;
mod cutter;
mod describe;
mod diff;
mod digests;
mod index;
mod origin;
mod packing;
mod parent;
mod report;
mod rescue;
mod source;

pub(super) use diff::check_request;
pub use report::{PagedReport, ParentChosen, ParentReport};

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::planned::Plan;
use super::{
    Context, Description, Figures, Format, Pending, SnapshotRequest, Taken, Until, finish,
};
use crate::catalog::Sync;
use crate::format::document::paged::{MAX_PACKS, MapPlace};
use crate::format::map::Map;
use crate::format::pack::FrameEncoder;
use crate::store::{Slot, pack_key};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::{Event, Phase};
use crate::words::total::total;
use capture::{Capture, Captured};
use cutter::Cutter;
use describe::Named;
use digests::{DigestReader, Digests};
use index::Index;
use origin::Origin;
use packing::{Packing, Sealed};
use report::Counts;

/// Pages of a pack, and the part of all data that one has at least: so a snapshot has 64 packs of its own at most.
const PACK_PAGES: u64 = (256 << 20) / 4096;
const PACKS: u64 = 64;

/// Takes the pending snapshot.
pub(super) fn complete(
    context: &Context<'_>,
    snapshot: i64,
    until: Until<'_>,
    request: &SnapshotRequest,
    mut plan: Plan,
) -> Result<Taken> {
    let allocated = plan.allocated();
    context.activity.tell(|| Event::Planned {
        phase: Phase::Read,
        files: plan.files.len() as u64,
        bytes: allocated,
    });
    let origin = origin::find(context, snapshot, request, &plan)?;
    diff::check_plan(&plan, origin.as_ref())?;
    let parent = origin.as_ref().map(|origin| &origin.parent);
    let mut index = Index::new(request.index_bytes);
    if let Some(parent) = parent {
        let staging = context.store.root.staging.path();
        parent.fill(&mut index).at("read", staging)?;
    }
    let frame_pages = request.frame_pages;
    let pack_pages = PACK_PAGES.max((allocated / 4096 / PACKS).next_power_of_two());
    let lists = [scratch(context)?, scratch(context)?];
    let capture = Capture {
        context,
        cutter: Mutex::new(Cutter::new(
            parent,
            index,
            lists,
            pack_pages,
            frame_pages.bytes(),
        )),
        packing: Packing::new(context.store, frame_pages, pack_pages, context.durable),
        compression: request.compression.into(),
    };
    let captured = super::capture::in_rounds(&mut plan, |files, plan| capture.files(files, plan))?;
    context.activity.tell(|| Event::Syncing);
    let pending = Pending {
        snapshot,
        until,
        request,
    };
    end(&pending, capture, plan, captured, origin.as_ref())
}

fn scratch(context: &Context<'_>) -> Result<Digests> {
    let (_slot, file) = context.store.create_slot()?;
    Ok(Digests::new(file))
}

/// Ends the packs, and makes the snapshot visible.
fn end(
    pending: &Pending<'_>,
    capture: Capture<'_, '_>,
    plan: Plan,
    captured: Vec<Captured>,
    origin: Option<&Origin>,
) -> Result<Taken> {
    let Capture {
        context,
        cutter,
        packing,
        compression,
    } = capture;
    let mut cutter = cutter.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut encoder = FrameEncoder::new(compression).map_err(capture::no_memory)?;
    if let Some(frame) = cutter.last_frame() {
        let encoded = encoder.encode(frame.bytes).map_err(capture::no_memory)?;
        packing.push(frame.number, &encoded)?;
    }
    let mut entries = describe::entries(plan, captured)?;
    let map = std::mem::take(&mut entries.map);
    let (named, sealed) = name_packs(map, packing, &mut encoder, origin)?;
    let counts = Counts {
        pages: entries.digests.iter().map(|(_, pages)| pages).sum(),
        same: entries.same_pages,
        inherited: entries.inherited,
        stored: cutter.stored(),
    };
    let list = list(context, cutter, &entries.digests)?;
    let mut kept = keep(context, pending.snapshot, sealed, &named, origin)?;
    kept.figures.placements = entries.placements;
    let packs = named.0.len();
    let described = describe::describe(entries, named, origin, &pending.request.annotations)?;
    let description = Description {
        format: Format::V2,
        document: &described.document,
        manifest: &described.manifest,
        totals: described.totals,
    };
    finish(context, pending, &kept.synced, &description)?;
    let manifest = Sha256::of(&described.manifest);
    context.store.keep_page_list(&manifest, list);
    let parent = origin.map(|origin| origin.manifest_digest);
    let stay: Vec<Sha256> = parent.into_iter().chain([manifest]).collect();
    let name = &pending.request.name;
    context.store.drop_other_page_lists(name, &stay);
    let mut taken = Taken::new(kept.figures, &description, &described.entries);
    taken.paged = Some(PagedReport::new(counts, packs, origin));
    Ok(taken)
}

/// Writes the map into the last pack, unless everything is where the parent has it. Says which packs the snapshot names.
fn name_packs<'s>(
    map: Map,
    packing: Packing<'s>,
    encoder: &mut FrameEncoder,
    origin: Option<&Origin>,
) -> Result<(Named, Vec<Sealed<'s>>)> {
    if map.is_empty() {
        return Ok(((Vec::new(), None), Vec::new()));
    }
    if let Some(origin) = origin.filter(|origin| *origin.parent.map() == map) {
        let named = (origin.document.packs.clone(), origin.document.map);
        return Ok((named, Vec::new()));
    }
    let parents = origin.map_or(0, |origin| origin.parent.packs());
    let (map, order) = map.in_order(parents.saturating_add(packing.last()));
    let (sealed, frames) = packing.finish(&map, encoder)?;
    let all = describe::all_packs(origin, &sealed);
    if order.len() > MAX_PACKS {
        let text = format!("it would name {} packs, and 256 are the most", order.len());
        return Err(Error::new(ErrorKind::Unsupported, text)
            .with_hint("take it with `--parent none`: it then stores all of its pages anew"));
    }
    let packs = order.iter().map(|number| all[*number as usize]).collect();
    let place = MapPlace {
        frame: frames.start,
        frames: frames.end - frames.start,
    };
    Ok(((packs, Some(place)), sealed))
}

/// What became of the packs.
struct Kept {
    figures: Figures,
    synced: HashSet<Checksum>,
}

/// Gives the new packs that are named their names, and gives up the parent's that are not.
fn keep(
    context: &Context<'_>,
    snapshot: i64,
    sealed: Vec<Sealed<'_>>,
    (packs, _): &Named,
    origin: Option<&Origin>,
) -> Result<Kept> {
    let store = context.store;
    let named: HashSet<Checksum> = packs.iter().map(|pack| pack_key(pack.id)).collect();
    let staged = sealed.into_iter().map(|pack| pack.staged);
    let mut staged: Vec<_> = staged.filter(|pack| named.contains(&pack.key)).collect();
    let had = store.commit_packs(snapshot, &mut staged)?;
    let parents = origin.map_or(&[][..], |origin| &origin.document.packs);
    let parents = parents.iter().map(|pack| pack_key(pack.id));
    let unused: Vec<Checksum> = parents.filter(|key| !named.contains(key)).collect();
    if !unused.is_empty() {
        let catalog = &store.catalog;
        let doomed = catalog.write(Sync::Normal, |txn| txn.drop_references(snapshot, &unused))?;
        store.sweep_removed(&doomed, context.activity);
    }
    let stored = staged.len() as u64 - had;
    let synced = if context.durable {
        staged.iter().map(|pack| pack.key).collect()
    } else {
        HashSet::new()
    };
    Ok(Kept {
        figures: Figures {
            stored_bytes: total(staged.iter().map(|pack| pack.length)),
            blobs_stored: stored,
            blobs_reused: packs.len() as u64 - stored,
            ..Figures::default()
        },
        synced,
    })
}

/// The list of page digests, in the order of the page space.
fn list<'s>(context: &Context<'s>, cutter: Cutter<'_>, runs: &[(u64, u64)]) -> Result<Slot<'s>> {
    let staging = context.store.root.staging.path();
    let count = cutter.all.len();
    let mut all = DigestReader::new(cutter.all.into_file().at("write to", staging)?);
    let (slot, file) = context.store.create_slot()?;
    let mut list = Digests::new(file);
    for (first, pages) in runs {
        for number in *first..first + pages {
            let digest = all.get(number, count).at("read", staging)?;
            list.push(digest).at("write to", staging)?;
        }
    }
    list.into_file().at("write to", staging)?;
    Ok(slot)
}
