//! What nobody set, from where other programs have it: Docker's configuration, the proxies of the environment, and, for
//! a bucket without keys, whatever the provider's own tools would find. The library looks at none of that by itself.
//!
//! Only for a registry and a bucket that are configured: without them there is nothing to assign.

use std::path::PathBuf;

use snapshotter::{ContentProvider, Credentials};

use super::{Assignment, Draft, Key, Source, Value, proxy};
use crate::failure::Result;

/// What is to be assigned; `variable` reads the environment.
pub(super) fn look(draft: &Draft, variable: impl Fn(&str) -> Option<String>) -> Vec<Assignment> {
    let found = [
        docker_config(draft, &variable),
        registry_proxy(draft, &variable),
        content_proxy(draft, &variable),
        credentials(draft),
    ];
    found.into_iter().flatten().collect()
}

fn assignment(name: &str, value: Value, source: Source) -> Option<Assignment> {
    Key::named(name).map(|key| Assignment { key, value, source })
}

/// As Docker finds it.
fn docker_config(draft: &Draft, variable: &impl Fn(&str) -> Option<String>) -> Option<Assignment> {
    if draft.registry()?.docker_config.is_some() || is_layout(draft) {
        return None;
    }
    let (directory, source) = match variable("DOCKER_CONFIG") {
        Some(directory) => (
            PathBuf::from(directory),
            Source::Variable("DOCKER_CONFIG".into()),
        ),
        None => (own_docker_directory(variable)?, Source::Default),
    };
    let file = Value::File(Some(directory.join("config.json")));
    assignment("registry.docker_config", file, source)
}

fn own_docker_directory(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = PathBuf::from(variable("HOME")?);
    home.is_absolute().then(|| home.join(".docker"))
}

fn is_layout(draft: &Draft) -> bool {
    draft.registry.endpoint.starts_with("oci-layout:")
}

fn registry_proxy(draft: &Draft, variable: &impl Fn(&str) -> Option<String>) -> Option<Assignment> {
    let registry = draft.registry()?;
    if registry.proxy.is_some() || is_layout(draft) {
        return None;
    }
    proxied("registry.proxy", &registry.endpoint, variable)
}

fn content_proxy(draft: &Draft, variable: &impl Fn(&str) -> Option<String>) -> Option<Assignment> {
    let content = draft.content()?;
    let usual = match content.provider {
        ContentProvider::Fs | ContentProvider::Registry => return None,
        ContentProvider::S3 => format!("s3.{}.amazonaws.com", content.region.unwrap_or_default()),
        ContentProvider::Gcs => "storage.googleapis.com".to_owned(),
        _ => String::new(),
    };
    if content.proxy.is_some() {
        return None;
    }
    proxied(
        "content.proxy",
        &content.endpoint.unwrap_or(usual),
        variable,
    )
}

fn proxied(key: &str, url: &str, variable: &impl Fn(&str) -> Option<String>) -> Option<Assignment> {
    let (name, proxy) = proxy::of(url, variable)?;
    assignment(
        key,
        Value::Url(Some(proxy)),
        Source::Variable(name.to_owned()),
    )
}

/// Where the providers' own tools find keys; what reads these files for us reads them whole, however long they are.
const KEY_FILES: [&str; 5] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Refuses files of keys that do not end.
pub(super) fn check_files(draft: &Draft) -> Result<()> {
    if draft.credentials != Some(Credentials::Ambient) {
        return Ok(());
    }
    for variable in KEY_FILES {
        let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
            continue;
        };
        // One that is not there is for who wants to read it to tell.
        if path.exists() {
            snapshotter::small::read(&format!("the file of {variable},"), &path, super::MAX_BYTES)?;
        }
    }
    Ok(())
}

fn credentials(draft: &Draft) -> Option<Assignment> {
    let is_bucket = !matches!(
        draft.provider?,
        ContentProvider::Fs | ContentProvider::Registry
    );
    if !is_bucket || draft.credentials.is_some() {
        return None;
    }
    let from = if draft.has_bucket_keys() {
        Credentials::Static
    } else {
        Credentials::Ambient
    };
    assignment(
        "content.credentials",
        Value::Credentials(Some(from)),
        Source::Default,
    )
}

#[cfg(test)]
mod tests {
    use snapshotter::Config;

    use super::*;

    fn draft(endpoint: &str, provider: Option<ContentProvider>) -> Draft {
        let mut draft = Draft::new(Config::new("/r"));
        draft.registry.endpoint = endpoint.to_owned();
        draft.provider = provider;
        draft
    }

    /// What is found, where these variables are set.
    fn found(draft: &Draft, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            let set = variables.iter().find(|(other, _)| *other == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        look(draft, variable)
            .iter()
            .map(|found| format!("{} {:?} {}", found.key.name, found.value, found.source))
            .collect()
    }

    const ALL: &[(&str, &str)] = &[
        ("HOME", "/home/u"),
        ("HTTPS_PROXY", "http://p:3128"),
        ("http_proxy", "q:3128"),
    ];

    #[test]
    fn nothing_is_looked_for_where_nothing_is_configured() {
        assert_eq!(found(&draft("", None), ALL), [""; 0]);
        let local = draft("oci-layout:/srv", Some(ContentProvider::Fs));
        assert_eq!(found(&local, ALL), [""; 0]);
    }

    #[test]
    fn dockers_configuration_is_where_docker_has_it() {
        let home = ("HOME", "/home/u");
        let here = draft("http://localhost:5000", None);
        assert_eq!(
            found(&here, &[home]),
            ["registry.docker_config \"/home/u/.docker/config.json\" default"]
        );
        assert_eq!(
            found(&here, &[home, ("DOCKER_CONFIG", "/etc/d")]),
            ["registry.docker_config \"/etc/d/config.json\" DOCKER_CONFIG"]
        );
        let mut other = here;
        other.registry.docker_config = Some("/else".into());
        assert_eq!(found(&other, &[home]), [""; 0]);
    }

    #[test]
    fn proxies_are_those_of_the_endpoints_schemes_and_what_is_set_stays() {
        let mut draft = draft("https://r.example", Some(ContentProvider::S3));
        draft.content.endpoint = Some("http://s3.example".to_owned());
        draft.content.access_key_id = Some("x".to_owned());
        assert_eq!(
            found(&draft, &ALL[1..]),
            [
                "registry.proxy \"http://p:3128\" HTTPS_PROXY",
                "content.proxy \"http://q:3128\" http_proxy",
                "content.credentials \"static\" default"
            ]
        );
        draft.registry.proxy = Some("http://other".to_owned());
        draft.content.proxy = Some("http://other".to_owned());
        draft.credentials = Some(Credentials::Ambient);
        assert_eq!(found(&draft, &ALL[1..]), [""; 0]);
    }

    #[test]
    fn without_keys_a_buckets_credentials_are_ambient() {
        let mut draft = draft("r.example", Some(ContentProvider::S3));
        draft.content.region = Some("eu-1".to_owned());
        let no_proxy = ("NO_PROXY", "amazonaws.com");
        let found = found(&draft, &[ALL[1], no_proxy]);
        assert_eq!(
            found.last().unwrap(),
            "content.credentials \"ambient\" default"
        );
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
