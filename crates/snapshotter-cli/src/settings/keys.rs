//! Keys: how each is found, and how its value is read from text. Configuration files, variables, `config` and its defaults all
//! come from the table beside this.

use std::ffi::OsStr;

use super::draft::Draft;
pub use super::table::KEYS;
use super::value::{Shape, Value};

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// `gc.interval`.
    pub name: &'static str,
    /// What it is, for a comment.
    pub what: &'static str,
    /// What its values look like.
    pub shape: Shape,
    /// Its value.
    pub get: fn(&Draft) -> Value,
    /// Sets it; the value has the shape.
    pub set: fn(&mut Draft, Value),
}

/// A row of the table: a name, a shape, the field of a draft, and what it is good for.
macro_rules! key {
    ($name:literal, $shape:ident, $($field:ident).+, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            shape: Shape::$shape,
            get: |draft| Value::$shape(Field::get(&draft.$($field).+)),
            set: |draft, value| {
                if let Value::$shape(value) = value {
                    Field::set(&mut draft.$($field).+, value);
                }
            },
        }
    };
}
pub(super) use key;

impl Key {
    /// The one that flags set too.
    pub const ROOT: &Self = &KEYS[0];
    /// The one without which `[registry]` means nothing.
    pub const REGISTRY: &Self = &KEYS[20];
    /// The one without which `[content]` means nothing.
    pub const CONTENT: &Self = &KEYS[34];
    /// The one without which `[dragonfly]` means nothing.
    pub const DRAGONFLY: &Self = &KEYS[55];

    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// `SNAPSHOTTER_GC_INTERVAL`.
    pub fn variable(&self) -> String {
        let name = self.name.replace('.', "_").to_uppercase();
        format!("SNAPSHOTTER_{name}")
    }

    /// `registry`, of `registry.endpoint`.
    pub fn section(&self) -> Option<&'static str> {
        self.name.split_once('.').map(|(section, _)| section)
    }

    /// Reads a value from text.
    pub fn parse(&self, text: &OsStr) -> Result<Value, String> {
        match self.shape {
            Shape::Path => return Ok(Value::Path(text.into())),
            Shape::File if !text.is_empty() => return Ok(Value::File(Some(text.into()))),
            _ => {}
        }
        let known = text.to_str().and_then(|text| match self.shape {
            // Whoever chose it may have chosen blanks too.
            Shape::Secret => self.shape.parse(text),
            shape => shape.parse(text.trim()),
        });
        known.ok_or_else(|| {
            self.refuse_as(&format!("{:?}", text.to_string_lossy()), self.shape.rule())
        })
    }

    /// Why a value is not one of this key's. One that may be a secret is not repeated.
    pub fn refuse_as(&self, given: &str, rule: &str) -> String {
        let given = if self.shape.is_secret() {
            "this"
        } else {
            given
        };
        format!("{given} is no value for {}: it should be {rule}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use snapshotter::{
        Compression, Config, ContentProvider, Credentials, Durability, Format, FramePages,
        ParentChoice, SharedWith,
    };

    use std::time::Duration;

    use super::*;
    use crate::settings::tenant::Isolation;

    fn defaults() -> Draft {
        Draft::new(Config::new("/r"))
    }

    #[test]
    fn keys_that_are_looked_up_by_their_place_are_there() {
        let names = [Key::ROOT, Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY].map(|key| key.name);
        let sections = [
            "registry.endpoint",
            "content.provider",
            "dragonfly.endpoint",
        ];
        assert_eq!((names[0], &names[1..]), ("root_dir", &sections[..]));
    }

    #[test]
    fn every_value_is_read_back_from_how_it_is_shown() {
        for key in KEYS {
            let value = (key.get)(&defaults());
            assert_eq!(key.parse(value.shown().as_ref()), Ok(value), "{}", key.name);
        }
    }

    fn another(shape: Shape) -> Value {
        let text = || Some("other".to_owned());
        match shape {
            Shape::Path => Value::Path("/other".into()),
            Shape::File => Value::File(Some("/other".into())),
            Shape::Text => Value::Text(text()),
            Shape::Url => Value::Url(text()),
            Shape::Secret => Value::Secret(text()),
            Shape::Count => Value::Count(7),
            Shape::Bytes => Value::Bytes(Some(7)),
            Shape::Percent => Value::Percent(7.5),
            Shape::Duration => Value::Duration(Duration::from_secs(7)),
            Shape::Switch => Value::Switch(true),
            Shape::Durability => Value::Durability(Durability::Background),
            Shape::Provider => Value::Provider(Some(ContentProvider::Cos)),
            Shape::Credentials => Value::Credentials(Some(Credentials::Ambient)),
            Shape::SharedWith => Value::SharedWith(SharedWith::Group),
            Shape::Isolation => Value::Isolation(Isolation::Name),
            Shape::Format => Value::Format(Format::V2),
            Shape::Parent => Value::Parent(ParentChoice::Latest),
            Shape::Compression => Value::Compression(Compression::Zstd(7)),
            Shape::FramePages => Value::FramePages(FramePages::Four),
            Shape::Rules => Value::Rules(
                crate::settings::rules::parse("[{ names = ['other'], keep_last = 7 }]").unwrap(),
            ),
        }
    }

    #[test]
    fn every_key_sets_itself_and_nothing_else() {
        for key in KEYS {
            let mut draft = defaults();
            let other = another(key.shape);
            (key.set)(&mut draft, other.clone());
            for each in KEYS {
                let wanted = if each.name == key.name {
                    other.clone()
                } else {
                    (each.get)(&defaults())
                };
                assert_eq!(
                    (each.get)(&draft),
                    wanted,
                    "{} after {}",
                    each.name,
                    key.name
                );
            }
        }
    }

    #[test]
    fn main_keys_are_where_they_are_looked_for() {
        let main = [Key::ROOT, Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY];
        assert_eq!(
            main.map(|key| key.name),
            [
                "root_dir",
                "registry.endpoint",
                "content.provider",
                "dragonfly.endpoint"
            ]
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"hunter2\xff");
        for key in KEYS.iter().filter(|key| key.shape.is_secret()) {
            let refused = key.parse(bytes).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let secret = |name: &str| Key::named(name).unwrap().shape == Shape::Secret;
        for name in [
            "registry.password",
            "content.access_key_id",
            "content.access_key_secret",
            "content.session_token",
        ] {
            assert!(secret(name), "{name}");
        }
    }
}
