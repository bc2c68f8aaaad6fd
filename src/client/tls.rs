//! TLS at the front door: the files are read again when they have changed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use super::worker::TlsAcceptSource;
use crate::backend::tls::{certificates, private_key, roots};
use crate::config::ListenTls;

/// When each of the files was last written.
type Stamp = [Option<SystemTime>; 3];

/// The source of the listener's configuration; looks at the files' times for each connection.
#[must_use]
pub fn acceptor(tls: &ListenTls) -> TlsAcceptSource {
    let tls = tls.clone();
    let held: Mutex<Option<(Stamp, Arc<ServerConfig>)>> = Mutex::new(None);
    Arc::new(move || {
        let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        let stamp = [written(&tls.cert), written(&tls.key), tls.client_ca.as_deref().and_then(written)];
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, config)) = held.as_ref()
            && *before == stamp
        {
            return Ok(Arc::clone(config));
        }
        match configuration(&tls) {
            Ok(config) => {
                let config = Arc::new(config);
                *held = Some((stamp, Arc::clone(&config)));
                Ok(config)
            }
            // A half-written rotation: the old certificate serves until the new one can be read.
            Err(error) => match held.as_ref() {
                Some((_, config)) => {
                    tracing::warn!(%error, "the listener's new TLS files cannot be used; the old ones serve on");
                    Ok(Arc::clone(config))
                }
                None => Err(error),
            },
        }
    })
}

fn configuration(tls: &ListenTls) -> io::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        }
    };
    builder.with_single_cert(certificates(&tls.cert)?, private_key(&tls.key)?).map_err(io::Error::other)
}
