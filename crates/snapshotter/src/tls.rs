//! TLS, with ring, for all connections. Whose certificates are believed: the system's authorities, or Mozilla's as they
//! were when this was built where the system has none (a container from scratch), and those of `ca_file` beside them.
//!
//! The files are looked for at the distributions' places by hand, because the usual crates ask the environment
//! (`SSL_CERT_FILE`) first, which this library does not read. A certificate that cannot be parsed is passed over: one
//! odd root in a system's store must not shut out all the others.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore, SignatureScheme};

use crate::fs::small;
use crate::words::error::{Error, ErrorKind, Result};

/// Whether an error is that of a server which answered a TLS greeting with something else: with http, as a rule.
pub(crate) fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| cause(*error));
    causes.any(|error| {
        matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
            ))
        )
    })
}

/// What is in an I/O error is passed over by its `source`.
fn cause<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e (dyn std::error::Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

const MAX_BYTES: u64 = 16 << 20;

/// Debian and Alpine; Fedora; SUSE; others.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client's side of TLS. `section` is the configuration's, for errors; `insecure` takes any certificate.
pub(crate) fn client(
    section: &str,
    ca_file: Option<&Path>,
    insecure: bool,
) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Internal, "no TLS").with_source(error))?;
    let roots = roots(section, ca_file)?;
    if insecure {
        let any = Arc::new(AnyCertificate(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(any);
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The authorities to believe.
pub(crate) fn roots(section: &str, ca_file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = system();
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        let (added, _) = roots.add_parsable_certificates(certificates(&read(path)?));
        if added == 0 {
            let text = format!(
                "{section}.ca_file {} holds no certificate in PEM",
                path.display()
            );
            return Err(Error::invalid(text).with_path(path));
        }
    }
    Ok(roots)
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for path in SYSTEM.map(Path::new) {
        if let Ok(bytes) = read(path) {
            roots.add_parsable_certificates(certificates(&bytes));
        }
        if !roots.is_empty() {
            break;
        }
    }
    roots
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(std::result::Result::ok)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    small::read("the certificates", path, MAX_BYTES)
}

/// Takes whatever certificate is shown: `insecure` and `insecure_skip_verify` ask for just that. Signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_roots_and_a_ca_file_has_to_hold_one() {
        assert!(!roots("registry", None).unwrap().is_empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let error = roots("registry", Some(file.path())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("registry.ca_file"));
        let error = roots("registry", Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert_eq!(error.path(), Some(Path::new("/nowhere/ca.pem")));
    }
}
