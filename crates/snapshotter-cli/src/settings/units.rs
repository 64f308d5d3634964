//! Durations and sizes as text.

use std::time::Duration;

/// Units in milliseconds, the largest first.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// `30s`, `1h30m`, `1.5h`, `250ms`, `1w`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut milliseconds = 0u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !is_of_number(c))?);
        let (unit, after) = after.split_at(after.find(is_of_number).unwrap_or(after.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        let part = scaled(number, *size)?;
        milliseconds = milliseconds.checked_add(part)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then(|| Duration::from_millis(milliseconds))
}

/// As [`parse_duration`] reads it.
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    // Weeks are read and not written: `10d` and not `1w3d`.
    for (unit, size) in &UNITS[1..] {
        if rest / size > 0 {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Units of sizes as they are written, the largest first.
const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Others that are read: a letter alone is binary, as for coreutils, and with a B it is decimal.
const OTHER_SIZES: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("kB", 1000),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

/// `100GiB`, `1.5 GiB`, `10GB`, `0`, and without a unit bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.find(|c: char| !is_of_number(c)) {
        Some(at) => text.split_at(at),
        None => (text, "B"),
    };
    let mut sizes = SIZES.iter().chain(&OTHER_SIZES);
    let (_, size) = sizes.find(|(name, _)| *name == unit.trim_start())?;
    scaled(number, *size)
}

fn is_of_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

/// A number, perhaps with a fraction, times a unit. There are no parts of the smallest.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_whole = !number.contains('.');
    if !is_whole && (unit == 1 || whole.is_empty() || fraction.is_empty() || fraction.len() > 9) {
        return None;
    }
    let part = fraction.parse::<u128>().ok()? * u128::from(unit);
    let part = part / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// As [`parse_bytes`] reads it, exactly.
pub fn bytes_text(bytes: u64) -> String {
    let fits = |(_, size): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*size);
    let (unit, size) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
            ("1m 30s", 90_000),
            ("1w", 604_800_000),
            ("1.5h", 5_400_000),
            ("0.25s 1ms", 251),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "s",
            "1y",
            "-1s",
            "1.5ms",
            ".5s",
            "1.s",
            "1.2.3s",
            "99999999999999999999s",
            "1.0000000001w",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("100GiB", 100 << 30),
            ("5 MiB", 5 << 20),
            ("0", 0),
            ("1000", 1000),
            ("7B", 7),
            ("1025KiB", 1025 << 10),
            ("1.5GiB", 3 << 29),
            ("10GB", 10_000_000_000),
            ("2.5 TB", 2_500_000_000_000),
            ("64K", 64 << 10),
            ("0.001kB", 1),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
            assert_eq!(parse_bytes(&bytes_text(bytes)), Some(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "1gb",
            "-1",
            "1.5",
            "1.5B",
            ".5GiB",
            "1.GiB",
            "99999999TiB",
            "1e3",
        ] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
