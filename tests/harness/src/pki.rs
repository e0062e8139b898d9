//! Certificates and keys of one cluster: made anew each time, readable by their owner alone.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// A certificate authority in a folder, and what it has signed.
pub struct Authority {
    directory: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Paths of a certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// Certificate.
    pub certificate: PathBuf,
    /// Private key (PKCS#8), mode 0600.
    pub key: PathBuf,
}

/// A client's identity for Kubernetes: user name and group.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// User name, the certificate's common name.
    pub name: &'a str,
    /// Group, the certificate's organization.
    pub group: &'a str,
}

impl Authority {
    /// Makes a new authority, `ca.crt` in the folder. Its key stays in memory: nothing is signed after the start.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = distinguished_name(User { name, group: "test cluster" });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write_private(&directory.join("ca.crt"), certificate.as_bytes())?;
        Ok(Self { directory: directory.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Path of the authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Signs `<file>.crt`, `<file>.key` for a server at the given addresses and names, and for a client of that user.
    ///
    /// # Errors
    /// A name is not one of DNS, or the folder can't be written.
    pub fn sign(&self, file: &str, user: User<'_>, addresses: &[IpAddr], names: &[&str]) -> Result<CertificateFiles> {
        let (certificate, key) = self.issue(user, addresses, names)?;
        let files = CertificateFiles {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        write_private(&files.certificate, certificate.as_bytes())?;
        write_private(&files.key, key.as_bytes())?;
        Ok(files)
    }

    /// Writes a kubeconfig for a user of the API server at `server` (`https://address:port`).
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, cluster: &str, user: User<'_>) -> Result<()> {
        let (certificate, key) = self.issue(user, &[], &[])?;
        // A kubeconfig is YAML, and so is JSON.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {
                "server": server,
                "certificate-authority-data": base64(self.certificate.as_bytes()),
            }}],
            "users": [{"name": user.name, "user": {
                "client-certificate-data": base64(certificate.as_bytes()),
                "client-key-data": base64(key.as_bytes()),
            }}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user.name}}],
            "current-context": cluster,
        });
        write_private(path, &serde_json::to_vec_pretty(&config)?)
    }

    fn issue(&self, user: User<'_>, addresses: &[IpAddr], names: &[&str]) -> Result<(String, String)> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = distinguished_name(user);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok((certificate, key.serialize_pem()))
    }
}

/// Makes the key pair that signs ServiceAccount tokens: `service-account.key` and `service-account.pub`.
///
/// # Errors
/// The folder can't be written.
pub fn create_service_account_key(directory: &Path) -> Result<CertificateFiles> {
    let key = KeyPair::generate()?;
    let files = CertificateFiles {
        certificate: directory.join("service-account.pub"),
        key: directory.join("service-account.key"),
    };
    write_private(&files.certificate, key.public_key_pem().as_bytes())?;
    write_private(&files.key, key.serialize_pem().as_bytes())?;
    Ok(files)
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// It can't be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content));
    written.with_context(|| format!("write {}", path.display()))
}

fn distinguished_name(user: User<'_>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, user.group);
    name.push(DnType::CommonName, user.name);
    name
}

fn base64(data: &[u8]) -> String {
    // `ByteString` is written as base64 by definition of the Kubernetes API.
    serde_json::to_value(k8s_openapi::ByteString(data.to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
