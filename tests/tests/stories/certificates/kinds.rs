//! The kinds in which a certificate can be bad, and how each is made.

use concord_tests::forge::{Authority, Shown};
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData, SanType, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::door::Door;

const MALFORMED: &str = "CERTIFICATE_MALFORMED";
const NAMES: &str = "URI_NAMES";
const NAME: &str = "URI_NAME_MALFORMED";
const PURPOSE: &str = "CERTIFICATE_PURPOSE";
const UNKNOWN: &str = "UNKNOWN_ISSUER";
const UNVERIFIED: &str = "CERTIFICATE_UNVERIFIED";
const EXPIRED: &str = "CERTIFICATE_EXPIRED";
const EARLY: &str = "CERTIFICATE_NOT_YET_VALID";
const REVOKED: &str = "CERTIFICATE_REVOKED";
pub(super) const PROTOCOL: &str = "TLS_PROTOCOL";

pub(super) type Kind = (&'static str, &'static str, fn(&Door) -> Shown);

/// Kinds in which a certificate can be bad, with the reason that the log has.
pub(super) const KINDS: &[Kind] = &[
    ("expired", EXPIRED, |door| {
        door.leaf(|params| {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1))
        })
    }),
    ("not yet valid", EARLY, |door| door.leaf(|params| params.not_before = date_time_ymd(2090, 1, 1))),
    ("taken back by the anchor", REVOKED, |door| door.revoked_by_the_anchor.clone()),
    ("taken back by the authority below it", REVOKED, |door| door.revoked_below.clone()),
    ("of an authority that was taken back", REVOKED, |door| door.revoked.leaf(door.uri, |_| {})),
    ("another anchor of the same name", UNKNOWN, |door| {
        Authority::namesake(door.listener_state()).leaf(door.uri, |_| {})
    }),
    ("the right name under another state's anchor", UNKNOWN, |door| door.foreign.leaf(door.uri, |_| {})),
    ("the right name under another state's authority, which has no name constraints", UNKNOWN, |door| {
        door.foreign.below("anybody", |_| {}).leaf(door.uri, |_| {})
    }),
    ("another state's name under the own anchor", UNKNOWN, |door| door.named("spiffe://irn.concord/node/main")),
    ("the name of a state that is not enrolled", UNKNOWN, |door| door.named("spiffe://tjk.concord/node/main")),
    ("self-signed", UNKNOWN, |door| {
        let mut own = door.leaf(|_| {});
        let params = params_of(door.uri);
        let key = KeyPair::generate().unwrap();
        own.chain = vec![params.self_signed(&key).unwrap().into()];
        own.key = key.serialize_der();
        own
    }),
    ("its signature changed by a bit", UNKNOWN, |door| {
        let mut leaf = door.leaf(|_| {});
        let mut der = leaf.chain[0].to_vec();
        // Of the last number of the signature.
        *der.last_mut().unwrap() ^= 1;
        leaf.chain[0] = der.into();
        leaf
    }),
    ("for servers only", PURPOSE, |door| door.usages(&[ExtendedKeyUsagePurpose::ServerAuth])),
    ("for no usage that is named", PURPOSE, |door| door.usages(&[])),
    ("for signing code", PURPOSE, |door| door.usages(&[ExtendedKeyUsagePurpose::CodeSigning])),
    ("for any usage, and not by name for clients", PURPOSE, |door| door.usages(&[ExtendedKeyUsagePurpose::Any])),
    ("whose key may not sign", PURPOSE, |door| {
        door.leaf(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])
    }),
    ("of an authority for servers only", PURPOSE, |door| {
        let authority = door
            .anchor
            .below("servers", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        authority.leaf(door.uri, |_| {})
    }),
    ("without any name", NAMES, |door| door.leaf(|params| params.subject_alt_names.clear())),
    ("with a DNS name only", NAMES, |door| {
        door.leaf(|params| params.subject_alt_names = vec![SanType::DnsName("node.example.org".try_into().unwrap())])
    }),
    ("with two names", NAMES, |door| {
        door.leaf(|params| {
            params.subject_alt_names.push(SanType::URI("spiffe://kaz.concord/node/other".try_into().unwrap()))
        })
    }),
    ("with the same name twice", NAMES, |door| {
        door.leaf(|params| params.subject_alt_names.push(SanType::URI(door.uri.try_into().unwrap())))
    }),
    ("with a URI of the web beside its name", NAMES, |door| {
        door.leaf(|params| params.subject_alt_names.push(SanType::URI("https://example.org/".try_into().unwrap())))
    }),
    ("a wildcard for its name", NAME, |door| door.named(&format!("{}/*", door.role()))),
    ("a wildcard for its state", NAME, |door| door.named(&door.uri.replace(door.state, "*"))),
    ("look-alike: upper case", NAME, |door| door.named(&door.uri.replace(door.state, &door.state.to_uppercase()))),
    ("look-alike: an upper case scheme", NAME, |door| door.named(&door.uri.replace("spiffe", "SPIFFE"))),
    ("look-alike: an upper case name", NAME, |door| door.named(&door.uri.to_uppercase().replace("SPIFFE", "spiffe"))),
    ("look-alike: a slash behind it", NAME, |door| door.named(&format!("{}/", door.uri))),
    ("look-alike: a dot behind it", NAME, |door| door.named(&format!("{}.", door.uri))),
    ("look-alike: a dot behind its host", NAME, |door| door.named(&door.uri.replace(".concord/", ".concord./"))),
    ("look-alike: a percent sign", NAME, |door| door.named(&door.uri.replace(".concord/", "%2econcord/"))),
    ("look-alike: a percent sign in its name", NAME, |door| door.named(&format!("{}/%6dain", door.role()))),
    ("look-alike: a user", NAME, |door| door.named(&door.uri.replace("spiffe://", "spiffe://kaz@"))),
    ("look-alike: a port", NAME, |door| door.named(&door.uri.replace(".concord/", ".concord:443/"))),
    ("look-alike: a query", NAME, |door| door.named(&format!("{}?role=officer", door.uri))),
    ("look-alike: a fragment", NAME, |door| door.named(&format!("{}#main", door.uri))),
    ("look-alike: a segment more", NAME, |door| door.named(&format!("{}/main", door.uri))),
    ("look-alike: a segment less", NAME, |door| door.named(door.role())),
    ("look-alike: an empty segment", NAME, |door| door.named(&door.uri.replace(".concord/", ".concord//"))),
    ("look-alike: a way up", NAME, |door| door.named(&door.uri.replace(".concord/", ".concord/hub/../"))),
    ("look-alike: a space", NAME, |door| door.named(&format!("{} ", door.uri))),
    ("look-alike: a zero byte", NAME, |door| door.named(&format!("{}\0.example.org", door.uri))),
    ("look-alike: another scheme", NAME, |door| door.named(&door.uri.replace("spiffe", "https"))),
    ("look-alike: another domain", NAME, |door| door.named(&door.uri.replace(".concord/", ".concord.example/"))),
    ("look-alike: a domain before it", NAME, |door| door.named(&door.uri.replace("://", "://www."))),
    ("look-alike: punycode", NAME, |door| door.named(&door.uri.replace(door.state, "xn--kz-7kc"))),
    ("look-alike: a letter of another script", NAME, |door| door.raw_name(door.uri.replace('o', "\u{43e}").as_bytes())),
    ("look-alike: bytes that are no text", MALFORMED, |door| door.raw_name(b"spiffe://kaz.concord/node/\xff")),
    ("an unknown extension that is critical", UNVERIFIED, |door| {
        door.leaf(|params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        })
    }),
    ("two authorities between it and its anchor", "CHAIN_TOO_LONG", |door| {
        door.authority.below("second", |_| {}).leaf(door.uri, |_| {})
    }),
    ("a leaf used as an authority", UNVERIFIED, |door| {
        door.anchor.below("leaf", |params| params.is_ca = IsCa::ExplicitNoCa).leaf(door.uri, |_| {})
    }),
    ("an authority that may not issue", UNVERIFIED, |door| {
        let silent = door.anchor.below("silent", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        silent.leaf(door.uri, |_| {})
    }),
    ("a leaf that says it is an authority", UNVERIFIED, |door| {
        door.leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }),
    ("an expired authority", EXPIRED, |door| {
        let old = door.anchor.below("old", |params| params.not_after = date_time_ymd(2021, 1, 1));
        old.leaf(door.uri, |_| {})
    }),
    ("an authority that is not valid yet", EARLY, |door| {
        let early = door.anchor.below("early", |params| params.not_before = date_time_ymd(2090, 1, 1));
        early.leaf(door.uri, |_| {})
    }),
    ("a host that its authority may not name", UNVERIFIED, |door| {
        let constrained = door.anchor.below("constrained", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
                excluded_subtrees: Vec::new(),
            });
        });
        constrained.leaf(door.uri, |params| {
            params.subject_alt_names.push(SanType::DnsName("example.net".try_into().unwrap()));
        })
    }),
    ("an authority without the certificate between", UNKNOWN, |door| {
        let mut leaf = door.authority.leaf(door.uri, |_| {});
        leaf.chain.truncate(1);
        leaf
    }),
    ("an authority's certificate in the leaf's place", NAMES, |door| {
        let mut leaf = door.authority.leaf(door.uri, |_| {});
        leaf.chain.swap(0, 1);
        leaf
    }),
    ("a certificate without its key", PROTOCOL, |door| Shown {
        key: KeyPair::generate().unwrap().serialize_der(),
        ..door.leaf(|_| {})
    }),
    ("a key of a curve that is too weak", PROTOCOL, |door| door.of_a_weak_curve()),
    ("bytes behind it", MALFORMED, |door| door.bytes(|der| der.push(0))),
    ("no certificate but bytes", MALFORMED, |door| door.bytes(|der| der.fill(0x30))),
    ("half of it", MALFORMED, |door| door.bytes(|der| der.truncate(der.len() / 2))),
    ("larger than is read", MALFORMED, |door| {
        door.leaf(|params| {
            let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 2], vec![0; 17_000]);
            params.custom_extensions.push(extension);
        })
    }),
    ("somebody for whom this listener is not", "NOT_ADMITTED", |door| door.named(door.not_admitted)),
];

impl Door {
    fn leaf(&self, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Shown {
        self.anchor.leaf(self.uri, change)
    }

    fn named(&self, uri: &str) -> Shown {
        self.anchor.leaf(uri, |_| {})
    }

    fn usages(&self, usages: &[ExtendedKeyUsagePurpose]) -> Shown {
        self.leaf(|params| params.extended_key_usages = usages.to_vec())
    }

    /// Any bytes where the name stands, which is to be ASCII.
    fn raw_name(&self, name: &[u8]) -> Shown {
        let uri = [&[0x86, name.len() as u8], name].concat();
        let names = [&[0x30, uri.len() as u8], &uri[..]].concat();
        self.leaf(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], names));
        })
    }

    fn bytes(&self, change: impl FnOnce(&mut Vec<u8>)) -> Shown {
        let mut leaf = self.leaf(|_| {});
        let mut der = leaf.chain[0].to_vec();
        change(&mut der);
        leaf.chain[0] = der.into();
        leaf
    }

    /// A certificate that verifies and whose key is said to be of a curve of 192 bits.
    fn of_a_weak_curve(&self) -> Shown {
        let (strong, weak) = ([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1]);
        let mut leaf = self.leaf(|_| {});
        let mut params = params_of(self.uri);
        params.serial_number = Some(leaf.serial.clone());
        let key = KeyPair::try_from(leaf.key.as_slice()).unwrap();
        let signer = Replacing { anchor: self.anchor.key(), strong, weak };
        let issuer = rcgen::Issuer::new(self.anchor.named_as(), signer);
        let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
        leaf.chain = vec![CertificateDer::from(replaced(&der, strong, weak))];
        leaf
    }

    /// `spiffe://kaz.concord/node` of `spiffe://kaz.concord/node/main`.
    fn role(&self) -> &str {
        self.uri.rsplit_once('/').unwrap().0
    }

    fn listener_state(&self) -> &'static str {
        if self.state == "sec" { "SEC" } else { "KAZ" }
    }
}

fn params_of(uri: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// Signs what another certificate says.
struct Replacing<'a> {
    anchor: &'a KeyPair,
    strong: [u8; 8],
    weak: [u8; 8],
}

impl PublicKeyData for Replacing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.anchor.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.anchor.algorithm()
    }
}

impl SigningKey for Replacing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.anchor.sign(&replaced(message, self.strong, self.weak))
    }
}

fn replaced(bytes: &[u8], from: [u8; 8], to: [u8; 8]) -> Vec<u8> {
    let at = bytes.windows(8).position(|window| window == from).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].copy_from_slice(&to);
    bytes
}
