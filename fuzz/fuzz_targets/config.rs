//! Settings, as the command reads them from a configuration file or an env file and the library checks them: refused
//! with a text that names the place, or such that what is shown of each value is read back as the same. And Docker's
//! configuration, as the library reads it.
//!
//! The first byte says what the rest is.
#![no_main]
#![expect(
    dead_code,
    unused_imports,
    reason = "the command uses all of what is half used here"
)]

use std::fs;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/snapshotter-cli/src/exit.rs"]
mod exit;
#[path = "../../crates/snapshotter-cli/src/failure.rs"]
mod failure;
#[path = "../../crates/snapshotter-cli/src/settings/mod.rs"]
mod settings;

mod arguments {
    //! What the settings are told by flags.

    use std::path::PathBuf;

    /// `--root`, `--config`, `--env-file`, and the flags that are settings too.
    #[derive(Debug)]
    pub struct Global {
        pub root: Option<PathBuf>,
        pub tenant: Option<String>,
        pub names: Vec<String>,
        pub config: Option<PathBuf>,
        pub env_file: Option<PathBuf>,
        pub limit_upload: Option<String>,
        pub limit_download: Option<String>,
        pub jobs: Option<String>,
    }
}

mod output {
    //! What the settings tell.

    pub mod json {
        /// A warning: only that there is one.
        #[derive(Debug)]
        pub struct Warning;

        impl Warning {
            pub fn new(_kind: &'static str, _message: String) -> Self {
                Self
            }
        }
    }
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(format!(
        "/dev/shm/snapshotter-fuzz-{name}-{}",
        std::process::id()
    ));
    fs::write(&path, bytes).expect("a file in memory");
    path
}

fn gather(config: &[u8], env: Option<&[u8]>) {
    let config = written("config", config);
    let env_file = env.map(|bytes| written("env", bytes));
    let global = arguments::Global {
        root: Some("/root-of-the-store".into()),
        tenant: None,
        names: Vec::new(),
        config: Some(config.clone()),
        env_file: env_file.clone(),
        limit_upload: None,
        limit_download: None,
        jobs: None,
    };
    let gathered = settings::Settings::gather(&global);
    fs::remove_file(config).expect("it was just made");
    env_file.map(|path| fs::remove_file(path).expect("it was just made"));
    match gathered {
        Ok(gathered) => check(&gathered),
        Err(failure) => assert!(!failure.message.is_empty()),
    }
}

fn check(gathered: &settings::Settings) {
    for key in settings::KEYS {
        let value = (key.get)(&gathered.draft);
        if value.is_hidden() || key.shape.is_secret() || value.is_none() {
            continue;
        }
        // What is shown is read back; but for paths and blanks, which are shown as well as they can be.
        let shown = value.shown();
        let again = key.shape.parse(&shown);
        assert_eq!(
            again.map(|again| again.shown()),
            Some(shown),
            "{}",
            key.name
        );
    }
    if let Ok(config) = gathered.whole() {
        // Refused or not: it must only not fail otherwise.
        drop(snapshotter::fuzzing::config::check(&config));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    match first % 3 {
        0 => gather(rest, None),
        1 => gather(b"", Some(rest)),
        _ => {
            let path = written("docker", rest);
            drop(snapshotter::fuzzing::config::docker_config(
                &path,
                "registry.example:5000",
            ));
            fs::remove_file(path).expect("it was just made");
        }
    }
});
