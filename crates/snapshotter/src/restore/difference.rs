//! What differs between two files of pages: what is to be written into one, and where it is to have holes, for it to be the other.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::pages::Run;
use crate::fs::place::punch;
use crate::words::page::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;

/// What is to be done to a file that has become the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) write: Vec<Run>,
    punch: Vec<Range<u64>>,
}

impl Difference {
    pub(super) fn pages(&self) -> u64 {
        self.write.iter().map(|run| run.pages).sum()
    }

    /// Gives a file its length, and the holes that it lacks.
    pub(super) fn punch_into(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)?;
        for hole in &self.punch {
            let (at, end) = (hole.start * PAGE, (hole.end * PAGE).min(size));
            // What is behind the end has gone with it.
            if at < end {
                punch(file, at, end - at)?;
            }
        }
        Ok(())
    }

    pub(super) fn pieces(&self) -> u64 {
        2 * (self.write.len() + self.punch.len()) as u64
    }
}

/// What differs between two files whose packs have the same numbers. Runs ascend.
pub(super) fn difference(there: &[Run], wanted: &[Run]) -> Difference {
    let mut found = Difference::default();
    let (mut old, mut new) = (
        there.iter().copied().peekable(),
        wanted.iter().copied().peekable(),
    );
    // What is left of both begins at different places, or at one.
    while let (Some(was), Some(is)) = (old.peek_mut(), new.peek_mut()) {
        if was.at < is.at {
            let hole = was.take(is.at - was.at);
            found.hole(&hole);
        } else if is.at < was.at {
            let data = is.take(was.at - is.at);
            found.data(data);
        } else {
            let both = was.pages.min(is.pages);
            let is_same = (was.pack, was.page) == (is.pack, is.page);
            let (_, data) = (was.take(both), is.take(both));
            if !is_same {
                found.data(data);
            }
        }
        while old.next_if(|run| run.pages == 0).is_some() {}
        while new.next_if(|run| run.pages == 0).is_some() {}
    }
    old.for_each(|run| found.hole(&run));
    new.for_each(|run| found.data(run));
    found
}

impl Difference {
    fn data(&mut self, run: Run) {
        match self.write.last_mut() {
            Some(last) if last.is_continued_by(&run) => last.pages += run.pages,
            _ => self.write.push(run),
        }
    }

    fn hole(&mut self, run: &Run) {
        let pages = run.at..run.at + run.pages;
        match self.punch.last_mut() {
            Some(last) if last.end == pages.start => last.end = pages.end,
            _ => self.punch.push(pages),
        }
    }
}

impl Run {
    /// Cuts off the first pages, at most so many.
    pub(super) fn take(&mut self, pages: u64) -> Self {
        let pages = pages.min(self.pages);
        let first = Self { pages, ..*self };
        self.at += pages;
        self.page += pages;
        self.pages -= pages;
        first
    }

    fn is_continued_by(&self, next: &Self) -> bool {
        self.pack == next.pack
            && self.at + self.pages == next.at
            && self.page + self.pages == next.page
    }
}

/// In how many pieces a file is that has these runs alone.
pub(super) fn pieces(runs: &[Run]) -> u64 {
    let apart = runs
        .windows(2)
        .filter(|two| two[0].at + two[0].pages != two[1].at);
    apart.count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is at each page of a file.
    fn spread(runs: &[Run]) -> Vec<Option<(usize, u64)>> {
        let mut pages = vec![None; 64];
        for run in runs {
            for page in 0..run.pages {
                pages[(run.at + page) as usize] = Some((run.pack, run.page + page));
            }
        }
        pages
    }

    fn a_file() -> impl Strategy<Value = Vec<Run>> {
        let one = (0_u64..4, 1_u64..6, 0_usize..2, 0_u64..3);
        proptest::collection::vec(one, 0..8).prop_map(|all| {
            let mut at = 0;
            let run = |(gap, pages, pack, page)| {
                let run = Run {
                    pack,
                    page,
                    at: at + gap,
                    pages,
                };
                at = run.at + pages;
                run
            };
            all.into_iter().map(run).collect()
        })
    }

    proptest! {
        #[test]
        fn a_clone_with_the_difference_is_the_file(old in a_file(), new in a_file()) {
            let found = difference(&old, &new);
            let (before, mut pages) = (spread(&old), spread(&old));
            for hole in &found.punch {
                for page in hole.clone() {
                    prop_assert!(pages[page as usize].take().is_some());
                }
            }
            for (page, written) in spread(&found.write).into_iter().enumerate() {
                if written.is_some() {
                    prop_assert!(before[page] != written);
                    pages[page] = written;
                }
            }
            prop_assert_eq!(pages, spread(&new));
        }
    }
}
