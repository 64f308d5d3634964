//! How a field of the library's configuration is the value of a shape.

use std::path::PathBuf;
use std::time::Duration;

/// A field of the library's configuration as the value of a shape.
pub trait Field<V> {
    fn get(&self) -> V;
    fn set(&mut self, value: V);
}

impl<V: Clone> Field<V> for V {
    fn get(&self) -> V {
        self.clone()
    }

    fn set(&mut self, value: V) {
        *self = value;
    }
}

/// Empty where there is none.
impl Field<Option<String>> for String {
    fn get(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.clone())
    }

    fn set(&mut self, value: Option<String>) {
        *self = value.unwrap_or_default();
    }
}

/// Empty where there is none.
impl Field<Option<PathBuf>> for PathBuf {
    fn get(&self) -> Option<PathBuf> {
        (!self.as_os_str().is_empty()).then(|| self.clone())
    }

    fn set(&mut self, value: Option<PathBuf>) {
        *self = value.unwrap_or_default();
    }
}

/// No time where there is none.
impl Field<Duration> for Option<Duration> {
    fn get(&self) -> Duration {
        self.unwrap_or_default()
    }

    fn set(&mut self, value: Duration) {
        *self = (!value.is_zero()).then_some(value);
    }
}

/// What is too much for the field is the largest it takes, which the library refuses in its turn.
impl Field<usize> for u32 {
    fn get(&self) -> usize {
        *self as usize
    }

    fn set(&mut self, value: usize) {
        *self = Self::try_from(value).unwrap_or(Self::MAX);
    }
}

/// Zero where there is none.
impl Field<Option<u64>> for u64 {
    fn get(&self) -> Option<u64> {
        Some(*self)
    }

    fn set(&mut self, value: Option<u64>) {
        *self = value.unwrap_or_default();
    }
}
