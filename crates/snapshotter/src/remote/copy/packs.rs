//! Copying packs: the table is read first, then every frame is looked at on its way; the last bytes are held back until all
//! were right.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{Copied, Copying};
use crate::format::artifact::paged::{PackLayer, PagedManifest};
use crate::format::document::paged::{PackEntry, PagedDocument};
use crate::format::pack::{FOOTER_BYTES, Footer, PackError, StreamChecker};
use crate::limit::Limit;
use crate::lock::lock;
use crate::remote::packs::{cannot_describe, likely_length, named_object};
use crate::remote::runtime::stream;
use crate::transport::Ranges;
use crate::words::error::{Error, Result};
use crate::words::object::Object;
use crate::words::progress::{Event, Phase};
use crate::words::total::total;

impl Copying<'_> {
    /// Copies the packs of a snapshot of format v2.
    pub(super) fn packs(
        &self,
        limit: &Limit,
        manifest: &PagedManifest,
        document: &PagedDocument,
    ) -> Result<Copied> {
        let packs = &document.packs;
        let bytes = packs.iter().map(likely_length);
        self.activity.tell(|| Event::Planned {
            phase: Phase::Copy,
            files: packs.len() as u64,
            bytes: total(bytes),
        });
        let layers = Mutex::new(Vec::new());
        limit.for_each(self.activity, packs.len(), |index| {
            tracing::info!("pack {} of {}: {}", index + 1, packs.len(), packs[index].id);
            let layer = self.pack(&packs[index])?;
            lock(&layers).extend(layer.map(|layer| (index, layer)));
            Ok(())
        })?;
        let mut layers = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        layers.sort_unstable_by_key(|(index, _)| *index);
        let layers: Vec<PackLayer> = layers.into_iter().map(|(_, layer)| layer).collect();
        let is_same = layers.is_empty() && manifest.packs.is_empty();
        let build = || {
            let document = (manifest.config, manifest.config_size);
            let built = PagedManifest::build(document, &layers, &manifest.annotations);
            built.map_err(cannot_describe)
        };
        Ok(Copied {
            contents: packs.len() as u64,
            has_layers: !layers.is_empty(),
            manifest: (!is_same).then(build).transpose()?,
        })
    }

    fn pack(&self, pack: &PackEntry) -> Result<Option<PackLayer>> {
        let size = self.length(pack)?;
        let object = Object {
            most: size,
            ..named_object(pack)
        };
        let layer = |sha256| PackLayer {
            sha256,
            size,
            id: pack.id,
        };
        if self.is_there(object, size)? {
            self.activity.tell(|| Event::Progressed { bytes: size });
            return Ok(self.known_as(object.name).map(layer));
        }
        let tail = self.tail(object, size)?;
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| self.relay(object, &tail, give);
        Ok(self.send(object, &read)?.map(layer))
    }

    fn length(&self, pack: &PackEntry) -> Result<u64> {
        let object = named_object(pack);
        match self.contents.layer(object.name) {
            Some(layer) if layer.size <= object.most => return Ok(layer.size),
            Some(_) => return Err(self.wrong(object, PackError::Lengths)),
            None => {}
        }
        match self.length_there(object)? {
            size if size <= object.most => Ok(size),
            _ => Err(self.wrong(object, PackError::Lengths)),
        }
    }

    /// Its last bytes, from the table on, which are those of the pack that is asked for.
    fn tail(&self, object: Object, size: u64) -> Result<Vec<u8>> {
        let wrong = |error| self.wrong(object, error);
        let at = size
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| wrong(PackError::Lengths))?;
        let footer = self.range(object, at..size)?;
        let footer = footer.as_slice().try_into();
        let footer = footer.map_err(|_| wrong(PackError::Lengths))?;
        let footer = Footer::parse(footer, size).map_err(wrong)?;
        let tail = self.range(object, footer.table().start..size)?;
        let layout = StreamChecker::new(tail.clone(), size).map_err(wrong)?;
        let id = object.id.map(|id| id.hash);
        if id.as_ref() != Some(layout.layout().id().as_bytes()) {
            return Err(wrong(PackError::Id));
        }
        Ok(tail)
    }

    fn range(&self, object: Object, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.pieces(object, Some(vec![range]), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn pieces(
        &self,
        object: Object,
        ranges: Ranges,
        take: &mut dyn FnMut(&Bytes) -> Result<()>,
    ) -> Result<()> {
        let wanted = || self.activity.check();
        let of = (object, ranges);
        stream(&self.contents.transport, of, self.rate, &wanted, take)
    }

    fn relay(
        &self,
        object: Object,
        tail: &[u8],
        give: &mut dyn FnMut(Bytes) -> Result<()>,
    ) -> Result<()> {
        let wrong = |error| self.wrong(object, error);
        let mut checker = StreamChecker::new(tail.to_vec(), object.most).map_err(wrong)?;
        let mut last: Option<Bytes> = None;
        self.pieces(object, None, &mut |bytes| {
            checker.push(bytes).map_err(wrong)?;
            let told = bytes.len() as u64;
            self.activity.tell(|| Event::Progressed { bytes: told });
            let piece = Bytes::copy_from_slice(bytes);
            last.replace(piece).map_or(Ok(()), &mut *give)
        })?;
        checker.finish().map_err(wrong)?;
        last.map_or(Ok(()), give)
    }

    fn wrong(&self, object: Object, error: PackError) -> Error {
        let place = self.contents.transport.place();
        Error::damaged(format!("{object} in {place} is damaged")).with_source(error)
    }
}
