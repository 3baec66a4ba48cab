//! Certificates and clients that are not made with this crate: other authorities, other software, thieves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use concord_identity::{Anchor, Credentials, LeafKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use crate::support::{NODE, World, code, leaf};

/// Presents this certificate or none, and counts the authorities that the server hints at.
#[derive(Debug, Default)]
pub(crate) struct Presents {
    certificate: Option<Arc<CertifiedKey>>,
    pub(crate) hints: Arc<Mutex<Option<usize>>>,
}

impl Presents {
    /// As it is, without asking whether certificate and key are of use to anybody.
    pub(crate) fn certificate(chain: Vec<CertificateDer<'static>>, key: &LeafKey) -> Self {
        Self { certificate: Some(Arc::new(mismatched(chain, key))), hints: Arc::default() }
    }
}

/// Puts a chain and a key together without asking whether they belong together.
pub(crate) fn mismatched(chain: Vec<CertificateDer<'static>>, key: &LeafKey) -> CertifiedKey {
    let key = PrivateKeyDer::try_from(key.to_pkcs8_der().unwrap().to_vec()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    CertifiedKey::new(chain, key)
}

/// A client of the hub whose certificate is chosen by other code than ours.
pub(crate) fn presenting(world: &World, presents: Presents) -> Arc<ClientConfig> {
    let mut config = (*world.client(&leaf(&world.kaz, NODE, |_| {}))).clone();
    config.client_auth_cert_resolver = Arc::new(presents);
    Arc::new(config)
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.hints.lock().unwrap() = Some(hints.len());
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) const KGZ_NODE: &str = "spiffe://kgz.concord/node/main";

/// A state's own CA, made with other software than concord, which may have CAs below it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// From this one up to the one below the anchor.
    intermediates: Vec<CertificateDer<'static>>,
}

impl Authority {
    pub(crate) fn enrolled(world: &World) -> Self {
        let (params, key) = (Self::params("root", true), KeyPair::generate().unwrap());
        let anchor = Anchor::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        let mut table = BTreeMap::from([(code("KGZ"), vec![anchor])]);
        table.insert(world.sec.participant().clone(), vec![world.sec.anchor().clone()]);
        world.anchors.replace(table);
        Self { issuer: Issuer::new(params, key), intermediates: Vec::new() }
    }

    pub(crate) fn subordinate(&self, is_authority: bool) -> Self {
        let name = format!("below {}", self.intermediates.len());
        let (params, key) = (Self::params(&name, is_authority), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut intermediates = vec![certificate.into()];
        intermediates.extend(self.intermediates.iter().cloned());
        Self { issuer: Issuer::new(params, key), intermediates }
    }

    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let (chain, key) = self.certify(change);
        Credentials::new(chain, &key).unwrap()
    }

    pub(crate) fn certify(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, LeafKey) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(KGZ_NODE.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let mut chain = vec![params.signed_by(&key, &self.issuer).unwrap().into()];
        chain.extend(self.intermediates.iter().cloned());
        (chain, LeafKey::from_pkcs8_der(key.serialized_der()).unwrap())
    }

    fn params(name: &str, is_authority: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
        }
        params
    }
}

pub(crate) fn self_signed() -> Credentials {
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(NODE.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&key).unwrap().into()];
    Credentials::new(chain, &LeafKey::from_pkcs8_der(key.serialized_der()).unwrap()).unwrap()
}
