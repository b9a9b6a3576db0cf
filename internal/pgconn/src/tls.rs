//! TLS as `sslmode` wants it.
//!
//! ```text
//!   prefer, require            any certificate, but the handshake must be signed with its key
//!   verify-ca (or require      … and it is signed by a trusted authority, or is itself a trusted root
//!     with sslrootcert)
//!   verify-full                … and it is for the host in the URL
//! ```
//!
//! The handshake's signature is checked in every mode: channel binding rests on it even where the
//! certificate is not verified.

use crate::certificate::Subject;
use crate::options::RootCertificates;
use crate::{ConnectError, ConnectOptions, Host, PgStream, SslMode, StartupError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A TLS configuration, read once for all attempts.
pub(crate) struct TlsClient {
    verifier: Verifier,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl TlsClient {
    /// None under `sslmode=disable`.
    pub(crate) fn of(options: &ConnectOptions) -> Result<Option<Self>, ConnectError> {
        let only_sockets = options.hosts.iter().all(|host| matches!(host, Host::Unix { .. }));
        if options.ssl_mode == SslMode::Disable || only_sockets {
            return Ok(None);
        }
        let verifier = Verifier::of(options)?;
        let identity = match (&options.client_certificate, &options.client_key) {
            (Some(certificate), Some(key)) => {
                Some((certificates(certificate, "sslcert")?, private_key(key)?))
            }
            (Some(_), None) => return Err(ConnectError::halt("the Postgres URL: sslcert needs sslkey")),
            (None, _) => None,
        };
        Ok(Some(Self { verifier, identity }))
    }

    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        near: bool,
        host: &Host,
    ) -> Result<PgStream, StartupError> {
        let Host::Tcp { name, .. } = host else {
            return Err(StartupError::Refused("there is no TLS over a unix socket".to_owned()));
        };
        let (config, server_name) = self.config(name)?;
        match TlsConnector::from(Arc::new(config)).connect(server_name, stream).await {
            Ok(stream) => Ok(PgStream::tls(stream, near)),
            Err(error) => Err(self.explain(error, name)),
        }
    }

    fn config(&self, host: &str) -> Result<(ClientConfig, ServerName<'static>), StartupError> {
        let mut verifier = self.verifier.clone();
        verifier.host = host.to_owned();
        let refused = |error: rustls::Error| StartupError::Refused(format!("TLS can't be set up: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.verifier.provider))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| {
                    StartupError::Refused(format!("sslcert and sslkey can't be used: {error}"))
                })?
            }
            None => builder.with_no_client_auth(),
        };
        // The verifier above compares names itself; this one only goes into the handshake, where a host that
        // is not a DNS name is left out.
        let server_name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| {
            config.enable_sni = false;
            ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
        });
        Ok((config, server_name))
    }

    /// The library's error in words that name the setting.
    fn explain(&self, error: io::Error, host: &str) -> StartupError {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return StartupError::Io(error);
        };
        let roots = self.verifier.roots_described();
        let text = match tls {
            rustls::Error::InvalidCertificate(problem) => match problem {
                // The latter when another authority has the same name.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                    "the server's certificate is not signed by an authority in {roots}; set sslrootcert to the \
                     file of the one that signed it"
                ),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!(
                        "the server's certificate is not for {host}{}; use the name it was made for, or \
                     sslmode=verify-ca",
                        match problem {
                            CertificateError::NotValidForNameContext { presented, .. } =>
                                format!(" but for {}", presented.join(", ")),
                            _ => String::new(),
                        }
                    )
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the server's certificate has expired; renew it".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "the server's certificate is not valid yet; check both clocks".to_owned()
                }
                problem => format!(
                    "the server's certificate can't be trusted ({problem}); it must be X.509 version 3 and signed \
                     with a current algorithm"
                ),
            },
            rustls::Error::AlertReceived(alert) => format!(
                "the server broke off the TLS handshake ({alert:?}); it may want another client certificate \
                 (sslcert, sslkey)"
            ),
            other => format!("the TLS handshake failed: {other}"),
        };
        StartupError::Refused(text)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    Anything,
    Chain,
    ChainAndName,
}

#[derive(Clone, Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    /// The same, as they are in the file. Postgres' manual has people give a self-signed server certificate
    /// as its own root, which the library takes for an authority's and refuses.
    anchors: Arc<Vec<CertificateDer<'static>>>,
    roots_name: String,
    host: String,
}

impl Verifier {
    fn of(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let file_given = matches!(options.root_certificates, Some(RootCertificates::File(_)));
        let trust = match options.ssl_mode {
            SslMode::VerifyFull => Trust::ChainAndName,
            SslMode::VerifyCa => Trust::Chain,
            SslMode::Require if options.root_certificates == Some(RootCertificates::System) => {
                Trust::ChainAndName
            }
            SslMode::Require if file_given => Trust::Chain,
            SslMode::Require | SslMode::Prefer | SslMode::Disable => Trust::Anything,
        };
        let mut verifier = Self {
            trust,
            provider: Arc::new(ring::default_provider()),
            roots: Arc::new(RootCertStore::empty()),
            anchors: Arc::default(),
            roots_name: "the system's store".to_owned(),
            host: String::new(),
        };
        if trust != Trust::Anything {
            let anchors = match &options.root_certificates {
                Some(RootCertificates::File(path)) => {
                    verifier.roots_name = path.display().to_string();
                    certificates(path, "sslrootcert")?
                }
                Some(RootCertificates::System) | None => rustls_native_certs::load_native_certs().certs,
            };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(anchors.iter().cloned());
            if anchors.is_empty() {
                return Err(ConnectError::halt(format!(
                    "sslmode={} needs trusted authorities, and {} has none; set sslrootcert to a PEM file",
                    options.ssl_mode.name(),
                    verifier.roots_name
                )));
            }
            verifier.roots = Arc::new(roots);
            verifier.anchors = Arc::new(anchors);
        }
        Ok(verifier)
    }

    fn roots_described(&self) -> &str {
        &self.roots_name
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let by_library = ParsedCertificate::try_from(certificate).and_then(|parsed| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
        });
        if by_library.is_ok() || !self.anchors.iter().any(|anchor| anchor == certificate) {
            return by_library;
        }
        let subject = Subject::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if subject.is_valid_at(now.as_secs()) { Ok(()) } else { Err(CertificateError::Expired.into()) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trust != Trust::Anything {
            self.verify_chain(end_entity, intermediates, now)?;
        }
        if self.trust == Trust::ChainAndName {
            let subject = Subject::of(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !subject.is_for(&self.host) {
                let presented = vec![subject.described()];
                let expected = server_name.to_owned();
                return Err(CertificateError::NotValidForNameContext { expected, presented }.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(path: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let unreadable = |why: &dyn std::fmt::Display| {
        ConnectError::halt(format!(
            "{parameter}: {} can't be read as PEM certificates: {why}",
            path.display()
        ))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| unreadable(&error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    if certificates.is_empty() { Err(unreadable(&"it has none")) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConnectError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        ConnectError::halt(format!(
            "sslkey: {} can't be read as a PEM private key without a passphrase: {error}",
            path.display()
        ))
    })
}
