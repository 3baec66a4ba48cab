//! The two verifiers that stand in every handshake: names and anchors as DESIGN, section 7, has them, not the web's.

use concord_model::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use crate::admission::{Admission, ExpectedServer};
use crate::anchors::Anchors;
use crate::chain::{Purpose, verify_chain};
use crate::refusal::CertificateRefusal;
use crate::revocation::ChainNumbers;

/// What a listener asks of whoever connects. A certificate is mandatory, and no CA names are hinted at.
#[derive(Debug)]
pub(crate) struct CallerVerifier {
    pub(crate) anchors: Anchors,
    pub(crate) admission: Admission,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let anchors_of = |participant: &_| self.anchors.get(participant);
        let leaf = verify_chain(end_entity, intermediates, anchors_of, Purpose::Client, now)
            .map_err(CertificateRefusal::into_rustls)?;
        refuse_revoked(&self.anchors, &leaf.identity, end_entity, intermediates)?;
        // Only after the chain: the log then names somebody who is who they say.
        if !self.admission.allows(&leaf.identity) {
            return Err(CertificateRefusal::NotAdmitted { identity: leaf.identity }.into_rustls());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a client asks of the server that answers: the URI name it called, under the pinned anchor.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) anchors: Anchors,
    pub(crate) expected: ExpectedServer,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let anchors_of = |participant: &_| self.anchors.get(participant);
        let leaf = verify_chain(end_entity, intermediates, anchors_of, Purpose::Server, now)
            .map_err(CertificateRefusal::into_rustls)?;
        refuse_revoked(&self.anchors, &leaf.identity, end_entity, intermediates)?;
        if !self.expected.is(&leaf.identity) {
            let refusal = CertificateRefusal::OtherServer { found: leaf.identity, expected: self.expected.to_string() };
            return Err(refusal.into_rustls());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Of a chain that verifies: a list says something only about what its issuer issued.
fn refuse_revoked(
    anchors: &Anchors,
    identity: &Identity,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    let chain = ChainNumbers::of(&identity.participant, std::iter::once(leaf).chain(intermediates));
    match anchors.refuse(&chain).filter(|_| !concord_faults::planted("take-what-was-taken-back")) {
        Some(unfit) => Err(CertificateRefusal::unfit(unfit, identity.clone()).into_rustls()),
        None => Ok(()),
    }
}

/// Never reached while the configurations name TLS 1.3 alone; stays right if one day they do not.
fn tls12_refused() -> Error {
    Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
}
