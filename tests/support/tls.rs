//! Certificates made on the spot, and relays that put TLS around a plain connection or take it off again: the client of
//! the tests and the `redis-server` beside them speak none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority and what it has signed, as PEM files in a directory of their own.
#[derive(Debug)]
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // OpenSSL takes a certificate whose issuer has its own name for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "the authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory"), issuer };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("the file is written");
        authority
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn cert(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.crt"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.key"))
    }

    /// Writes a new certificate for `localhost` and its key under this name, over the ones that were there.
    pub(crate) fn issue(&self, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.key(name), key.serialize_pem()).expect("the file is written");
        std::fs::write(self.cert(name), certificate.pem()).expect("the file is written");
        certificate.der().clone()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        roots
    }
}

/// A relay on a port of its own. Ends with its value.
#[derive(Debug)]
pub(crate) struct TlsRelay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

enum Side {
    /// Plain connections come in and leave as TLS.
    Originate(TlsConnector),
    /// TLS comes in and leaves as a plain connection.
    Terminate(TlsAcceptor),
}

impl TlsRelay {
    /// For a plain client of a TLS server; with a certificate of its own when `own` names one.
    pub(crate) fn originate(upstream: SocketAddr, authority: &Authority, own: Option<&str>) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authority.roots());
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(name) => builder
                .with_client_auth_cert(chain(&authority.cert(name)), key(&authority.key(name)))
                .expect("a pair that fits"),
        };
        Self::start(upstream, Side::Originate(TlsConnector::from(Arc::new(config))))
    }

    /// For a plain server: TLS with the certificate of this name in front of it; clients must show one of `clients`.
    pub(crate) fn terminate(
        upstream: SocketAddr,
        authority: &Authority,
        name: &str,
        clients: Option<&Authority>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let config = builder
            .with_single_cert(chain(&authority.cert(name)), key(&authority.key(name)))
            .expect("a pair that fits");
        Self::start(upstream, Side::Terminate(TlsAcceptor::from(Arc::new(config))))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the other side showed last.
    pub(crate) fn last_certificate(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().expect("no thread panics with it").last().cloned()
    }

    fn start(upstream: SocketAddr, side: Side) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let certificates = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, upstream, Arc::new(side), certificates) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, seen, _stop: stop }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    side: Arc<Side>,
    seen: Arc<Mutex<Vec<CertificateDer<'static>>>>,
) {
    loop {
        let Ok((inner, _)) = listener.accept().await else { return };
        let (side, seen) = (Arc::clone(&side), Arc::clone(&seen));
        tokio::spawn(async move {
            // A failed handshake closes both sides, which is what the tests look at.
            let Ok(outer) = TcpStream::connect(upstream).await else { return };
            match &*side {
                Side::Originate(connector) => {
                    let name = ServerName::try_from("localhost").expect("a name");
                    let Ok(outer) = connector.connect(name, outer).await else { return };
                    note(&seen, outer.get_ref().1.peer_certificates());
                    relay(inner, outer).await;
                }
                Side::Terminate(acceptor) => {
                    let Ok(inner) = acceptor.accept(inner).await else { return };
                    note(&seen, inner.get_ref().1.peer_certificates());
                    relay(inner, outer).await;
                }
            }
        });
    }
}

fn note(seen: &Mutex<Vec<CertificateDer<'static>>>, chain: Option<&[CertificateDer<'static>]>) {
    if let Some(first) = chain.and_then(<[_]>::first) {
        seen.lock().expect("no thread panics with it").push(first.clone());
    }
}

async fn relay(mut one: impl AsyncRead + AsyncWrite + Unpin, mut other: impl AsyncRead + AsyncWrite + Unpin) {
    // How a connection ends is for those at its ends to judge.
    let _ = copy_bidirectional(&mut one, &mut other).await;
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_file(path).expect("a certificate")]
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).expect("a key")
}
