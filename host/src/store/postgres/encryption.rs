//! Encryption of guests' sessions: what `sslmode`, `sslrootcert`, `sslcert` and `sslkey` say, with the meaning that the engine's
//! driver gives them.

use std::sync::Arc;

use sqlx::postgres::PgSslMode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::Error;

/// What a client says first to a server of which it wants encryption; the answer is one byte.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What the URL names, in PEM.
#[derive(Default)]
pub(super) struct Certificates {
    /// Whom to trust, beside those whom this machine trusts.
    pub(super) roots: Option<Vec<u8>>,
    /// Who this host is.
    pub(super) own: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
}

pub(super) struct Encryption {
    connector: TlsConnector,
    /// Whether a server that cannot do it is spoken to all the same.
    needed: bool,
}

impl Encryption {
    /// None if the URL wants none.
    pub(super) fn new(mode: PgSslMode, certificates: &Certificates) -> Result<Option<Self>, Error> {
        let needed = match mode {
            PgSslMode::Allow | PgSslMode::Disable => return Ok(None),
            PgSslMode::Prefer => false,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => true,
        };
        let provider = Arc::new(ring::default_provider());
        let trust: Arc<dyn ServerCertVerifier> = match mode {
            PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
                let roots = Arc::new(roots(certificates.roots.as_deref())?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
                let verifier = verifier.map_err(|error| wrong("sslrootcert", &error))?;
                if matches!(mode, PgSslMode::VerifyFull) { verifier } else { Arc::new(AnyName(verifier)) }
            }
            _ => Arc::new(Anybody(Arc::clone(&provider))),
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| wrong("sslmode", &error))?;
        let config = config.dangerous().with_custom_certificate_verifier(trust);
        let config = match (&certificates.own, &certificates.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(own), Some(key)) => {
                let own = CertificateDer::pem_slice_iter(own).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("sslkey", &error))?;
                let proved = config.with_client_auth_cert(own.map_err(|error| wrong("sslcert", &error))?, key);
                proved.map_err(|error| wrong("sslcert", &error))?
            }
            _ => return Err(wrong("sslcert", &"it needs sslkey, and sslkey needs it")),
        };
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), needed }))
    }

    /// Asks the server for encryption. None, with the socket as it was, if it has none and need not have.
    pub(super) async fn wrap<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut socket: S,
        host: &str,
    ) -> std::io::Result<Result<TlsStream<S>, S>> {
        socket.write_all(&REQUEST).await?;
        match socket.read_u8().await? {
            b'S' => {
                let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
                self.connector.connect(name, socket).await.map(Ok)
            }
            b'N' if !self.needed => Ok(Err(socket)),
            _ => Err(std::io::Error::other("the server does not encrypt")),
        }
    }
}

fn wrong(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Refused(format!("no encrypted connection to Postgres: {what} of the URL: {why}"))
}

/// Those whom this machine trusts, and those who are named.
fn roots(named: Option<&[u8]>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_slice_iter(named.unwrap_or_default()) {
        let certificate = certificate.map_err(|error| wrong("sslrootcert", &error))?;
        roots.add(certificate).map_err(|error| wrong("sslrootcert", &error))?;
    }
    Ok(roots)
}

/// `prefer` and `require`: secret, but from whom is not known.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: somebody whom one trusts, under whatever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
