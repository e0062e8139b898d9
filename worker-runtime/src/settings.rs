//! How to reach Temporal, and as which version: read from the environment that the operator writes.

use std::path::PathBuf;

use operator_core::contract;
use temporalio_client::Url;

/// Connection and identity of a Worker. Holds the API key: its `Debug` does not show it.
#[derive(Clone)]
pub struct Settings {
    /// `http(s)://host:port` of the Temporal frontend.
    pub url: Url,
    /// `host:port` as it was given, for messages.
    pub address: String,
    /// Temporal namespace.
    pub namespace: String,
    /// The version this process runs as; none when Worker Versioning is off.
    pub version: Option<Version>,
    /// How the connection is secured; none without TLS.
    pub tls: Option<Tls>,
    /// Bearer token of the namespace.
    pub api_key: Option<ApiKey>,
    /// Name under which the server lists this process.
    pub identity: String,
    /// `metadata.uid` of the pod: orders have to name it.
    pub pod_uid: Option<String>,
}

/// Where the bearer token is.
#[derive(Clone)]
pub enum ApiKey {
    /// Here.
    Value(String),
    /// In a file, which may change.
    File(PathBuf),
}

/// A version of a Worker Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Temporal Worker Deployment name.
    pub deployment: String,
    /// Build ID.
    pub build_id: String,
}

/// Files and names of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that sign the server's; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Client certificate and private key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Name that the server's certificate is verified against, when it is not the address.
    pub server_name: Option<String>,
}

/// A variable of the environment that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name} {problem}")]
pub struct SettingsError {
    name: &'static str,
    problem: String,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("address", &self.address)
            .field("namespace", &self.namespace)
            .field("version", &self.version)
            .field("tls", &self.tls)
            .field("api_key", &self.api_key.as_ref().map(|_| "<hidden>"))
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads the variables of [`operator_core::contract`] through `lookup`; an empty value counts as unset.
    ///
    /// # Errors
    /// A required variable is missing, or a value or combination can't be used; names the variable and what to do.
    pub fn read(lookup: impl Fn(&str) -> Option<String>, host: &str) -> Result<Self, SettingsError> {
        let get = |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let address = get(contract::ENV_ADDRESS)
            .ok_or_else(|| error(contract::ENV_ADDRESS, "is not set; set it to host:port of the Temporal frontend"))?;
        let namespace = get(contract::ENV_NAMESPACE)
            .ok_or_else(|| error(contract::ENV_NAMESPACE, "is not set; set it to the Temporal namespace"))?;
        let file = get(contract::ENV_API_KEY_FILE).map(|path| ApiKey::File(path.into()));
        let api_key = file.or(get(contract::ENV_API_KEY).map(ApiKey::Value));
        let tls = tls(&get, api_key.is_some())?;
        let url = url(&address, tls.is_some())?;
        Ok(Self {
            url,
            address,
            namespace,
            version: version(&get)?,
            tls,
            api_key,
            identity: get("POD_NAME").unwrap_or_else(|| host.to_owned()),
            pod_uid: get(contract::ENV_POD_UID),
        })
    }

    /// [`Settings::read`] on the environment of this process.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn from_environment() -> Result<Self, SettingsError> {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self::read(|name| std::env::var(name).ok(), host.as_deref().unwrap_or("worker-runtime"))
    }
}

fn error(name: &'static str, problem: impl Into<String>) -> SettingsError {
    SettingsError { name, problem: problem.into() }
}

fn version(get: &impl Fn(&str) -> Option<String>) -> Result<Option<Version>, SettingsError> {
    match (get(contract::ENV_DEPLOYMENT_NAME), get(contract::ENV_BUILD_ID)) {
        (Some(deployment), Some(build_id)) => Ok(Some(Version { deployment, build_id })),
        // A deployment name alone says whose pod it is; the version is what switches Worker Versioning on.
        (_, None) => Ok(None),
        (None, Some(build_id)) => Err(error(
            contract::ENV_DEPLOYMENT_NAME,
            format!("is not set, but {} is {build_id:?}; set both, or neither", contract::ENV_BUILD_ID),
        )),
    }
}

fn tls(get: &impl Fn(&str) -> Option<String>, has_api_key: bool) -> Result<Option<Tls>, SettingsError> {
    let path = |name| get(name).map(PathBuf::from);
    let client = match (path(contract::ENV_TLS_CLIENT_CERT_PATH), path(contract::ENV_TLS_CLIENT_KEY_PATH)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(error(contract::ENV_TLS_CLIENT_KEY_PATH, "is not set, but the certificate is; set both"));
        }
        (None, Some(_)) => {
            return Err(error(contract::ENV_TLS_CLIENT_CERT_PATH, "is not set, but the private key is; set both"));
        }
    };
    let tls = Tls {
        ca: path(contract::ENV_TLS_SERVER_CA_CERT_PATH),
        client,
        server_name: get(contract::ENV_TLS_SERVER_NAME),
    };
    let wanted = match get(contract::ENV_TLS).as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => return Err(error(contract::ENV_TLS, format!("is {other:?}; use true or false"))),
        None => has_api_key || tls != Tls::default(),
    };
    Ok(wanted.then_some(tls))
}

fn url(address: &str, tls: bool) -> Result<Url, SettingsError> {
    let scheme = if tls { "https" } else { "http" };
    let bad = || error(contract::ENV_ADDRESS, format!("is {address:?}; use host:port, as in temporal-frontend:7233"));
    if address.contains("://") || address.contains('/') {
        return Err(bad());
    }
    let url = Url::parse(&format!("{scheme}://{address}")).map_err(|_| bad())?;
    if url.host().is_none() || address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(bad());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let base = [("TEMPORAL_ADDRESS", "temporal:7233"), ("TEMPORAL_NAMESPACE", "default")];
        let lookup =
            |name: &str| pairs.iter().chain(&base).find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::read(lookup, "host-1")
    }

    #[test]
    fn plain_connection_without_version() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.url.as_str(), "http://temporal:7233/");
        assert_eq!((settings.tls, settings.version, settings.identity.as_str()), (None, None, "host-1"));
    }

    #[test]
    fn an_api_key_switches_tls_on_and_stays_out_of_debug_output() {
        let settings = read(&[("TEMPORAL_API_KEY", "s3cret"), ("POD_NAME", "pod-7")]).unwrap();
        assert_eq!((settings.url.scheme(), settings.identity.as_str()), ("https", "pod-7"));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn tls_false_wins_over_an_api_key() {
        assert_eq!(read(&[("TEMPORAL_API_KEY", "k"), ("TEMPORAL_TLS", "false")]).unwrap().tls, None);
    }

    #[test]
    fn versioning_needs_both_names() {
        let version = [("TEMPORAL_DEPLOYMENT_NAME", "ns/w"), ("TEMPORAL_WORKER_BUILD_ID", "b1")];
        let expected = Version { deployment: "ns/w".into(), build_id: "b1".into() };
        assert_eq!(read(&version).unwrap().version, Some(expected));
        assert_eq!(read(&version[..1]).unwrap().version, None);
        let message = read(&version[1..]).unwrap_err().to_string();
        assert!(message.contains("TEMPORAL_DEPLOYMENT_NAME") && message.contains("\"b1\""), "{message}");
    }

    #[test]
    fn every_bad_value_is_named() {
        let bad = [
            ("TEMPORAL_ADDRESS", "", "is not set"),
            ("TEMPORAL_ADDRESS", "http://x:1", "\"http://x:1\""),
            ("TEMPORAL_ADDRESS", "temporal", "host:port"),
            ("TEMPORAL_NAMESPACE", " ", "is not set"),
            ("TEMPORAL_TLS", "maybe", "true or false"),
            ("TEMPORAL_TLS_CLIENT_CERT_PATH", "/c", "set both"),
        ];
        for (name, value, expected) in bad {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains("TEMPORAL_") && message.contains(expected), "{name}={value}: {message}");
        }
    }
}
