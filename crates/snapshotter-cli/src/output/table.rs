//! Aligned columns. What can be wide, or in any script, belongs into the last column, which is never padded.

use std::fmt::{Display, Write as _};
use std::io;

use super::STRONG;

/// On which side a column is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under titles. Long lists are common, so the cells share one text instead of having one each.
pub struct Table {
    titles: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
    text: String,
    /// Where each cell ends in the text, and how many characters it has.
    cells: Vec<(usize, usize)>,
}

/// What a row is given to, as long as the titles.
pub type Row<'a> = &'a mut dyn FnMut(&[&dyn Display]) -> io::Result<()>;

/// What gives all rows.
pub type Rows<'a> = &'a dyn Fn(Row<'_>) -> io::Result<()>;

impl Table {
    /// A table with these columns.
    pub fn new(titles: impl Into<Vec<(&'static str, Align)>>) -> Self {
        let titles = titles.into();
        Self {
            widths: titles.iter().map(|(title, _)| title.len()).collect(),
            titles,
            text: String::new(),
            cells: Vec::new(),
        }
    }

    /// Adds a row, as long as the titles.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            let start = self.text.len();
            // Writing to a string does not fail.
            let _ = write!(self.text, "{cell}");
            let characters = self.text[start..].chars().count();
            *width = characters.max(*width);
            self.cells.push((self.text.len(), characters));
        }
    }

    /// Writes it.
    pub fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.write_titles(out)?;
        self.write_rows(out)
    }

    /// Writes rows that are too many to be kept: they are given twice, once to be measured.
    pub fn write_each(mut self, out: &mut dyn io::Write, rows: Rows<'_>) -> io::Result<()> {
        rows(&mut |cells| {
            self.row(cells);
            self.forget_rows();
            Ok(())
        })?;
        self.write_titles(out)?;
        rows(&mut |cells| {
            self.row(cells);
            self.write_rows(out)?;
            self.forget_rows();
            Ok(())
        })
    }

    /// Their columns stay as wide.
    fn forget_rows(&mut self) {
        self.text.clear();
        self.cells.clear();
    }

    fn write_titles(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut text = STRONG.render().to_string();
        for (column, (title, _)) in self.titles.iter().enumerate() {
            self.cell(&mut text, column, title, title.len());
        }
        writeln!(out, "{text}{STRONG:#}")
    }

    fn write_rows(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut text = String::with_capacity(self.text.len() * 2);
        let mut start = 0;
        for row in self.cells.chunks(self.titles.len()) {
            for (column, (end, characters)) in row.iter().enumerate() {
                self.cell(&mut text, column, &self.text[start..*end], *characters);
                start = *end;
            }
            // The last cell may be empty.
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        out.write_all(text.as_bytes())
    }

    fn cell(&self, out: &mut String, column: usize, text: &str, characters: usize) {
        if column > 0 {
            out.push_str("  ");
        }
        let blanks = std::iter::repeat_n(' ', self.widths[column] - characters);
        let last = column + 1 == self.titles.len();
        match self.titles[column].1 {
            Align::Right => {
                out.extend(blanks);
                out.push_str(text);
            }
            Align::Left => {
                out.push_str(text);
                out.extend(blanks.filter(|_| !last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new([
            ("NAME", Align::Left),
            ("SIZE", Align::Right),
            ("PATH", Align::Left),
        ]);
        table.row(&[&"a", &"1 B", &"x"]);
        table.row(&[&"longer", &"100 B", &"a path"]);
        table.row(&[&"none", &"2 B", &""]);
        let mut text = Vec::new();
        table
            .write(&mut anstream::StripStream::new(&mut text))
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME     SIZE  PATH\na         1 B  x\nlonger  100 B  a path\nnone      2 B\n"
        );
    }

    #[test]
    fn rows_that_are_not_kept_are_written_alike() {
        let titles = [("NAME", Align::Left), ("SIZE", Align::Right)];
        let rows: [[&dyn Display; 2]; 3] = [[&"a", &1], [&"longer", &100], [&"", &"many"]];
        let (mut kept, mut made) = (Vec::new(), Vec::new());
        let mut table = Table::new(titles);
        rows.iter().for_each(|row| table.row(row));
        table.write(&mut kept).unwrap();
        let each = |row: Row<'_>| rows.iter().try_for_each(|cells| row(cells));
        Table::new(titles).write_each(&mut made, &each).unwrap();
        assert_eq!(made, kept);
    }
}
