//! Numbers, times and names as people read them. Binary units, because that is what memory and disks come in.

use std::path::Path;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 is 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 file`, `12 files`.
pub fn count(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// `120 ms`, `4.5 s`, `3 min 20 s`.
pub fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `3 min ago`, `1 day ago`.
pub fn relative(time: SystemTime, now: SystemTime) -> String {
    let Ok(ago) = now.duration_since(time) else {
        return "in the future".to_owned();
    };
    match ago.as_secs() {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} ago", count(seconds / 86_400, "day")),
    }
}

/// `2026-07-27 10:11:12 UTC`.
pub fn absolute(time: SystemTime) -> String {
    let (date, clock) = (
        OffsetDateTime::from(time).date(),
        OffsetDateTime::from(time).time(),
    );
    let (hour, minute, second) = clock.as_hms();
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// RFC 3339 in UTC, for programs.
pub fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| absolute(time))
}

/// A reference as it is typed: without the digest it has been found to have.
pub fn without_digest(reference: &str) -> &str {
    reference
        .split_once('@')
        .map_or(reference, |(name, _)| name)
}

/// A path that does nothing to a terminal.
pub fn path(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

/// The text with control characters, and those that turn the direction of what follows, made visible.
pub fn visible(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_binary() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn times_are_relative_in_the_largest_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000);
        for (ago, text) in [
            (0, "just now"),
            (59, "just now"),
            (61, "1 min ago"),
            (7200, "2 h ago"),
            (86_400 * 3, "3 days ago"),
        ] {
            assert_eq!(relative(now - Duration::from_secs(ago), now), text);
        }
        assert_eq!(relative(now + Duration::from_secs(1), now), "in the future");
        assert_eq!(absolute(now), "1970-04-26 17:46:40 UTC");
    }

    #[test]
    fn durations() {
        for (milliseconds, text) in [
            (4, "4 ms"),
            (1234, "1.2 s"),
            (12_340, "12.3 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(visible("a\x1b[31m\u{202e}é\n"), "a\\u{1b}[31m\\u{202e}é\\n");
    }
}
