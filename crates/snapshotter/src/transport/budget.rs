//! One budget of bytes for all buffers of a transport.
//!
//! A buffer takes its [`Share`] before it is filled and owns it until its last `Bytes` is dropped, wherever that is by
//! then. Shares are given in the order they were asked for, each whole, so a large one is not starved by small ones.
//!
//! # Why nobody waits for ever
//!
//! A call may wait for the budget only where everything it already holds gets free without it:
//!
//! * An upload takes one share, at its start, for all the parts it will ever hold at once, and waits for no other. Its
//!   parts then take turns in that share ([`Window`]). That window is as wide as opendal's writer holds on to (one part
//!   waiting for its successor, `concurrency` parts under way, of which failed ones are kept until the next call) plus
//!   the one being filled, so there always is a turn for the part that drives the writer on. What fills a part comes
//!   from the caller, who reads files and waits for nothing of ours.
//! * A download takes its parts' shares in the order of the parts. While it waits for the next one, another task hands
//!   the earlier ones to the receiver, which gives their shares back. A receiver that waits for another call of the same
//!   transport while it keeps bytes would break this: the contract forbids it.
//!
//! Hence whoever holds a share can finish without getting another one, and the waiting end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a transport may keep in memory, in bytes, unless it is told otherwise.
pub(super) const DEFAULT: u32 = 48 << 20;

/// The bytes a transport may hold.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    total: u32,
}

/// A part of the budget, given back on drop.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "_opendal"),
    expect(dead_code, reason = "only uploads to object storage divide a share")
)]
pub(super) struct Share(OwnedSemaphorePermit);

impl Budget {
    pub(super) fn new(total: u32) -> Self {
        let free = Arc::new(Semaphore::new(total as usize));
        Self { free, total }
    }

    /// Waits for a share. One of more than the whole budget is cut down to the whole budget: its owner then is the only
    /// one with buffers, and exceeds the budget by a known amount.
    pub(super) async fn take(&self, bytes: u64) -> Share {
        let permits = self.permits(bytes);
        match Arc::clone(&self.free).acquire_many_owned(permits).await {
            Ok(permit) => Share(permit),
            Err(_) => unreachable!("nobody closes the semaphore"),
        }
    }

    /// A share, if it is free and nobody waits.
    #[cfg(feature = "_opendal")]
    pub(super) fn try_take(&self, bytes: u64) -> Option<Share> {
        let permits = self.permits(bytes);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(permits);
        permit.ok().map(Share)
    }

    /// All of it.
    #[cfg(feature = "_opendal")]
    pub(super) fn total(&self) -> u64 {
        self.total.into()
    }

    fn permits(&self, bytes: u64) -> u32 {
        u32::try_from(bytes).map_or(self.total, |bytes| bytes.min(self.total))
    }

    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        self.free.available_permits() == self.total as usize
    }
}

impl Share {
    /// Gives back what turned out not to be needed.
    #[cfg(feature = "_opendal")]
    pub(super) fn shrink(&mut self, bytes: u64) {
        let surplus = (self.0.num_permits() as u64).saturating_sub(bytes);
        if let Ok(surplus) = usize::try_from(surplus) {
            drop(self.0.split(surplus));
        }
    }
}

/// `bytes`, holding on to `owner` until the last of its clones and slices is dropped.
pub(super) fn held_by<T: Send + Sync + 'static>(bytes: Bytes, owner: Arc<T>) -> Bytes {
    struct Held<T> {
        bytes: Bytes,
        _owner: Arc<T>,
    }
    impl<T> AsRef<[u8]> for Held<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held {
        bytes,
        _owner: owner,
    })
}

/// Turns in one share for the parts of an upload.
#[cfg(feature = "_opendal")]
#[derive(Debug)]
pub(super) struct Window {
    turns: Arc<Semaphore>,
    share: Arc<Share>,
}

/// A part's turn: its bytes hold it.
#[cfg(feature = "_opendal")]
#[derive(Debug)]
pub(super) struct Turn {
    _turn: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

#[cfg(feature = "_opendal")]
impl Window {
    pub(super) fn new(share: Share, parts: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(parts)),
            share: Arc::new(share),
        }
    }

    pub(super) async fn turn(&self) -> Arc<Turn> {
        match Arc::clone(&self.turns).acquire_owned().await {
            Ok(turn) => Arc::new(Turn {
                _turn: turn,
                _share: Arc::clone(&self.share),
            }),
            Err(_) => unreachable!("nobody closes the semaphore"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_share_lives_as_long_as_the_last_bytes_cut_from_it() {
        let budget = Budget::new(100);
        let share = Arc::new(budget.take(60).await);
        let mut bytes = held_by(Bytes::from_static(b"abcdef"), share);
        let tail = bytes.split_off(3);
        drop(bytes);
        assert!(!budget.is_whole());
        drop(tail);
        assert!(budget.is_whole());
    }

    #[tokio::test]
    async fn more_than_there_is_means_all_there_is() {
        let budget = Budget::new(100);
        let share = budget.take(u64::MAX).await;
        assert!(budget.free.available_permits() == 0);
        drop(share);
        assert!(budget.is_whole());
    }

    #[cfg(feature = "_opendal")]
    #[tokio::test]
    async fn what_is_not_needed_goes_back_and_nobody_overtakes() {
        let budget = Budget::new(100);
        let mut share = budget.take(100).await;
        share.shrink(40);
        assert!(budget.try_take(61).is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { drop(budget.take(100).await) }
        });
        tokio::task::yield_now().await;
        assert!(budget.try_take(10).is_none(), "overtook the one who waits");
        drop(share);
        waiting.await.unwrap();
        assert!(budget.is_whole());
    }
}
