//! What the bar's line says in the columns there are. It is never cut within a number: where there is no room the bar gets
//! shorter, then goes, and at last the amounts become a percentage.

use std::time::Duration;

use crate::output::human::{bytes, duration};

/// How far a call has got.
pub struct Standing<'a> {
    pub title: &'a str,
    pub done: u64,
    pub total: u64,
    /// Bytes a second.
    pub rate: u64,
    pub left: Duration,
}

impl Standing<'_> {
    /// A line of at most so many characters, if it can be.
    pub fn line(&self, columns: usize) -> String {
        let title = self.title;
        let pace = format!("{}/s, {} left", bytes(self.rate), self.left());
        let figures = format!("{} of {}, {pace}", bytes(self.done), bytes(self.total));
        let room = columns.saturating_sub(title.len() + figures.len() + "[]  ".len());
        if room >= 5 {
            format!("{title} {} {figures}", self.bar(room.min(20)))
        } else if title.len() + 1 + figures.len() <= columns {
            format!("{title} {figures}")
        } else if figures.len() <= columns {
            figures
        } else {
            format!("{}%, {pace}", self.part(100))
        }
    }

    fn left(&self) -> String {
        match self.left.as_secs() / 3600 {
            0..100 => duration(self.left),
            _ => "over 99 h".to_owned(),
        }
    }

    fn bar(&self, cells: usize) -> String {
        let done = "=".repeat(self.part(cells as u64) as usize) + ">";
        format!("[{done:cells$.cells$}]")
    }

    /// How much of the whole is done, of so many.
    fn part(&self, whole: u64) -> u64 {
        let done = u128::from(self.done) * u128::from(whole);
        done.checked_div(self.total.into()).unwrap_or(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn standing(title: &str, amounts: [u64; 3], left: u64) -> Standing<'_> {
        let [done, total, rate] = amounts;
        let left = Duration::from_secs(left);
        Standing {
            title,
            done,
            total,
            rate,
            left,
        }
    }

    /// A line was cut at 40 columns, and at 80 it had no bar or was cut where a number had four digits.
    #[test]
    fn numbers_are_whole_at_each_width() {
        let usual = standing("vm:v1", [5 * GIB, 20 * GIB, GIB / 5], 75);
        let most = standing("vm:v1", [1023 * GIB, 1023 * GIB, 1023 << 20], 359_999);
        for (standing, columns, line) in [
            (&usual, 36, "25%, 204.8 MiB/s, 1 min 15 s left"),
            (&most, 36, "100%, 1023.0 MiB/s, 99 h 59 min left"),
            (
                &usual,
                76,
                "vm:v1 [====>             ] 5.0 GiB of 20.0 GiB, 204.8 MiB/s, 1 min 15 s left",
            ),
            (
                &most,
                76,
                "vm:v1 [===========] 1023.0 GiB of 1023.0 GiB, 1023.0 MiB/s, 99 h 59 min left",
            ),
            (
                &usual,
                196,
                "vm:v1 [=====>              ] 5.0 GiB of 20.0 GiB, 204.8 MiB/s, 1 min 15 s left",
            ),
        ] {
            assert_eq!(standing.line(columns), line);
        }
    }

    /// Nothing that a call can come to is wider than a terminal of 40 columns has room for.
    #[test]
    fn a_line_fits_whatever_the_numbers_are() {
        let sizes = [
            0,
            1,
            1023,
            1_048_000,
            GIB - 100_000_000,
            1_000 * GIB,
            i64::MAX as u64,
        ];
        for (done, rate) in sizes
            .into_iter()
            .flat_map(|one| sizes.map(|other| (one, other)))
        {
            for left in [0, 59, 3599, 359_999, u64::MAX] {
                let title = "a-name-that-is-rather-long-in-itself:v1";
                let standing = standing(title, [done, i64::MAX as u64, rate], left);
                for columns in 36..200 {
                    let line = standing.line(columns);
                    assert!(line.len() <= columns, "{line:?} in {columns}");
                    assert!(line.contains(" left"), "{line:?}");
                }
            }
        }
    }
}
