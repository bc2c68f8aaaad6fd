//! TLS to a backend, by rustls. The files are read for every connection, so that rotated certificates are taken up.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::target::TlsSource;
use crate::config::BackendTls;

/// The name that is verified, and the source of the configuration for each connection.
///
/// # Errors
/// When the name is no valid server name.
pub fn client(tls: &BackendTls, host: &str) -> io::Result<(ServerName<'static>, TlsSource)> {
    let name = tls.server_name.clone().unwrap_or_else(|| host.to_owned());
    let name = ServerName::try_from(name.clone())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' is no server name for TLS")))?;
    let tls = tls.clone();
    Ok((name, Arc::new(move || configuration(&tls).map(Arc::new))))
}

fn configuration(tls: &BackendTls) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else if let Some(path) = &tls.ca {
        builder.with_root_certificates(roots(path)?)
    } else {
        let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(io::Error::other)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(io::Error::other)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// The authorities of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| naming(path, error))?;
    }
    Ok(store)
}

/// The certificates of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| naming(path, error))?.collect();
    let all = read.map_err(|error| naming(path, error))?;
    if all.is_empty() { Err(naming(path, "no certificate in it")) } else { Ok(all) }
}

/// The private key of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| naming(path, error))
}

fn naming(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

/// `insecure_skip_verify`: the operator's word that the network is trusted. Signatures are still checked.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
