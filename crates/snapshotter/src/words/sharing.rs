//! [`SharedWith`]: who may use a directory that nodes share.

/// Who besides its user may use a directory that nodes share. What is there already keeps its mode, and so does the directory
/// itself, which whoever shares it makes first: `chgrp` it, and `chmod g+s`, for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SharedWith {
    /// Nobody: files are 0600 and directories 0700, because memory dumps hold secrets.
    #[default]
    Nobody,
    /// The directory's group may read and publish: files are 0640 and directories 0770.
    Group,
    /// The group may read and publish, and everybody else read: files are 0644 and directories 0775.
    Everyone,
}

impl SharedWith {
    /// The name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Group => "group",
            Self::Everyone => "everyone",
        }
    }

    /// Of a file that is never written again.
    pub(crate) fn file_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o600,
            Self::Group => 0o640,
            Self::Everyone => 0o644,
        }
    }

    /// Of a file that all who publish lock, which is opened for writing.
    pub(crate) fn lock_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o600,
            Self::Group => 0o660,
            Self::Everyone => 0o664,
        }
    }

    pub(crate) fn directory_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o700,
            Self::Group => 0o770,
            Self::Everyone => 0o775,
        }
    }
}
