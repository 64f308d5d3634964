//! Whose store a command uses where each tenant has its own, `isolation = "name"`: that of the snapshots that are named, or the
//! one that `--tenant` says. A command is for one tenant, so nothing that it says is of two.

use snapshotter::Reference;

use super::Settings;
use crate::arguments::Global;
use crate::failure::{Failure, Result};

/// Which snapshots share what they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All of a root.
    #[default]
    None,
    /// Those whose names have the same first component.
    Name,
}

impl Isolation {
    /// As it is read back.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Name => "name",
        }
    }

    /// Reads it.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::None, Self::Name];
        all.into_iter().find(|one| one.as_str() == text)
    }
}

impl Settings {
    /// Finds whose store it is.
    pub(super) fn choose_tenant(&mut self, global: &Global) -> Result<()> {
        if self.draft.isolation == Isolation::None {
            return match &global.tenant {
                None => Ok(()),
                Some(_) => Err(
                    Failure::invalid("--tenant is given, and there are no tenants")
                        .with_hint("set isolation = \"name\": then each has a store of its own"),
                ),
            };
        }
        self.draft.config.tenant = match &global.tenant {
            Some(tenant) => Some(tenant.clone()),
            None => of_names(&global.names)?,
        };
        Ok(())
    }

    /// Refuses what is done in a store where nothing says in whose.
    pub fn require_tenant(&self) -> Result<()> {
        if self.draft.isolation == Isolation::None || self.draft.config.tenant.is_some() {
            return Ok(());
        }
        let tenants = std::fs::read_dir(self.root().join("tenants"));
        let mut tenants: Vec<String> = tenants
            .into_iter()
            .flat_map(|all| all.flatten())
            .map(|one| one.file_name().to_string_lossy().into_owned())
            .collect();
        tenants.sort();
        let here = match tenants.is_empty() {
            true => "none is here yet".to_owned(),
            false => format!("here are: {}", tenants.join(", ")),
        };
        Err(
            Failure::invalid("each tenant has a store of its own, and nothing says whose is meant")
                .with_hint(format!("--tenant NAME says it; {here}")),
        )
    }
}

/// The tenant whose snapshots are named, if any are.
fn of_names(names: &[String]) -> Result<Option<String>> {
    // What is no name is for the verb to refuse.
    let tenant = |name: &String| {
        let name = name.split([':', '@']).next().unwrap_or_default();
        let name = name.split('/').next().unwrap_or_default();
        Reference::new(name, "v").is_ok().then(|| name.to_owned())
    };
    let mut tenants: Vec<String> = names.iter().filter_map(tenant).collect();
    tenants.sort();
    tenants.dedup();
    if tenants.len() > 1 {
        let text = format!(
            "snapshots of several tenants are named: {}",
            tenants.join(", ")
        );
        return Err(
            Failure::invalid(text).with_hint("with isolation = \"name\" a command is for one")
        );
    }
    Ok(tenants.pop())
}
