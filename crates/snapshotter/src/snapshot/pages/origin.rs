//! Which snapshot a capture starts from, and getting hold of it: its packs are referenced first, so that nobody takes them away;
//! then its map is read, and the list of its page digests, which is believed only where it adds up to the content ids of the
//! snapshot's document. So no file of the parent can lie to the comparison.
//!
//! Unless the caller names one, the parent is the snapshot that the directory was last restored from or captured as
//! (`catalog/origins.rs`). A chain of checkpoints names ever more packs, of which ever less is needed. So when a parent names
//! many, or twice the pages that it needs, the emptiest of them are given up: what is still needed of them is stored anew, of
//! about half as many pages as changed.

use std::collections::HashMap;
use std::fs::File;

use super::digests::{DigestReader, Digests};
use super::parent::{Parent, Place};
use super::report::ParentChosen;
use super::rescue::rescue;
use crate::catalog::{BlobState, DirectoryId, Snapshot, Sync};
use crate::format::content::ContentHasher;
use crate::format::document::paged::{PackEntry, PagedDocument, PagedFile};
use crate::format::map::Map;
use crate::snapshot::planned::Plan;
use crate::snapshot::{Context, Format, ParentChoice, SnapshotRequest};
use crate::store::{Held, PageRecords, Slot, pack_key};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::WarningKind;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;

/// The snapshot that is started from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) reference: Reference,
    pub(super) manifest_digest: Sha256,
    pub(super) chosen: ParentChosen,
    pub(super) document: PagedDocument,
    pub(super) parent: Parent,
}

/// The parent that a request asks for, or that is found, referenced from the pending snapshot.
pub(super) fn find(
    context: &Context<'_>,
    snapshot: i64,
    request: &SnapshotRequest,
    plan: &Plan,
) -> Result<Option<Origin>> {
    let Some(found) = choose(context, request)? else {
        return Ok(None);
    };
    let reference = found.reference.clone();
    let chosen = match request.parent {
        ParentChoice::Snapshot(_) => ParentChosen::Given,
        ParentChoice::Latest => ParentChosen::Latest,
        _ => ParentChosen::Origin,
    };
    let is_asked_for = chosen == ParentChosen::Given;
    match open(context, snapshot, &found, chosen, plan) {
        Ok(origin) => Ok(origin),
        Err(error) if is_no_use(&error) && !is_asked_for => {
            let_go(context, snapshot)?;
            let text = format!("nothing is taken over from {reference}: {}", error.line());
            incomplete(context, text);
            Ok(None)
        }
        Err(error) => Err(error.with_reference(&reference)),
    }
}

/// It is damaged, of a release to come, or somebody has removed it since it was chosen.
fn is_no_use(error: &Error) -> bool {
    use ErrorKind::{Damaged, NotFound, Unsupported};
    matches!(error.kind(), Damaged | NotFound | Unsupported)
}

fn choose(context: &Context<'_>, request: &SnapshotRequest) -> Result<Option<Snapshot>> {
    let catalog = &context.store.catalog;
    match &request.parent {
        ParentChoice::None => Ok(None),
        ParentChoice::Snapshot(reference) => catalog.read(|txn| txn.resolve(reference)).map(Some),
        ParentChoice::Latest => {
            let all = catalog.read(|txn| txn.snapshots())?;
            // Of a name the newest comes first.
            Ok(all
                .into_iter()
                .find(|one| one.reference.name() == request.name))
        }
        ParentChoice::Origin => match DirectoryId::of(context.base)? {
            Some(directory) => catalog.read(|txn| txn.origin(&directory)),
            None => Ok(None),
        },
    }
}

fn incomplete(context: &Context<'_>, text: String) {
    context
        .activity
        .warn(WarningKind::ParentIncomplete, None, text);
}

/// `None`: it is of format v1.
fn open(
    context: &Context<'_>,
    snapshot: i64,
    found: &Snapshot,
    chosen: ParentChosen,
    plan: &Plan,
) -> Result<Option<Origin>> {
    let store = context.store;
    if found.format != Format::V2 {
        let text = format!(
            "nothing is taken over from {}, which is of format v1; `convert` makes one of format v2 of it",
            found.reference
        );
        incomplete(context, text);
        return Ok(None);
    }
    let document = store.catalog.read(|txn| txn.paged_document(found.id))?;
    let records = PageRecords::default();
    let mut given_up = hold(context, snapshot, &document.packs, &records)?;
    let map = store.map_of(&document)?;
    let list = list(context, found, &document, &map, &records)?;
    let lacking = given_up.iter().filter(|is_lacking| **is_lacking).count();
    if lacking > 0 {
        let text = format!(
            "packs of {} are not here or are bad: {lacking}; what is in them is stored anew",
            found.reference
        );
        incomplete(context, text);
    }
    let place = |(file, pages): (&PagedFile, _)| {
        let size = file.size;
        (file.path.clone(), Place { pages, size })
    };
    let files: HashMap<RelPath, Place> = document.places().map(place).collect();
    require_inherited(&given_up, plan, &files, &map)?;
    give_up(&mut given_up, &document.packs, &map);
    let mut parent = Parent::new(map, given_up, list, files);
    let places: Vec<_> = inherited(plan)
        .filter_map(|path| parent.pages_of(path))
        .collect();
    if !places.is_empty() {
        let parts = places.into_iter().flat_map(|pages| parent.given_up(pages));
        let rescued = rescue(context, &document.packs, parts)?;
        parent.rescue(rescued);
    }
    Ok(Some(Origin {
        reference: found.reference.clone(),
        manifest_digest: found.manifest_digest,
        chosen,
        parent,
        document,
    }))
}

/// References packs, and says which of them are not here or not what they were.
fn hold(
    context: &Context<'_>,
    snapshot: i64,
    packs: &[PackEntry],
    records: &PageRecords,
) -> Result<Vec<bool>> {
    let keys: Vec<Checksum> = packs.iter().map(|pack| pack_key(pack.id)).collect();
    let held = context.store.hold_packs(snapshot, &keys)?;
    let named = packs.iter().zip(held);
    let is_lacking = named.map(|(named, held)| is_lacking(context, named, held, records));
    is_lacking.collect()
}

/// Looks at a pack that is to be referred to. One whose inode does not vouch for it is read, all of it: that costs less than
/// storing again what is in it. The observer hears of the bytes that are taken alone.
fn is_lacking(
    context: &Context<'_>,
    named: &PackEntry,
    held: Held,
    records: &PageRecords,
) -> Result<bool> {
    let store = context.store;
    let is_good = match held {
        Held::Vouched => true,
        Held::Doubtful(pack) => {
            store.check_pack(&pack, records, &context.activity.unobserved())? == BlobState::Good
        }
        Held::Lacking => false,
    };
    if !is_good {
        return Ok(true);
    }
    match store.read_pack(named.id) {
        Ok(pack) if pack.layout().pages() == named.pages => Ok(false),
        Ok(_) => Err(Error::damaged(format!(
            "the document and the pack {} disagree about its pages",
            named.id
        ))),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(true),
        Err(error) => Err(error),
    }
}

/// Gives up what was referenced of a parent that nothing is taken over from.
fn let_go(context: &Context<'_>, snapshot: i64) -> Result<()> {
    let store = context.store;
    let doomed = store.catalog.write(Sync::Normal, |txn| {
        let packs = txn.packs_of_snapshot(snapshot)?;
        let keys: Vec<Checksum> = packs.iter().map(|pack| pack.key).collect();
        txn.drop_references(snapshot, &keys)
    })?;
    store.sweep_removed(&doomed, context.activity);
    Ok(())
}

/// The files that take over pages unread.
fn inherited(plan: &Plan) -> impl Iterator<Item = &RelPath> {
    let diffs = plan.files.iter().filter(|file| file.diff);
    diffs.map(|file| &file.path)
}

/// What files take over unread has to be there.
fn require_inherited(
    lacking: &[bool],
    plan: &Plan,
    files: &HashMap<RelPath, Place>,
    map: &Map,
) -> Result<()> {
    let places = inherited(plan).filter_map(|path| files.get(path));
    let mut extents = places.flat_map(|place| map.range(place.pages.clone()));
    if extents.any(|extent| lacking[extent.pack as usize]) {
        let text = "packs are not here or are bad that have what a difference does not";
        return Err(Error::damaged(text));
    }
    Ok(())
}

/// More packs than this, and some are given up.
const MANY: usize = 96;

/// More than this, and there may soon be more than a document can name.
const TOO_MANY: usize = 224;

/// Pages that are stored anew at least, rather than none.
const AT_LEAST: u64 = 256;

/// Chooses packs whose pages are stored anew, because there are many or most of what is in them is needed no more: the
/// emptiest first, those that together have at most half as many pages as the parent stored, which is about what changed; but one,
/// where there are many, of at most as many, since otherwise they become more with each checkpoint that changes as much as the last.
fn give_up(given_up: &mut [bool], packs: &[PackEntry], map: &Map) {
    let mut used = vec![0_u64; packs.len()];
    for extent in map.iter() {
        used[extent.pack as usize] += extent.pages;
    }
    let named: u64 = packs.iter().map(|pack| pack.pages).sum();
    let needed: u64 = used.iter().sum();
    if packs.len() <= MANY && named / 2 <= needed {
        return;
    }
    let changed = packs.first().map_or(0, |newest| newest.pages);
    let budget = if packs.len() > TOO_MANY {
        u64::MAX
    } else {
        AT_LEAST.max(changed / 2)
    };
    let mut order: Vec<usize> = (0..packs.len()).collect();
    let share = |number: &usize| {
        u128::from(used[*number]) * 1_000_000 / u128::from(packs[*number].pages.max(1))
    };
    order.sort_by_key(share);
    let (mut pages, mut left) = (0, packs.len());
    for number in order {
        if packs.len() > TOO_MANY && left <= MANY {
            return;
        }
        let with_it = pages + used[number];
        let is_one_of_many = left == packs.len() && left > MANY && with_it <= changed;
        // One that is too large does not keep others: the first of all packs is the emptiest for long, and by far the largest.
        if with_it <= budget || is_one_of_many {
            given_up[number] = true;
            (pages, left) = (with_it, left - 1);
        }
    }
}

/// The list of a snapshot's page digests, which adds up to its content ids.
fn list(
    context: &Context<'_>,
    found: &Snapshot,
    document: &PagedDocument,
    map: &Map,
    records: &PageRecords,
) -> Result<File> {
    let store = context.store;
    if let Some(list) = store.open_page_list(&found.manifest_digest)? {
        match adds_up(list, document, map) {
            Ok(Some(list)) => return Ok(list),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a list of page digests cannot be read"),
        }
    }
    let (slot, list) = make_list(context, document, map, records)?;
    match adds_up(list, document, map).at("read", store.root.staging.path())? {
        Some(list) => {
            store.keep_page_list(&found.manifest_digest, slot);
            Ok(list)
        }
        None => Err(Error::damaged(
            "its packs do not have the contents that its document says",
        )),
    }
}

/// Whether the digests are those that content ids were folded from. Files without one are not compared: what a page of
/// theirs is was hashed when the pack was read.
fn adds_up(list: File, document: &PagedDocument, map: &Map) -> std::io::Result<Option<File>> {
    let mapped = map.pages();
    if list.metadata()?.len() != mapped * 32 {
        return Ok(None);
    }
    let mut reader = DigestReader::new(list);
    let mut number = 0;
    for (file, pages) in document.places() {
        let mut content = ContentHasher::new(file.size);
        for extent in map.range(pages.clone()) {
            for page in extent.start..extent.end() {
                content.page(page - pages.start, &reader.get(number, mapped)?);
                number += 1;
            }
        }
        if file.content.is_some_and(|id| id != content.finish()) {
            return Ok(None);
        }
    }
    Ok(Some(reader.into_file()))
}

/// Makes the list from the packs. All pages of all packs are read first, for their order is another one than the map's.
fn make_list<'s>(
    context: &Context<'s>,
    document: &PagedDocument,
    map: &Map,
    records: &PageRecords,
) -> Result<(Slot<'s>, File)> {
    let store = context.store;
    let unobserved = context.activity.unobserved();
    let mut packs = Vec::new();
    for named in &document.packs {
        if records.pack(named.id).is_none() {
            let pack = store.read_pack(named.id)?;
            let data = pack.layout().data_frames().len();
            records.record(store, &pack, &|frame| frame < data, &unobserved)?;
        }
        packs.extend(records.pack(named.id));
    }
    let (slot, file) = store.create_slot()?;
    let mut list = Digests::new(file);
    let staging = store.root.staging.path();
    let mut pages = Vec::new();
    for extent in map.iter() {
        let pack = packs[extent.pack as usize];
        let end = extent.page + extent.pages;
        for first in (extent.page..end).step_by(TOGETHER) {
            context.activity.check()?;
            let last = end.min(first + TOGETHER as u64);
            records
                .read(pack, first..last, &mut pages)
                .at("read", staging)?;
            for page in &pages {
                list.push(page.digest).at("write to", staging)?;
            }
        }
    }
    let list = list.into_file().at("write to", staging)?;
    Ok((slot, list))
}

/// Pages of which records are read at once.
const TOGETHER: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::map::Extent;
    use crate::format::pack::PackId;

    /// How many packs are given up of some that have so many pages and of which so many are used.
    fn given_up(packs: impl IntoIterator<Item = (u64, u64)>) -> usize {
        let (mut map, mut named) = (Map::default(), Vec::new());
        for (pack, (pages, used)) in packs.into_iter().enumerate() {
            map.push(Extent {
                start: pack as u64 * 100_000,
                pages: used,
                pack: pack as u32,
                page: 0,
            })
            .unwrap();
            let id = PackId::from_bytes([0; 32]);
            named.push(PackEntry { id, pages });
        }
        let mut given_up = vec![false; named.len()];
        give_up(&mut given_up, &named, &map);
        given_up.into_iter().filter(|given_up| *given_up).count()
    }

    /// Of 200 checkpoints that each changed as much as the last all packs were named for ever: more than half of the emptiest
    /// one was still needed, and half was all that might be stored anew.
    #[test]
    fn of_many_packs_one_is_given_up_though_it_has_more_than_half_of_what_changed() {
        let of = |count: u64, used: u64| given_up((0..count).map(|pack| (1000, used + pack)));
        assert_eq!(of(96, 700), 0);
        assert_eq!(of(97, 700), 1);
        // As many as there is room for, where they are emptier.
        assert_eq!(of(97, 100), 4);
    }

    /// And still: the first of all packs is the emptiest for long, and too large, and nothing behind it was looked at.
    #[test]
    fn a_large_pack_that_is_the_emptiest_keeps_no_others() {
        let base = std::iter::once((60_000, 20_000));
        let of = |used: u64| given_up((0..100).map(|_| (1000, used)).chain(base.clone()));
        assert_eq!(of(700), 1);
        assert_eq!(of(150), 3);
    }
}
