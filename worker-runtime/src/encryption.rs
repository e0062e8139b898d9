//! Encryption of everything that leaves the process, with keys that change while it runs.
//!
//! Which keys there are is in the limits file, what they are in files that it names. Both are looked at again every few
//! seconds; a change that can't be used changes nothing, and is said in the log and in a metric.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use operator_core::contract::{EncryptionConfig, EncryptionMode, KeyFile, RuntimeLimits};
use parking_lot::RwLock;
use prometheus::{IntGauge, Opts};
use temporalio_common::data_converters::{
    DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError, PayloadConverter,
    SerializationContextData,
};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_common::protos::temporal::api::failure::v1::Failure;
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;

use crate::codec::{CodecError, KeyRing, Mode, Opener, Sealer, encode_failure};
use crate::metrics::Metrics;

/// Time between two looks at the files: a rotation counts within it.
const LOOK: Duration = Duration::from_secs(5);

/// What a process encrypts and decrypts with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encryption(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: String,
    limits: Option<PathBuf>,
    /// In place of the files' own.
    mode: Option<Mode>,
    active: RwLock<Option<Active>>,
    stale: IntGauge,
}

#[derive(Clone, Debug)]
struct Active {
    told: Told,
    keys: Arc<KeyRing>,
    sealer: Arc<Sealer>,
    opener: Arc<Opener>,
}

/// What the files say. No `Debug` of its own shows key bytes: see [`Contents`].
#[derive(Clone, Debug, PartialEq)]
struct Told {
    config: EncryptionConfig,
    contents: Contents,
}

/// Contents of the key files: that of the write key, then those of the others.
#[derive(Clone, PartialEq)]
struct Contents(Vec<Vec<u8>>);

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Told {
    /// Whether both have the same key to encrypt with.
    fn writes_as(&self, other: &Self) -> bool {
        self.config.write_key.id == other.config.write_key.id && self.contents.0.first() == other.contents.0.first()
    }
}

impl Encryption {
    /// What the limits say now; `file` is where they come from.
    ///
    /// # Errors
    /// A key can't be used; names its id, its file and what is right.
    pub fn start(namespace: &str, source: (&RuntimeLimits, Option<&Path>), metrics: &Metrics) -> anyhow::Result<Self> {
        Self::new(namespace, source, metrics, None)
    }

    /// The same, but what is not encrypted is read as it is, whatever the limits say.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn passing_plain(
        namespace: &str,
        source: (&RuntimeLimits, Option<&Path>),
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        Self::new(namespace, source, metrics, Some(Mode::Migrate))
    }

    fn new(
        namespace: &str,
        (limits, file): (&RuntimeLimits, Option<&Path>),
        metrics: &Metrics,
        mode: Option<Mode>,
    ) -> anyhow::Result<Self> {
        let stale = IntGauge::with_opts(Opts::new(
            "temporal_worker_runtime_encryption_stale",
            "1 while the encryption keys in the files can't be used, and older ones are.",
        ))?;
        metrics.register(Box::new(stale.clone()))?;
        let told = limits.encryption.as_ref().map(read).transpose()?;
        let active = RwLock::new(told.map(|told| active(told, namespace, mode)).transpose()?);
        let (namespace, limits) = (namespace.to_owned(), file.map(Path::to_owned));
        Ok(Self(Arc::new(Inner { namespace, limits, mode, active, stale })))
    }

    /// Looks at the files again and again. Never returns.
    pub async fn keep(&self) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let problem = self.look().await.err().map(|error| format!("{error:#}"));
            self.0.stale.set(problem.is_some().into());
            if let Some(problem) = problem.as_ref().filter(|problem| said.as_ref() != Some(*problem)) {
                tracing::error!("encryption goes on with the keys that it has: {problem}");
            }
            said = problem;
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        let Some(file) = &self.0.limits else { return Ok(()) };
        let text = tokio::fs::read(file).await.with_context(|| format!("file {} can't be read", file.display()))?;
        let limits: RuntimeLimits = serde_json::from_slice(&text)
            .with_context(|| format!("file {} does not follow its format", file.display()))?;
        let told = limits.encryption.as_ref().map(read).transpose()?;
        if self.0.active.read().as_ref().map(|active| &active.told) == told.as_ref() {
            return Ok(());
        }
        // Encryption is never switched off by what may be a mistake: that takes new pods.
        let told = told.context("encryption is no longer configured; replace the pods to go on without it")?;
        let changed = active(told, &self.0.namespace, self.0.mode)?;
        if let Some(before) = self.0.active.read().as_ref().filter(|before| before.told.writes_as(&changed.told)) {
            changed.keys.go_on_from(&before.keys);
        }
        tracing::info!(write_key = changed.told.config.write_key.id, "encryption keys changed");
        *self.0.active.write() = Some(changed);
        Ok(())
    }

    /// Decrypts payloads from the server.
    ///
    /// # Errors
    /// One is refused, or can't be decrypted.
    pub fn open(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>, CodecError> {
        let Some(opener) = self.0.active.read().as_ref().map(|active| active.opener.clone()) else {
            return Ok(payloads);
        };
        payloads.into_iter().map(|payload| opener.open(payload)).collect()
    }

    /// Encrypts payloads for the server.
    ///
    /// # Errors
    /// One can't be encrypted: then it must not be sent.
    pub fn seal(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>, CodecError> {
        let Some(sealer) = self.sealer() else { return Ok(payloads) };
        payloads.into_iter().map(|payload| sealer.seal(payload)).collect()
    }

    /// Encrypts message, stack trace and details of a failure and its causes.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_failure(&self, failure: Failure) -> Result<Failure, CodecError> {
        let Some(sealer) = self.sealer() else { return Ok(failure) };
        seal_details(encode_failure(failure, &sealer)?, &sealer)
    }

    /// Whether there are keys.
    pub fn is_on(&self) -> bool {
        self.0.active.read().is_some()
    }

    /// What the SDK's Workers convert values with.
    pub fn data_converter(&self) -> DataConverter {
        if !self.is_on() {
            return DataConverter::default();
        }
        DataConverter::new(PayloadConverter::default(), DefaultFailureConverter::new(true), self.clone())
    }

    /// What decrypts now; none without keys.
    pub fn opener(&self) -> Option<Arc<Opener>> {
        self.0.active.read().as_ref().map(|active| active.opener.clone())
    }

    /// What encrypts now; none without keys.
    pub fn sealer(&self) -> Option<Arc<Sealer>> {
        self.0.active.read().as_ref().map(|active| active.sealer.clone())
    }
}

impl PayloadCodec for Encryption {
    fn encode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        std::future::ready(self.seal(payloads).map_err(conversion_error)).boxed()
    }

    fn decode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        std::future::ready(self.open(payloads).map_err(conversion_error)).boxed()
    }
}

fn conversion_error(error: CodecError) -> PayloadConversionError {
    PayloadConversionError::EncodingError(error.into())
}

/// Encrypts the details of a failure and of all its causes.
fn seal_details(mut failure: Failure, sealer: &Sealer) -> Result<Failure, CodecError> {
    let mut next = Some(&mut failure);
    while let Some(level) = next {
        let details = match &mut level.failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => info.details.as_mut(),
            Some(FailureInfo::CanceledFailureInfo(info)) => info.details.as_mut(),
            Some(FailureInfo::TimeoutFailureInfo(info)) => info.last_heartbeat_details.as_mut(),
            Some(FailureInfo::ResetWorkflowFailureInfo(info)) => info.last_heartbeat_details.as_mut(),
            _ => None,
        };
        if let Some(details) = details {
            let payloads = std::mem::take(&mut details.payloads);
            details.payloads = payloads.into_iter().map(|payload| sealer.seal(payload)).collect::<Result<_, _>>()?;
        }
        next = level.cause.as_deref_mut();
    }
    Ok(failure)
}

fn read(config: &EncryptionConfig) -> anyhow::Result<Told> {
    let keys = std::iter::once(&config.write_key).chain(&config.read_keys);
    let content = |KeyFile { id, file }: &KeyFile| {
        std::fs::read(file).with_context(|| {
            format!("encryption key {id:?}: file {file} can't be read; check that its Secret has this key")
        })
    };
    Ok(Told { config: config.clone(), contents: Contents(keys.map(content).collect::<Result<_, _>>()?) })
}

fn active(told: Told, namespace: &str, mode: Option<Mode>) -> anyhow::Result<Active> {
    let EncryptionConfig { mode: own_mode, write_key, read_keys, namespaces } = &told.config;
    let mut contents = told.contents.0.iter().map(Vec::as_slice);
    let write = (write_key.id.as_str(), contents.next().unwrap_or_default());
    let keys = Arc::new(KeyRing::load(write, read_keys.iter().map(|key| key.id.as_str()).zip(contents))?);
    let mode = mode.unwrap_or(match own_mode {
        EncryptionMode::Require => Mode::Require,
        EncryptionMode::Migrate => Mode::Migrate,
    });
    let sealer = Arc::new(Sealer::new(keys.clone(), namespace));
    let opener = Arc::new(Opener::new(keys.clone(), mode, namespace, namespaces.iter().cloned()));
    Ok(Active { told, keys, sealer, opener })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A folder with keys `a` and `b`, and the limits that name them.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            for (key, byte) in [("a", 1), ("b", 2)] {
                std::fs::write(files.0.path().join(key), [byte; 32]).unwrap();
            }
            files
        }

        fn limits(&self, write: &str, read: &[&str]) -> RuntimeLimits {
            let key = |id: &str| json!({"id": id, "file": self.0.path().join(id)});
            let read: Vec<_> = read.iter().map(|id| key(id)).collect();
            serde_json::from_value(json!({"encryption": {"writeKey": key(write), "readKeys": read}})).unwrap()
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("limits.json")
        }

        fn write(&self, limits: &RuntimeLimits) {
            std::fs::write(self.path(), serde_json::to_vec(limits).unwrap()).unwrap();
        }

        fn encryption(&self, limits: &RuntimeLimits) -> anyhow::Result<Encryption> {
            self.write(limits);
            Encryption::start("ns", (limits, Some(&self.path())), &Metrics::new(None).unwrap())
        }
    }

    fn key_of(payload: &Payload) -> String {
        String::from_utf8(payload.metadata["encryption-key-id"].clone()).unwrap()
    }

    fn payload() -> Vec<Payload> {
        vec![Payload { data: b"secret".to_vec(), ..Payload::default() }]
    }

    #[tokio::test]
    async fn a_rotation_counts_at_the_next_look_and_older_payloads_are_still_read() {
        let files = Files::new();
        let encryption = files.encryption(&files.limits("a", &[])).unwrap();
        let old = encryption.seal(payload()).unwrap();
        files.write(&files.limits("b", &["a"]));
        encryption.look().await.unwrap();
        let new = encryption.seal(payload()).unwrap();
        assert_eq!((key_of(&old[0]).as_str(), key_of(&new[0]).as_str()), ("a", "b"));
        assert_eq!((encryption.open(old).unwrap(), encryption.open(new).unwrap()), (payload(), payload()));
    }

    #[tokio::test]
    async fn what_can_not_be_used_changes_nothing_and_is_named() {
        let files = Files::new();
        let encryption = files.encryption(&files.limits("a", &["b"])).unwrap();
        let says = async |part: &str| {
            let problem = format!("{:#}", encryption.look().await.unwrap_err());
            assert!(problem.contains(part), "{problem}");
            assert_eq!(key_of(&encryption.seal(payload()).unwrap()[0]), "a");
        };
        files.write(&files.limits("c", &["a"]));
        says("encryption key \"c\"").await;
        files.write(&RuntimeLimits::default());
        says("no longer configured").await;
        std::fs::write(files.path(), "{").unwrap();
        says("limits.json").await;
        files.write(&files.limits("a", &["b"]));
        std::fs::write(files.0.path().join("b"), "short").unwrap();
        says("has 5 bytes").await;
        std::fs::write(files.0.path().join("b"), [3; 32]).unwrap();
        encryption.look().await.unwrap();
    }

    #[test]
    fn no_key_that_can_not_be_used_is_started_with() {
        let files = Files::new();
        let problem = format!("{:#}", files.encryption(&files.limits("c", &[])).unwrap_err());
        assert!(problem.contains("\"c\"") && problem.contains("Secret"), "{problem}");
        std::fs::write(files.0.path().join("a"), "short").unwrap();
        let problem = format!("{:#}", files.encryption(&files.limits("a", &[])).unwrap_err());
        assert!(problem.contains("\"a\" has 5 bytes") && problem.contains("openssl rand"), "{problem}");
    }

    #[test]
    fn without_keys_everything_stays_as_it_is() {
        let encryption =
            Encryption::start("ns", (&RuntimeLimits::default(), None), &Metrics::new(None).unwrap()).unwrap();
        assert!(!encryption.is_on());
        assert_eq!(encryption.seal(payload()).unwrap(), payload());
        assert_eq!(encryption.open(payload()).unwrap(), payload());
    }

    #[test]
    fn no_debug_output_shows_a_key() {
        let files = Files::new();
        std::fs::write(files.0.path().join("a"), "0123456789abcdefghijklmnopqrstuv").unwrap();
        let text = format!("{:?}", files.encryption(&files.limits("a", &[])).unwrap());
        let bytes = format!("{:?}", b"0123456789".as_slice());
        assert!(!text.contains("0123456789") && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    }
}
