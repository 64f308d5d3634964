//! The map's bytes. Each column is written by going over the extents once more, so that none of them is ever in memory.

use std::io::{self, Write};

use super::{Map, Packed};

/// What the columns are, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Gap,
    Pages,
    Pack,
    Page,
}

pub(super) const COLUMNS: [Column; 4] = [Column::Gap, Column::Pages, Column::Pack, Column::Page];

impl Map {
    /// How many bytes it is written in.
    pub fn encoded_length(&self) -> u64 {
        let lengths = COLUMNS.map(|column| 4 + self.column_length(column));
        if self.is_empty() {
            0
        } else {
            4 + lengths.iter().sum::<u64>()
        }
    }

    /// Writes its bytes; none where it is empty.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // 16 Mi extents at most, of 10 bytes at most in a column.
        out.write_all(&(self.extents.len() as u32).to_le_bytes())?;
        for column in COLUMNS {
            out.write_all(&(self.column_length(column) as u32).to_le_bytes())?;
            for number in self.column(column) {
                let (bytes, length) = leb128(number);
                out.write_all(&bytes[..length])?;
            }
        }
        Ok(())
    }

    fn column_length(&self, column: Column) -> u64 {
        let numbers = self.column(column);
        numbers.map(|number| leb128(number).1 as u64).sum()
    }

    fn column(&self, column: Column) -> impl Iterator<Item = u64> + '_ {
        let mut end = 0;
        let mut ends = Ends::default();
        self.extents.iter().map(move |extent| match column {
            Column::Gap => extent.start() - std::mem::replace(&mut end, extent.end()),
            Column::Pages => u64::from(extent.pages) - 1,
            Column::Pack => extent.pack().into(),
            Column::Page => ends.step(*extent),
        })
    }
}

/// Where in each pack the extent before ended.
#[derive(Debug, Default)]
struct Ends(Vec<u64>);

impl Ends {
    fn step(&mut self, extent: Packed) -> u64 {
        let pack = extent.pack() as usize;
        if pack >= self.0.len() {
            self.0.resize(pack + 1, 0);
        }
        let before = std::mem::replace(&mut self.0[pack], extent.end_in_pack());
        zig_zag(i64::from(extent.page) - before as i64)
    }
}

fn zig_zag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// A number in seven bits a byte, the lowest first, and how many bytes that are.
fn leb128(mut number: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        bytes[length] = number as u8 & 0x7f;
        number >>= 7;
        length += 1;
        if number == 0 {
            return (bytes, length);
        }
        bytes[length - 1] |= 0x80;
    }
}
