//! Getting back what a row no longer leads to: files under `storage/` are read for what they are, whatever the catalog
//! says of them, and bad ones are moved aside instead of being thrown away.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::Root;
use super::{Slot, Store, now, settled};
use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, NewBlob, Shard, StoredName, Sync, Tree, parse_content_name};
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, is_bad_medium, random_name, scan};
use crate::pass::{Hashes, Hashing, Output, holes_are_zero, is_wrong, pass};
use crate::pass::{claimed_size, pass_packed};
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Mtime;
use crate::words::error::{At, Result};
use crate::words::extent::ExtentMap;
use crate::words::form::{Form, ObjectKind};

/// A file that was read and has the bytes its name says.
#[derive(Debug)]
pub(crate) struct ReadBlob {
    pub(crate) form: Form,
    pub(crate) hashes: Hashes,
    pub(crate) map: ExtentMap,
    pub(crate) mtime: Option<Mtime>,
    inode: u64,
}

impl ReadBlob {
    /// The row it is to have.
    pub(crate) fn row<'a>(&'a self, shard: Shard, unsynced: Option<&'a str>) -> NewBlob<'a> {
        NewBlob {
            shard,
            checksum: self.hashes.checksum,
            digest: self.hashes.digest,
            form: self.form,
            map: &self.map,
            mtime: self.mtime,
            inode: Some(self.inode),
            unsynced,
            probe: None,
            now: now(),
        }
    }
}

/// Reads a file and sees whether it is the blob with this checksum, in this form. A plain one is read by the filesystem's
/// map, or by one that was known; a packed one says its own. `None`: it is not, or cannot be read.
pub(crate) fn read_blob(
    dir: &Dir,
    name: &OsStr,
    form: Form,
    checksum: &Checksum,
    known: Option<ExtentMap>,
    activity: &Activity,
) -> Result<Option<ReadBlob>> {
    let path = || dir.path_of(name);
    let file = match activity.open(dir, name)? {
        Ok(file) => file,
        Err(error) if is_unreadable(&error) => return Ok(None),
        Err(error) => return Err(error).at("open", path()),
    };
    let before = Stat::of_file(&file).at("examine", path())?;
    if before.kind != Kind::File {
        return Ok(None);
    }
    let mtime = settled(&before);
    let read = match form {
        Form::Plain => read_plain(&file, before.size, checksum, known, activity),
        Form::Packed => read_packed(&file, activity),
    };
    activity.check()?;
    let (map, hashes) = match read {
        Err(error) if is_unreadable(&error) || is_wrong(&error) => return Ok(None),
        read => match read.at("read", path())? {
            Some(read) => read,
            None => return Ok(None),
        },
    };
    if hashes.checksum != *checksum {
        return Ok(None);
    }
    let after = Stat::of_file(&file).at("examine", path())?;
    Ok(Some(ReadBlob {
        form,
        hashes,
        map,
        mtime: mtime.filter(|_| after.same_bytes_since(&before)),
        inode: after.ino,
    }))
}

type Read = (ExtentMap, Hashes);

/// `None`: by no map is it the blob.
fn read_plain(
    file: &File,
    size: u64,
    checksum: &Checksum,
    known: Option<ExtentMap>,
    activity: &Activity,
) -> io::Result<Option<Read>> {
    let own = scan::extents(file, size).ok();
    let maps = own.into_iter().chain(known);
    for map in maps.filter(|map| map.size() == size) {
        let progress = |_| activity.advance(0);
        let hashes = pass(file, &map, Output::None, Hashing::Both, &progress)?;
        if hashes.checksum == *checksum && holes_are_zero(file, &map)? {
            return Ok(Some((map, hashes)));
        }
    }
    Ok(None)
}

fn read_packed(file: &File, activity: &Activity) -> io::Result<Option<Read>> {
    let size = claimed_size(file)?;
    let progress = |_| activity.advance(0);
    pass_packed(file, size, Output::None, Hashing::Both, &progress).map(Some)
}

/// Errors that are about this file, and not about the store.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::UnexpectedEof
    ) || error.raw_os_error() == Some(libc::ELOOP)
        || is_bad_medium(error)
}

impl Root {
    /// Moves a name out of the store to `quarantine/`, where nothing of this program looks, and says where it is. The
    /// caller holds the names lock.
    pub(crate) fn set_aside(&self, dir: &Dir, name: &OsStr) -> Result<PathBuf> {
        let aside = self
            .dir
            .ensure_dir(OsStr::new(super::layout::QUARANTINE), 0o700)?;
        let random = random_name().at("read random bytes for", aside.path())?;
        // Without its shard.
        let mut to = Path::new(name).file_name().unwrap_or(name).to_owned();
        to.push(".");
        to.push(random);
        dir.rename(name, &aside, &to)
            .at("move to quarantine", dir.path_of(name))?;
        Ok(aside.path_of(&to))
    }
}

/// The names that blobs and their views have under `storage/`, in whatever shards. They are listed once a repair, because
/// the trees may have very many; whether one still is there is seen when its file is read.
#[derive(Debug)]
pub(crate) struct NamesOfBlobs(HashMap<Checksum, Vec<StoredName>>);

impl NamesOfBlobs {
    pub(super) fn of(&self, checksum: &Checksum, tree: Tree) -> impl Iterator<Item = &OsStr> {
        let all = self.0.get(checksum).into_iter().flatten();
        all.filter(move |name| name.tree == tree)
            .map(|name| &*name.name)
    }
}

impl Store {
    /// Looks for the names of these blobs.
    pub(crate) fn names_of_blobs(&self, wanted: &HashSet<Checksum>) -> Result<NamesOfBlobs> {
        let mut found: HashMap<Checksum, Vec<StoredName>> = HashMap::new();
        for tree in [Tree::Content, Tree::Views] {
            for name in self.root.names(tree)? {
                let name = StoredName { tree, name };
                if let Some(checksum) = name.checksum().filter(|one| wanted.contains(one)) {
                    found.entry(checksum).or_default().push(name);
                }
            }
        }
        Ok(NamesOfBlobs(found))
    }

    /// Mends a blob with what is here: a file of its own, in either form, where only the row was wrong, or a view with its
    /// bytes.
    pub(crate) fn mend(
        &self,
        blob: &Blob,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        let known = || self.catalog.read(|txn| txn.extents(blob)).ok().flatten();
        let read = |dir: &Dir, name: &OsStr, form| {
            read_blob(dir, name, form, &blob.checksum, known(), activity)
        };
        for form in [blob.form, blob.form.other()] {
            let name = blob.name_as(form);
            if let Some(read) = read(&self.root.content, &name, form)? {
                self.replace(blob, &read, None)?;
                return Ok(true);
            }
        }
        if self.mend_from_elsewhere(blob, names, activity)? {
            return Ok(true);
        }
        for view in names.of(&blob.checksum, Tree::Views) {
            if let Some(read) = read(&self.root.views, view, Form::Plain)? {
                self.replace(blob, &read, Some(view))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a file with the blob's bytes that is in another shard: an older catalog knew another one.
    fn mend_from_elsewhere(
        &self,
        blob: &Blob,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        let Some((name, read, shard)) = self.find(&blob.checksum, names, activity)? else {
            return Ok(false);
        };
        let row = read.row(shard, Some(self.unsynced_mark()));
        self.catalog
            .write(Sync::Full, |txn| match txn.blob(&blob.checksum)? {
                Some(now) if self.has_content(name)? => txn.move_blob(&now, &row).map(|()| true),
                _ => Ok(false),
            })
    }

    /// A file that has a blob's name, in whatever shard, and its bytes.
    fn find<'n>(
        &self,
        checksum: &Checksum,
        names: &'n NamesOfBlobs,
        activity: &Activity,
    ) -> Result<Option<(&'n OsStr, ReadBlob, Shard)>> {
        for name in names.of(checksum, Tree::Content) {
            activity.check()?;
            let Some((_, ObjectKind::Blob(form), shard)) = parse_content_name(name) else {
                continue;
            };
            let read = read_blob(&self.root.content, name, form, checksum, None, activity)?;
            if let Some(read) = read {
                return Ok(Some((name, read, shard)));
            }
        }
        Ok(None)
    }

    /// Writes a blob's row anew; its file becomes a further name of a view where one is given. The file of the other form,
    /// if there is one, is litter then.
    fn replace(&self, blob: &Blob, read: &ReadBlob, view: Option<&OsStr>) -> Result<()> {
        let name = blob.name_as(read.form);
        let other = StoredName::content(blob.name_as(read.form.other()));
        let mut slot = view.map(|view| self.link_view(view)).transpose()?;
        self.catalog.write(Sync::Normal, |txn| {
            if txn.blob(&blob.checksum)?.is_none() {
                return Ok(());
            }
            match &mut slot {
                Some(slot) => slot.rename_to(&self.root.content, &name)?,
                // It got the other form meanwhile.
                None if !self.has_content(&name)? => return Ok(()),
                None => {}
            }
            txn.replace_blob(&read.row(blob.shard, Some(self.unsynced_mark())))?;
            txn.orphan(&other)
        })?;
        self.sweep_soon(&[other]);
        Ok(())
    }

    fn link_view(&self, view: &OsStr) -> Result<Slot<'_>> {
        let views = &self.root.views;
        let file = views.open_file(view).at("open", views.path_of(view))?;
        self.link_slot(&file)?.at("link", views.path_of(view))
    }

    /// Gives a file that is under its name, in whatever shard, a row again, or the row the right columns, and a snapshot
    /// the reference. `false`: it is not there, or has other bytes.
    pub(crate) fn adopt(
        &self,
        snapshot: i64,
        digest: Digest,
        checksum: &Checksum,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        match self.find(checksum, names, activity)? {
            Some((name, read, shard)) if read.hashes.digest == digest => {
                let row = read.row(shard, Some(self.unsynced_mark()));
                self.adopt_read(snapshot, name, &row)
            }
            _ => Ok(false),
        }
    }

    fn adopt_read(&self, snapshot: i64, name: &OsStr, row: &NewBlob<'_>) -> Result<bool> {
        self.catalog.write(Sync::Full, |txn| {
            let there = txn.blob(&row.checksum)?;
            match there {
                Some(blob) if blob.name() == name => txn.replace_blob(row)?,
                // It has another file, which is bad or gone, and another row is what this one needs.
                Some(blob) => txn.move_blob(&blob, row)?,
                // Swept meanwhile: a row needs its file.
                None if !self.has_content(name)? => return Ok(false),
                None => txn.insert_blob(row)?,
            }
            txn.reference_object(snapshot, &row.checksum)?;
            Ok(true)
        })
    }

    pub(super) fn has_content(&self, name: &OsStr) -> Result<bool> {
        let content = &self.root.content;
        let stat = content.stat_if_any(name).at("examine", content.path())?;
        Ok(stat.is_some_and(|stat| stat.kind == Kind::File))
    }

    /// Moves the file of a blob that is marked damaged aside; the blob is missing then. `None`: it is right by now, gone,
    /// or no file.
    pub(crate) fn quarantine(&self, blob: &Blob) -> Result<Option<PathBuf>> {
        self.catalog.write(Sync::Full, |txn| {
            let now = txn.blob(&blob.checksum)?;
            let Some(now) = now.filter(|now| now.state == BlobState::Damaged) else {
                return Ok(None);
            };
            let name = now.name();
            if !self.has_content(&name)? {
                return Ok(None);
            }
            let aside = self.root.set_aside(&self.root.content, &name)?;
            txn.mark_object(&now.checksum, now.form, BlobState::Missing)?;
            Ok(Some(aside))
        })
    }
}
