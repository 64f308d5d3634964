//! What a call is at: the kind of work, and of the files that are in work at once the one that has most bytes, which is what
//! the call will be waiting for.

use std::collections::BTreeMap;

use snapshotter::Phase;

/// What is in work.
pub struct Work {
    phase: Option<Phase>,
    /// The files that began and have not ended, with their sizes.
    files: BTreeMap<String, u64>,
}

impl Work {
    pub const fn new() -> Self {
        Self {
            phase: None,
            files: BTreeMap::new(),
        }
    }

    /// Says what was done before.
    pub fn begin(&mut self, phase: Phase) -> Option<Phase> {
        self.files.clear();
        self.phase.replace(phase)
    }

    pub fn start(&mut self, file: String, bytes: u64) {
        self.files.insert(file, bytes);
    }

    pub fn finish(&mut self, file: &str) {
        self.files.remove(file);
    }

    /// A line of at most so many characters. Of a path that is too long it has the end, which says most.
    pub fn line(&self, columns: usize) -> String {
        let phase = self.phase.map_or("", |at| phase(at).1);
        // Characters of other scripts may take two columns.
        let largest = self.files.iter().max_by_key(|(_, bytes)| **bytes);
        let Some((file, _)) = largest.filter(|(file, _)| file.is_ascii()) else {
            return phase.to_owned();
        };
        let room = columns.saturating_sub(phase.len() + 1);
        if file.len() <= room {
            return format!("{phase} {file}");
        }
        let end = file.len() - room.saturating_sub("...".len()).min(file.len());
        format!("{phase} ...{}", &file[end..])
    }
}

/// A phase for programs and for people.
pub fn phase(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Read => ("read", "reading"),
        Phase::Write => ("write", "writing"),
        Phase::Fetch => ("fetch", "fetching"),
        Phase::Send => ("send", "sending"),
        Phase::ReadBack => ("readBack", "reading back"),
        Phase::Copy => ("copy", "copying"),
        Phase::Verify => ("verify", "checking"),
        _ => ("other", "working"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bar named the file that was done last: of a memory of 64 GiB, for minutes, some small one before it.
    #[test]
    fn the_largest_of_the_files_in_work_is_named_as_far_as_there_is_room() {
        let mut work = Work::new();
        assert_eq!(work.begin(Phase::Read), None);
        assert_eq!(work.line(36), "reading");
        work.start("state.json".to_owned(), 20);
        work.start("images/of/a/machine/memory.img".to_owned(), 1 << 36);
        for (columns, line) in [
            (36, "reading ...s/of/a/machine/memory.img"),
            (76, "reading images/of/a/machine/memory.img"),
            (196, "reading images/of/a/machine/memory.img"),
        ] {
            assert_eq!(work.line(columns), line);
        }
        work.finish("images/of/a/machine/memory.img");
        assert_eq!(work.line(36), "reading state.json");
        assert_eq!(work.begin(Phase::Send), Some(Phase::Read));
        assert_eq!(work.line(36), "sending");
    }

    #[test]
    fn a_line_fits_whatever_the_file_is_called() {
        let mut work = Work::new();
        work.begin(Phase::ReadBack);
        for length in 0..250 {
            work.start("x".repeat(length), length as u64);
            for columns in 16..200 {
                assert!(work.line(columns).len() <= columns);
            }
        }
    }
}
