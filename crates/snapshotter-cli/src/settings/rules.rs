//! `[[prune.rule]]`: which versions of which names `gc --watch` keeps. A rule has the flags of `snapshotter prune` for keys. In a
//! variable all rules are one TOML array of inline tables.

use std::fmt::Write as _;

use snapshotter::{PruneRule, Retention};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{duration_text, parse_duration};

const NUMBER: &str = "a whole number, or \"unlimited\"";
const TEXTS: &str = "a list of patterns, [\"vm-*\"] for one";

/// Where a text is wrong, in bytes, and why.
pub struct Wrong(pub usize, pub String);

/// How many to keep.
pub fn parse_count(text: &str) -> Option<u64> {
    match text {
        "unlimited" | "-1" => Some(Retention::UNLIMITED),
        number => number.parse().ok(),
    }
}

/// As [`text`] writes them; nothing is no rules.
pub fn parse(text: &str) -> Option<Vec<PruneRule>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let text = format!("rule = {text}");
    let table = DeTable::parse(&text).ok()?;
    match table.get_ref().get("rule")?.get_ref() {
        DeValue::Array(rules) => read(rules).ok(),
        _ => None,
    }
}

/// What a file says.
pub fn read(rules: &DeArray<'_>) -> Result<Vec<PruneRule>, Wrong> {
    rules.iter().map(rule).collect()
}

fn rule(given: &Spanned<DeValue<'_>>) -> Result<PruneRule, Wrong> {
    let at = given.span().start;
    let DeValue::Table(table) = given.get_ref() else {
        return Err(Wrong(at, "a rule of prune should be a table".to_owned()));
    };
    let mut rule = PruneRule::new([""; 0], Retention::default());
    for (key, value) in table {
        let read = set(&mut rule, key.get_ref(), value.get_ref());
        read.map_err(|why| Wrong(key.span().start, why))?;
    }
    if rule.names.is_empty() || rule.keep.is_empty() {
        let why = "a rule of prune should have names, and say what to keep of them: keep_last, keep_daily and so on";
        return Err(Wrong(at, why.to_owned()));
    }
    Ok(rule)
}

fn set(rule: &mut PruneRule, key: &str, value: &DeValue<'_>) -> Result<(), String> {
    let keep = &mut rule.keep;
    let bad = |rule| format!("this is no value for {key}: it should be {rule}");
    let count = || count(value).ok_or_else(|| bad(NUMBER));
    let patterns = || {
        let texts = texts(value).ok_or_else(|| bad(TEXTS))?;
        match texts.iter().find(|text| glob::Pattern::new(text).is_err()) {
            Some(text) => Err(format!("{text:?} in {key} is no pattern")),
            None => Ok(texts),
        }
    };
    match key {
        "names" => rule.names = patterns()?,
        "keep_last" => keep.last = count()?,
        "keep_hourly" => keep.hourly = count()?,
        "keep_daily" => keep.daily = count()?,
        "keep_weekly" => keep.weekly = count()?,
        "keep_monthly" => keep.monthly = count()?,
        "keep_yearly" => keep.yearly = count()?,
        "keep_within" => {
            let within = value.as_str().and_then(parse_duration);
            keep.within = within.ok_or_else(|| bad("a number and a unit, \"7d\" for one"))?;
        }
        "keep_version" => keep.versions = patterns()?,
        "include_unpublished" => {
            rule.include_unpublished = value.as_bool().ok_or_else(|| bad("true or false"))?;
        }
        _ => return Err(format!("a rule of prune has no key {key:?}")),
    }
    Ok(())
}

fn count(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(number) => parse_count(&number.as_str().replace('_', "")),
        DeValue::String(text) => parse_count(text),
        _ => None,
    }
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts
        .map(|text| Some(text.get_ref().as_str()?.to_owned()))
        .collect()
}

/// As [`parse`] reads them.
pub fn text(rules: &[PruneRule]) -> String {
    let rules: Vec<_> = rules.iter().map(rule_text).collect();
    format!("[{}]", rules.join(", "))
}

fn rule_text(rule: &PruneRule) -> String {
    let keep = &rule.keep;
    let mut text = format!("{{ names = {:?}", rule.names);
    for (key, count) in [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ] {
        let _ = match count {
            0 => Ok(()),
            Retention::UNLIMITED => write!(text, ", keep_{key} = \"unlimited\""),
            count => write!(text, ", keep_{key} = {count}"),
        };
    }
    if !keep.within.is_zero() {
        let _ = write!(text, ", keep_within = {:?}", duration_text(keep.within));
    }
    if !keep.versions.is_empty() {
        let _ = write!(text, ", keep_version = {:?}", keep.versions);
    }
    if rule.include_unpublished {
        text.push_str(", include_unpublished = true");
    }
    text + " }"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_back_from_how_they_are_shown() {
        let shown = r#"[{ names = ["vm-*", "a\"b"], keep_last = 3, keep_daily = "unlimited", keep_within = "1d12h", keep_version = ["r*"], include_unpublished = true }, { names = ["*"], keep_yearly = 1 }]"#;
        let rules = parse(shown).unwrap();
        assert_eq!(rules[0].keep.daily, Retention::UNLIMITED);
        assert_eq!(text(&rules), shown);
        for nothing in ["", "[]"] {
            assert_eq!(parse(nothing).as_deref(), Some(&[][..]));
        }
        for wrong in [
            "x",
            "[1]",
            "[{}]",
            r#"[{ names = ["a"] }]"#,
            r#"[{ names = ["["], keep_last = 1 }]"#,
            r#"[{ names = "a", keep_last = 1 }]"#,
            r#"[{ names = ["a"], keep_last = -2 }]"#,
            r#"[{ names = ["a"], keep_last = 0 }]"#,
            r#"[{ names = ["a"], keep_first = 1 }]"#,
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
