//! The authority of one container, and the certificates it signs for the servers that the proxy
//! stands in for. Its key is nowhere but here, and goes with the container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::Error;

const NAME: &str = "kiln build proxy";
/// Another one: who has the name of the authority is thought to have signed itself.
const SERVERS: &str = "a server behind the kiln build proxy";
/// Longer than any step, and clocks may differ.
const LIFE: Duration = Duration::days(30);
const EARLIER: Duration = Duration::hours(1);
/// Servers whose certificates are kept.
const MOST_SERVERS: usize = 512;

pub(crate) struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, Key>,
    /// All servers have the same.
    key: Key,
    servers: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    pub(crate) fn new() -> Result<Authority, Error> {
        let key = Key::generate()?;
        let mut params = params(Vec::new(), NAME, &key)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority {
            pem: pem(&certificate),
            certificate,
            issuer: Issuer::new(params, key),
            key: Key::generate()?,
            servers: Mutex::default(),
        })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How to be the server of this name or address.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = servers.get(host) {
            return Ok(known.clone());
        }
        let config = self.certify(host).map_err(|error| error.to_string())?;
        if servers.len() >= MOST_SERVERS {
            servers.clear();
        }
        servers.insert(host.to_owned(), config.clone());
        Ok(config)
    }

    fn certify(&self, host: &str) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
        let mut params = params(vec![host.to_owned()], SERVERS, &self.key)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivatePkcs8KeyDer::from(self.key.pkcs8.clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key.into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A key, as `ring` has it.
struct Key {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
    random: SystemRandom,
}

impl Key {
    fn generate() -> Result<Key, rcgen::Error> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let failed = |_| rcgen::Error::KeyGenerationUnavailable;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        Ok(Key {
            pair: pair.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?,
            pkcs8: pkcs8.as_ref().to_vec(),
            random,
        })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.pair.sign(&self.random, message);
        let signed = signed.map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signed.as_ref().to_vec())
    }
}

fn params(hosts: Vec<String>, name: &str, key: &Key) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    let mut serial = [0; 16];
    let random = key.random.fill(&mut serial);
    random.map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    // How it is named is free; it has to be another one for another key.
    let point = &key.der_bytes()[1..21];
    params.key_identifier_method = KeyIdMethod::PreSpecified(point.to_vec());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - EARLIER;
    params.not_after = now + LIFE;
    Ok(params)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}
