//! An authority for each server, its certificate, and the keys that service accounts' tokens are signed with.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::process::write_private;

/// Names that a server is reached by. The second address is that of the service `kubernetes`, by which pods know it.
const NAMES: [&str; 4] = ["127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc"];

/// Writes `tls.crt`, `tls.key` and its authority's `ca.crt` for a server into `dir`; returns the authority's certificate (PEM).
pub(crate) fn server_certificate(dir: &Path) -> Result<String> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "test authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
    server.distinguished_name.push(DnType::CommonName, "test server");
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    write_private(&dir.join("ca.crt"), &authority.pem())?;
    write_private(&dir.join("tls.crt"), &certificate.pem())?;
    write_private(&dir.join("tls.key"), &key.serialize_pem())?;
    Ok(authority.pem())
}

/// Writes `tokens.key`, which signs service accounts' tokens, and `tokens.pub`, which verifies them, into `dir`.
pub(crate) fn token_keys(dir: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    write_private(&dir.join("tokens.key"), &key.serialize_pem())?;
    write_private(&dir.join("tokens.pub"), &key.public_key_pem())
}
