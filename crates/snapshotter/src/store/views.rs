//! Inodes with a blob's bytes and exactly the attributes a read-only restore wants.
//!
//! Attributes belong to the inode, so files that differ in them cannot be hardlinks of one. The blob's own inode is its
//! first view; for any other attributes a further inode is made once and kept. A view is a cache: it is looked at on
//! each use and made anew when anything about it has drifted, when its links are used up, or after a reboot (it is never
//! synced). The blob's bytes stay the truth.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;

use super::check::OpenBlob;
use super::{Slot, Store, Swept};
use crate::activity::Activity;
use crate::catalog::{Blob, StoredName, Sync, Txn, ViewInode, ViewKey, view_name};
use crate::fs::{Dir, Stat, attributes, is_bad_medium, place};
use crate::pass::pass_packed;
use crate::pass::{Hashing, Output, is_wrong, pass};
use crate::words::entry::{Attributes, Mtime};
use crate::words::error::{At, ErrorKind, Result};
use crate::words::form::Form;

/// When the observer hears of a copy's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// While they are copied.
    Here,
    /// By whoever uses the copy.
    Later,
}

/// The attributes a restored file is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) attributes: Attributes,
    pub(crate) fingerprint: [u8; 16],
    /// Views that differ in the modification time alone may share an inode.
    pub(crate) any_time: bool,
}

impl Wanted {
    pub(crate) fn new(attributes: Attributes, any_time: bool) -> Self {
        let named = if any_time {
            Attributes {
                mtime: Mtime::default(),
                ..attributes.clone()
            }
            .fingerprint()
        } else {
            attributes.fingerprint()
        };
        Self {
            fingerprint: named,
            attributes,
            any_time,
        }
    }

    /// Whether an inode has exactly these attributes.
    pub(crate) fn matches(&self, file: &std::fs::File, stat: &Stat) -> io::Result<bool> {
        let wanted = &self.attributes;
        if stat.mode != wanted.mode
            || (stat.uid, stat.gid) != (wanted.uid, wanted.gid)
            || (!self.any_time && stat.mtime != wanted.mtime)
        {
            return Ok(false);
        }
        Ok(attributes::of_file(file, stat)?.xattrs == wanted.xattrs)
    }
}

/// Views that are there, so that one transaction asks for those of many files.
pub(crate) type KnownViews = HashMap<ViewKey, ViewInode>;

/// An inode to link to: a directory of the store and a name in it.
#[derive(Debug)]
pub(crate) struct Linkable<'s> {
    pub(crate) dir: &'s Dir,
    pub(crate) name: OsString,
    pub(crate) stat: Stat,
}

/// A further inode, ready to become a view.
#[derive(Debug)]
pub(crate) struct NewView<'s> {
    slot: Slot<'s>,
    blob: Blob,
    wanted: Wanted,
    inode: ViewInode,
    /// What has its name cannot be replaced, so it has none.
    refused: bool,
}

impl NewView<'_> {
    fn key(&self) -> ViewKey {
        (self.blob.checksum, self.wanted.fingerprint)
    }

    fn name(&self) -> OsString {
        name_of(&self.blob, &self.wanted.fingerprint)
    }
}

fn name_of(blob: &Blob, attributes: &[u8; 16]) -> OsString {
    view_name(&blob.checksum, attributes, blob.shard)
}

/// What becomes of a view that is there already and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays: somebody was quicker, and whoever linked to it goes on sharing it.
    Keep,
    /// Its links are used up.
    Replace,
}

impl Store {
    /// Those of these views that are there.
    pub(crate) fn known_views(&self, of: impl Iterator<Item = ViewKey>) -> Result<KnownViews> {
        let mut of = of.peekable();
        if of.peek().is_none() {
            return Ok(KnownViews::new());
        }
        self.catalog.read(|txn| {
            let mut known = KnownViews::new();
            for key in of {
                let inode = txn.view_inode(&key, self.unsynced_mark())?;
                known.extend(inode.map(|inode| (key, inode)));
            }
            Ok(known)
        })
    }

    /// An existing inode with the wanted attributes: a view, or the blob's own. The blob is plain.
    pub(crate) fn find_view(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        wanted: &Wanted,
        known: &KnownViews,
    ) -> Result<Option<Linkable<'_>>> {
        let key = (blob.checksum, wanted.fingerprint);
        if let Some(&inode) = known.get(&key)
            && let Some(view) = self.open_view(blob, wanted, inode)?
        {
            return Ok(Some(view));
        }
        let own = wanted
            .matches(&opened.file, &opened.stat)
            .at("examine", self.content_path(blob, Form::Plain))?;
        Ok(own.then(|| Linkable {
            dir: &self.root.content,
            name: blob.name_as(Form::Plain),
            stat: opened.stat,
        }))
    }

    fn open_view(
        &self,
        blob: &Blob,
        wanted: &Wanted,
        inode: ViewInode,
    ) -> Result<Option<Linkable<'_>>> {
        let dir = &self.root.views;
        let name = name_of(blob, &wanted.fingerprint);
        let file = match dir.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Somebody may be about to write it, by one of its other names: another view is made.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if is_bad_medium(&error) => return Ok(None),
            Err(error) => return Err(error).at("open", dir.path_of(&name)),
        };
        let stat = Stat::of_file(&file).at("examine", dir.path_of(&name))?;
        let fits = stat.size == blob.size
            && ViewInode::of(&stat) == inode
            && wanted
                .matches(&file, &stat)
                .at("examine", dir.path_of(&name))?;
        Ok(fits.then_some(Linkable { dir, name, stat }))
    }

    /// Gives a file of the store attributes, which make it the first view of its bytes. Where one cannot be set it is none, and
    /// a restore makes one when it needs it.
    pub(crate) fn set_attributes(file: &File, attributes: &Attributes, privileged: bool) {
        for unset in attributes::set(file, attributes, privileged) {
            tracing::debug!(what = unset.what, error = %unset.error, "an attribute was not set in the store");
        }
    }

    /// Makes a further inode with a blob's bytes and the wanted attributes; `None` where the store cannot have those.
    pub(crate) fn make_view(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        wanted: &Wanted,
        privileged: bool,
        activity: &Activity,
    ) -> Result<Option<NewView<'_>>> {
        let (slot, file) = self.create_slot()?;
        let path = self.root.views.path();
        match place::reflink(&opened.file, &file) {
            Err(error) if place::cannot_share(&error) => {
                self.copy_verified(
                    blob,
                    opened,
                    Output::File {
                        file: &file,
                        sync_soon: false,
                    },
                    activity,
                    Told::Later,
                )?;
            }
            result => result.at("make a view in", path)?,
        }
        if let Some(unset) = attributes::set(&file, &wanted.attributes, privileged).first() {
            tracing::debug!(what = unset.what, error = %unset.error, "no view with these attributes");
            return Ok(None);
        }
        Ok(Some(NewView {
            slot,
            blob: blob.clone(),
            wanted: wanted.clone(),
            inode: ViewInode::of(&Stat::of_file(&file).at("examine", path)?),
            refused: false,
        }))
    }

    /// Gives views their names and rows, unless somebody was quicker.
    pub(crate) fn commit_views(&self, views: &mut [NewView<'_>], existing: Existing) -> Result<()> {
        if views.is_empty() {
            return Ok(());
        }
        let mut given = Vec::new();
        let result = self.catalog.write(Sync::Normal, |txn| {
            given = self.intend(views.iter().map(|view| StoredName::view(view.name())))?;
            views
                .iter_mut()
                .try_for_each(|view| self.commit_view(txn, view, existing))
        });
        if result.is_err() {
            self.sweep_soon(&given);
        }
        result
    }

    fn commit_view(&self, txn: &Txn<'_>, view: &mut NewView<'_>, existing: Existing) -> Result<()> {
        if existing == Existing::Keep
            && let Some(inode) = txn.view_inode(&view.key(), self.unsynced_mark())?
            && self.open_view(&view.blob, &view.wanted, inode)?.is_some()
        {
            view.inode = inode;
            return Ok(());
        }
        let (views, name) = (&self.root.views, view.name());
        match view.slot.rename_to(views, &name) {
            Err(error) if error.kind() != ErrorKind::NoSpace => {
                tracing::warn!(%error, "a view cannot be made anew; its files are copied");
                view.refused = true;
                return Ok(());
            }
            result => result?,
        }
        if !txn.put_view(&view.key(), view.inode, self.unsynced_mark())? {
            // The blob has gone, and with it who would sweep its views.
            txn.orphan(&StoredName::view(name))?;
            view.refused = true;
        }
        Ok(())
    }

    /// The inode behind a view just committed; `None` where what has its name cannot be replaced.
    pub(crate) fn committed_view(&self, view: &NewView<'_>) -> Result<Option<Linkable<'_>>> {
        if view.refused {
            return Ok(None);
        }
        let dir = &self.root.views;
        let name = view.name();
        let stat = dir.stat(&name).at("examine", dir.path_of(&name))?;
        Ok(Some(Linkable { dir, name, stat }))
    }

    /// A view as the catalog has it now: what was known may have been replaced meanwhile.
    pub(crate) fn current_view(
        &self,
        blob: &Blob,
        wanted: &Wanted,
    ) -> Result<Option<Linkable<'_>>> {
        let key = (blob.checksum, wanted.fingerprint);
        let inode = self
            .catalog
            .read(|txn| txn.view_inode(&key, self.unsynced_mark()))?;
        match inode {
            Some(inode) => self.open_view(blob, wanted, inode),
            None => Ok(None),
        }
    }

    /// Reads a view and says whether its bytes are the blob's.
    pub(crate) fn view_is_right(
        &self,
        blob: &Blob,
        attributes: &[u8; 16],
        activity: &Activity,
    ) -> Result<bool> {
        let dir = &self.root.views;
        let name = name_of(blob, attributes);
        let file = match activity.open(dir, &name)? {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if is_bad_medium(&error) => return Ok(false),
            Err(error) => return Err(error).at("open", dir.path_of(&name)),
        };
        let opened = OpenBlob::new(file, Form::Plain).at("examine", dir.path_of(&name))?;
        self.is_right(blob, &self.extents(blob)?, &opened, activity)
    }

    /// Takes a view's row and name away. Files restored from it keep their inode.
    pub(crate) fn drop_view(&self, blob: &Blob, attributes: &[u8; 16]) -> Result<Swept> {
        let name = StoredName::view(name_of(blob, attributes));
        self.expect_orphans();
        self.catalog.write(Sync::Full, |txn| {
            txn.delete_view(&(blob.checksum, *attributes))?;
            txn.orphan(&name)
        })?;
        self.sweep(&[name])
    }

    /// Copies a blob's data, or decodes them from a packed one, and checks them in the same pass.
    ///
    /// # Errors
    /// `Damaged` when the bytes are not what they were; the row is marked then.
    pub(crate) fn copy_verified(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        output: Output<'_>,
        activity: &Activity,
        told: Told,
    ) -> Result<()> {
        let progress = |bytes| activity.advance(if told == Told::Here { bytes } else { 0 });
        let (file, hashing) = (&opened.file, Hashing::Checksum);
        let result = match opened.form {
            Form::Plain => pass(file, &self.extents(blob)?, output, hashing, &progress),
            Form::Packed => {
                pass_packed(file, blob.size, output, hashing, &progress).map(|(_, hashes)| hashes)
            }
        };
        activity.check()?;
        match result {
            Err(error) if is_wrong(&error) => {
                return Err(self.found_damaged(blob, opened, Some(error))?);
            }
            result => {
                let path = self.content_path(blob, opened.form);
                if result.at("copy", path)?.checksum != blob.checksum {
                    return Err(self.found_damaged(blob, opened, None)?);
                }
            }
        }
        if opened.form == Form::Packed {
            self.vouch(blob, opened);
        }
        Ok(())
    }
}
