//! A pack as it goes by: whoever has its table already sees of each frame whether it is right before the next one comes.

use super::{FOOTER_BYTES, Footer, Layout, MAGIC, PackError};

/// Holds a stream of bytes against the layout of the pack that it should be.
#[derive(Debug)]
pub struct StreamChecker {
    layout: Layout,
    /// The table and the footer, which are the last bytes.
    tail: Vec<u8>,
    /// What is not looked at yet.
    pending: Vec<u8>,
    /// How many frames were right.
    checked: usize,
    begun: bool,
}

impl StreamChecker {
    /// From the last bytes of an object of `length` bytes: all from the table on.
    ///
    /// # Errors
    /// When they are no table and footer of such an object.
    pub fn new(tail: Vec<u8>, length: u64) -> Result<Self, PackError> {
        let (table, footer) = tail
            .split_last_chunk::<FOOTER_BYTES>()
            .ok_or(PackError::Lengths)?;
        let layout = Layout::parse(Footer::parse(footer, length)?, table)?;
        Ok(Self {
            layout,
            tail,
            pending: Vec::new(),
            checked: 0,
            begun: false,
        })
    }

    /// Where the frames are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// When a frame that they end is not what was stored.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        if !self.begun {
            let Some(start) = self.pending.first_chunk() else {
                return Ok(());
            };
            Layout::check_start(start)?;
            (self.begun, at) = (true, MAGIC.len());
        }
        while let Some(frame) = self.layout.frames().get(self.checked) {
            let end = at + frame.stored as usize;
            let Some(stored) = self.pending.get(at..end) else {
                break;
            };
            frame.check(stored)?;
            (self.checked, at) = (self.checked + 1, end);
        }
        self.pending.drain(..at);
        // Nothing is behind the frames but what is known: so no more than a frame or the tail is kept.
        match self.checked == self.layout.frames().len() && self.pending.len() > self.tail.len() {
            true => Err(PackError::Lengths),
            false => Ok(()),
        }
    }

    /// Says whether that was all.
    ///
    /// # Errors
    /// When it was not.
    pub fn finish(self) -> Result<(), PackError> {
        if self.checked < self.layout.frames().len() || self.pending != self.tail {
            return Err(PackError::Lengths);
        }
        Ok(())
    }
}
