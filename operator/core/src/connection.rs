//! What a fleet needs to know of its Connection: where the server is and how a client proves who it is.

use serde::Serialize;

/// A Connection or ClusterConnection without its secrets: references only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionFacts {
    /// `host:port` of the Temporal frontend.
    pub host_port: String,
    /// Name that the server's certificate is verified against.
    pub server_name: Option<String>,
    /// How clients prove who they are.
    pub auth: Auth,
    /// Secret and key with the certificates that sign the server's, when the Connection names one of its own.
    pub ca_cert: Option<SecretKey>,
}

/// One key of a Secret in the fleet's own Kubernetes namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Auth {
    /// Not at all.
    None,
    /// By a certificate: keys `tls.crt` and `tls.key` of a Secret.
    MutualTls {
        /// Name of the Secret.
        secret: String,
        /// Whether the Secret has `ca.crt` too.
        has_ca: bool,
    },
    /// By an API key.
    ApiKey(SecretKey),
}

impl ConnectionFacts {
    /// Name of the Secret with the credentials.
    #[must_use]
    pub fn credential_secret(&self) -> Option<&str> {
        match &self.auth {
            Auth::None => None,
            Auth::MutualTls { secret, .. } => Some(secret),
            Auth::ApiKey(key) => Some(&key.name),
        }
    }
}

/// Where pods work: everything that their template has of a Connection, and the Temporal namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The Connection.
    pub connection: ConnectionFacts,
    /// Temporal namespace.
    pub temporal_namespace: String,
}

impl Attachment {
    /// Of a Connection, with what makes no difference to pods left out.
    #[must_use]
    pub fn new(connection: &ConnectionFacts, temporal_namespace: &str) -> Self {
        let mut connection = connection.clone();
        if let (Some(_), Auth::MutualTls { has_ca, .. }) = (&connection.ca_cert, &mut connection.auth) {
            // The Connection's own CA takes the place of the one beside the certificate.
            *has_ca = false;
        }
        Self { connection, temporal_namespace: temporal_namespace.to_owned() }
    }

    /// Whether all that is missing to another one is the variable that names the CA beside the client certificate: the file is
    /// there, and temporal-worker-controller never named it.
    #[must_use]
    pub fn only_lacks_own_ca(&self, to: &Self) -> bool {
        let mut less = to.clone();
        match &mut less.connection.auth {
            Auth::MutualTls { has_ca: has_ca @ true, .. } => *has_ca = false,
            _ => return false,
        }
        *self == less
    }
}

/// Where the pods of a child work, by its template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attached {
    /// The template was not looked at.
    #[default]
    Unknown,
    /// Its containers do not agree, or lack something.
    Torn,
    /// All of them work here.
    To(Attachment),
}
