//! Buffers that are used again. A fresh one costs as much as filling it: the kernel gives zeroed pages one fault at a
//! time, and safe code zeroes once more. So a stream's pieces go round: when the last reader of one drops it, its
//! memory waits for the next.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// More than this many are not kept.
const KEPT: usize = 16;

/// The buffers of one stream or transport, all of one length.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    len: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer that comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    home: Buffers,
}

impl Buffers {
    /// None yet; each will have `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            len,
            free: Arc::default(),
        }
    }

    /// A buffer with anything in it.
    pub(crate) fn take(&self) -> Buffer {
        let kept = self.lock().pop();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; self.len]),
            used: self.len,
            home: self.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The first `used` bytes, for whoever reads them.
    pub(crate) fn freeze(mut self, used: usize) -> Bytes {
        self.used = used;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.lock();
        if self.bytes.len() == self.home.len && free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_round_and_nobody_sees_it_change() {
        let buffers = Buffers::new(8);
        let mut first = buffers.take();
        first.bytes_mut().fill(1);
        let address = first.bytes_mut().as_ptr();
        let bytes = first.freeze(3);
        let copy = bytes.clone();
        drop(bytes);
        // Somebody still reads it: the next is another.
        let mut second = buffers.take();
        second.bytes_mut().fill(2);
        assert_eq!(&copy[..], &[1, 1, 1]);
        drop(copy);
        assert_eq!(buffers.take().bytes_mut().as_ptr(), address);
    }
}
