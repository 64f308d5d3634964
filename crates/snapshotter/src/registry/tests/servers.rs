//! What only a real registry can show: certificates, refused deletion, wrong passwords, pages, skopeo.

use std::process::Command;

use testkit::registry::{Kind, RegistryServer, or_skip};

use super::places::USER;
use super::suite::push;
use super::*;
use crate::ErrorKind;

const TLS: Kind = Kind {
    user: None,
    tls: true,
    delete: false,
};

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let Some(server) = or_skip(RegistryServer::start(TLS)) else {
        return;
    };
    let stranger = opened(&Registry::new(server.url(), "ns").retries(1));
    let error = stranger.manifest(&repository(), &v1()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("cannot connect"), "{error}");
    assert!(
        everything_said(&error).contains("UnknownIssuer"),
        "{error:?}"
    );
    // A host alone means https.
    let insecure = opened(&Registry::new(server.address(), "ns").insecure(true));
    assert_eq!(insecure.manifest(&repository(), &v1()).await.unwrap(), None);
}

#[tokio::test]
async fn deletion_that_is_not_allowed_is_unsupported_with_a_hint() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let registry = opened(&Registry::new(server.url(), "ns"));
    let manifest = push(&registry, &repository(), &v1(), b"{}").await;
    let error = registry
        .delete_manifest(&repository(), Sha256::of(&manifest))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("405"), "{error}");
    assert!(
        error
            .hint()
            .unwrap()
            .contains("REGISTRY_STORAGE_DELETE_ENABLED=true")
    );
}

#[tokio::test]
async fn a_wrong_password_and_none_are_permission_denied() {
    let kind = Kind {
        user: Some(USER),
        ..Kind::default()
    };
    let Some(server) = or_skip(RegistryServer::start(kind)) else {
        return;
    };
    let anonymous = Registry::new(server.url(), "ns");
    let wrong = anonymous.clone().credentials(USER.0, "wrong-horse");
    for config in [anonymous, wrong] {
        let error = opened(&config)
            .manifest(&repository(), &v1())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("401"), "{error}");
        assert!(
            error
                .to_string()
                .contains("UNAUTHORIZED: authentication required"),
            "{error}"
        );
        assert!(error.hint().is_some());
        assert!(!everything_said(&error).contains("wrong-horse"));
    }
}

#[tokio::test]
async fn damage_in_a_registrys_own_storage_is_seen() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let registry = opened(&Registry::new(server.url(), "ns"));
    let bytes = some_bytes(7, 5000);
    let sha256 = Sha256::of(&bytes);
    registry
        .push_blob(&repository(), sha256, bytes.into())
        .await
        .unwrap();
    let hex = sha256.hex();
    let blob = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    std::fs::write(server.data().join(blob), some_bytes(8, 5000)).unwrap();
    let error = registry
        .blob(&repository(), sha256, 5000)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let (result, sent) = pulled(&*registry, &repository(), sha256, 5000, None).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), sent.len()), (ErrorKind::Damaged, 5000));
    assert!(
        error.to_string().contains("its bytes are sha256:"),
        "{error}"
    );
}

#[tokio::test]
async fn lists_of_many_pages_are_read_to_their_end() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let registry = opened(&Registry::new(server.url(), "ns"));
    // Docker's has pages for repositories alone, and takes a directory with layers for one.
    let names: Vec<_> = (0..2100).map(|i| format!("r{i:04}")).collect();
    let repositories = server.data().join("docker/registry/v2/repositories/ns");
    for name in &names {
        std::fs::create_dir_all(repositories.join(name).join("_layers")).unwrap();
    }
    let found = registry.repositories().await.unwrap();
    assert_eq!(found, names);
}

#[tokio::test]
async fn skopeo_reads_what_was_pushed() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let registry = opened(&Registry::new(server.url(), "ns"));
    let manifest = push(&registry, &repository(), &v1(), b"{}").await;
    let target = format!("docker://{}/ns/vm/one:v1", server.address());
    let Some(raw) = skopeo(&["inspect", "--raw", "--tls-verify=false", &target]) else {
        return;
    };
    assert_eq!(raw, manifest);
}

/// What `skopeo` prints, or nothing where it is not installed.
pub(super) fn skopeo(arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new("skopeo").args(arguments).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {said}");
            Some(output.stdout)
        }
        Err(error) => {
            testkit::mount::report_skip(format_args!("skopeo: {error}"));
            None
        }
    }
}
