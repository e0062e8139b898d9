//! What the files of a connection hold: certificates, private key, API key. Read anew for each connection.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::pem::Pem;

use crate::settings::{ApiKey, Settings, Tls};

/// Time before the end of a certificate from which on it is said.
pub const NOTICE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the files hold. No `Debug`: it is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Certificates that sign the server's, PEM.
    pub ca: Option<Vec<u8>>,
    /// Client certificate and private key, PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Bearer token.
    pub api_key: Option<String>,
}

impl Credentials {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A file can't be read, or holds no certificate or one that is over; names it, and what to do.
    pub async fn read(settings: &Settings) -> Result<Self, String> {
        let mut credentials = Self::default();
        if let Some(Tls { ca, client, .. }) = &settings.tls {
            if let Some(path) = ca {
                credentials.ca = Some(read(path).await?);
            }
            if let Some((certificate, key)) = client {
                let pem = read(certificate).await?;
                let end = end_of(&pem).map_err(|problem| format!("file {} {problem}", certificate.display()))?;
                if end <= now() {
                    let over =
                        jiff::Timestamp::from_second(end).map_or_else(|_| end.to_string(), |end| end.to_string());
                    return Err(format!("the certificate in {} is over since {over}; renew it", certificate.display()));
                }
                credentials.client = Some((pem, read(key).await?));
            }
        }
        credentials.api_key = match &settings.api_key {
            Some(ApiKey::Value(key)) => Some(key.clone()),
            Some(ApiKey::File(path)) => {
                let key = String::from_utf8(read(path).await?).unwrap_or_default().trim().to_owned();
                if key.is_empty() {
                    return Err(format!("file {} holds no API key; check the Secret that it is of", path.display()));
                }
                Some(key)
            }
            None => None,
        };
        Ok(credentials)
    }

    /// End of the client certificate, in seconds since 1970.
    pub fn expiry(&self) -> Option<i64> {
        self.client.as_ref().and_then(|(certificate, _)| end_of(certificate).ok())
    }

    /// How long the client certificate is still good for.
    pub fn left(&self) -> Option<Duration> {
        self.expiry().map(|end| Duration::from_secs(u64::try_from(end - now()).unwrap_or(0)))
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// The end of the first certificate of a file: the one that is shown to the server.
fn end_of(pem: &[u8]) -> Result<i64, String> {
    let first = Pem::iter_from_buffer(pem).next().ok_or("holds no PEM text; give a certificate in PEM form")?;
    let first = first.map_err(|error| format!("is not PEM text: {error}"))?;
    let certificate = first.parse_x509().map_err(|error| format!("holds no certificate: {error}"))?;
    Ok(certificate.validity().not_after.timestamp())
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path)
        .await
        .map_err(|error| format!("file {} can't be read: {error}; check that it is mounted", path.display()))
}
