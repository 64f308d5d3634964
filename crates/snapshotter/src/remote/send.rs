//! One blob out of the store, to wherever contents are. It is hashed while it is read, and its last piece is held back until
//! the hash is right: so the other side never completes wrong bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::runtime::{self, Wanted, joined, rate_for, wait, wait_turn};
use crate::activity::Activity;
use crate::catalog::Blob;
use crate::pass::is_wrong;
use crate::pass::wire::read_stream;
use crate::rate::Rate;
use crate::store::{OpenBlob, Store};
use crate::transport::{ContentTransport, Existing, Presence, Published, Source, SourceSink};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::object::Object;

/// A blob that is being sent.
pub(super) struct Sending<'a> {
    store: &'a Store,
    blob: &'a Blob,
    map: &'a ExtentMap,
    opened: OpenBlob,
    rate: &'a Rate,
    activity: &'a Activity,
    /// Bytes of data of which the observer has heard: a stream may have to be begun again.
    observed: AtomicU64,
}

/// What a blob with this map is to a transport.
pub(super) fn object(blob: &Blob, map: &ExtentMap) -> Object {
    Object::stream(blob.digest, Some(blob.checksum), map.stream_size())
}

impl<'a> Sending<'a> {
    /// Opens a blob whose map is known.
    pub(super) fn open(
        store: &'a Store,
        blob: &'a Blob,
        map: &'a ExtentMap,
        rate: &'a Rate,
        activity: &'a Activity,
    ) -> Result<Self> {
        Ok(Self {
            store,
            blob,
            map,
            opened: store.open_good(blob, activity)?,
            rate,
            activity,
            observed: AtomicU64::new(0),
        })
    }

    /// Sends it, unless it is there, as often from its beginning as that takes. `found` is what a look found.
    pub(super) fn publish(
        &self,
        transport: &Arc<dyn ContentTransport>,
        existing: Existing,
        found: Presence,
    ) -> Result<Published> {
        let wanted = || self.activity.check();
        let object = object(self.blob, self.map);
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| self.read(give);
        let is_unseen = existing == Existing::Keep && !matches!(found, Presence::Size(_));
        let how = (existing, is_unseen);
        let ended = offer(transport, object, how, self.rate, &wanted, &read);
        if matches!(&ended, Err(error) if error.kind() == ErrorKind::AlreadyExists) {
            // Before another is said to be there: what is known of this one may be wrong.
            self.read(&mut |_| Ok(()))?;
        }
        ended
    }

    /// Reads the blob, and hands on what is read of it: the last piece only when all are right.
    fn read(&self, give: &mut dyn FnMut(Bytes) -> Result<()>) -> Result<()> {
        let mut last: Option<Bytes> = None;
        let mut refused = None;
        let mut emit = |piece: Bytes| {
            let given = last.replace(piece).map_or(Ok(()), &mut *give);
            given.map_err(|error| {
                refused = Some(error);
                io::Error::from(io::ErrorKind::BrokenPipe)
            })
        };
        let so_far = AtomicU64::new(0);
        let progress = |bytes| {
            let so_far = so_far.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let observed = self.observed.fetch_max(so_far, Ordering::Relaxed);
            self.activity.advance(so_far.saturating_sub(observed))
        };
        let (file, form) = (&self.opened.file, self.opened.form);
        let read = read_stream(file, form, self.map, &progress, &mut emit);
        self.activity.check()?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let checksum = match read {
            Err(error) if is_wrong(&error) => return Err(self.damaged(Some(error))?),
            read => read.at("read", self.store.content_path(self.blob, form))?,
        };
        if checksum != self.blob.checksum {
            return Err(self.damaged(None)?);
        }
        last.map_or(Ok(()), give)?;
        self.activity.check()
    }

    fn damaged(&self, why: Option<io::Error>) -> Result<Error> {
        self.store.found_damaged(self.blob, &self.opened, why)
    }
}

/// What becomes of an object that is there, where the caller insists on sending his own, or does not.
pub(super) fn existing(force: bool) -> Existing {
    match force {
        true => Existing::Replace,
        false => Existing::Keep,
    }
}

/// Reads something from its beginning and gives away what is read of it, until nobody takes more.
pub(super) type Reading<'a> = &'a dyn Fn(&mut dyn FnMut(Bytes) -> Result<()>) -> Result<()>;

/// Publishes what is read, as often from its beginning as that takes. A reason not to go on is kept here, and given to the
/// transport, which then gives up what it has.
pub(super) fn offer(
    transport: &Arc<dyn ContentTransport>,
    object: Object,
    (existing, is_unseen): (Existing, bool),
    rate: &Rate,
    wanted: Wanted<'_>,
    read: Reading<'_>,
) -> Result<Published> {
    let rate = rate_for(transport, rate);
    let (source, mut begun) = Source::stream(object.most);
    let transport = Arc::clone(transport);
    let call = runtime::start()?.spawn(async move {
        match is_unseen {
            true => transport.publish_unseen(object, source).await,
            false => transport.publish(object, existing, source).await,
        }
    });
    let mut failed = Ok(());
    while failed.is_ok()
        && let Ok(Some(sink)) = wait(wanted, async { Ok(begun.recv().await) })
    {
        let mut is_taken = true;
        let given = read(&mut |mut piece| {
            while !piece.is_empty() {
                let slice = rate.map_or(piece.len(), |rate| rate.slice(piece.len()));
                let slice = piece.split_to(slice);
                if let Some(rate) = rate {
                    wait_turn(rate, slice.len(), wanted)?;
                }
                is_taken = hand_over(&sink, Ok(slice), wanted);
                if !is_taken {
                    return Err(Error::new(ErrorKind::Cancelled, "nobody takes more"));
                }
            }
            Ok(())
        });
        // Whoever takes nothing more says why by itself.
        failed = if is_taken { given } else { Ok(()) };
        if let Err(error) = &failed {
            let reason = Error::new(error.kind(), "the bytes cannot be sent");
            hand_over(&sink, Err(reason), wanted);
        }
    }
    // There is nobody any more to begin it again.
    drop(begun);
    let ended = wait(wanted, joined(call));
    failed?;
    ended
}

/// Gives the other side something, as soon as it takes it, and says whether it did. A caller that gives up meanwhile is
/// not held by a server that takes nothing.
fn hand_over(sink: &SourceSink, piece: Result<Bytes>, wanted: Wanted<'_>) -> bool {
    let taken = wait(wanted, async { Ok(sink.send(piece).await) });
    matches!(taken, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::lock;
    use crate::rate::Rates;
    use crate::transport::{Call, Ranges, Sink};
    use crate::words::digest::Digest;
    use std::sync::Mutex;

    /// A place that notes how long each piece is that it gets.
    #[derive(Debug, Default)]
    struct Noting(Mutex<Vec<usize>>);

    impl ContentTransport for Noting {
        fn place(&self) -> String {
            "a test".to_owned()
        }

        fn size(&self, _: Object) -> Call<'_, Presence> {
            Box::pin(async { Ok(Presence::Absent) })
        }

        fn publish(&self, _: Object, _: Existing, source: Source) -> Call<'_, Published> {
            Box::pin(async move {
                let mut pieces = source.begin().await?;
                while pieces.left() > 0 {
                    let piece = pieces.next(u64::MAX).await?;
                    lock(&self.0).push(piece.len());
                }
                pieces.finish().await?;
                Ok(Published {
                    sent: true,
                    sha256: None,
                })
            })
        }

        fn fetch(&self, object: Object, _: Ranges, _: Sink) -> Call<'_, u64> {
            Box::pin(async move { Err(crate::transport::absent(object, "a test")) })
        }

        fn check(&self) -> Call<'_, ()> {
            Box::pin(async { Ok(()) })
        }
    }

    fn lengths(limit: Option<u64>) -> Vec<usize> {
        let noting = Arc::new(Noting::default());
        let transport: Arc<dyn ContentTransport> = noting.clone();
        let pieces = [1 << 20, 5_usize];
        let object = Object::stream(Digest::from_u64(1), None, (1 << 20) + 5);
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| {
            pieces
                .iter()
                .try_for_each(|len| give(Bytes::from(vec![0; *len])))
        };
        let rates = Rates::new(limit, None);
        let how = (Existing::Keep, false);
        offer(&transport, object, how, &rates.upload, &|| Ok(()), &read).unwrap();
        lock(&noting.0).clone()
    }

    /// A MiB had one turn: with eight transfers at 100 KiB a second a connection was silent for 80 seconds, and proxies cut it.
    #[test]
    fn with_a_limit_no_connection_waits_for_more_than_a_slice() {
        assert_eq!(lengths(None), [1 << 20, 5]);
        let mut slices = vec![16 << 10; 64];
        slices.push(5);
        assert_eq!(lengths(Some(1 << 30)), slices);
    }
}
