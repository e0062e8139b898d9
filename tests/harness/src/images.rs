//! Container images without a registry: an OCI archive of one layer, made from files.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::prerequisites::CA_CERTIFICATES;

/// User that images run as unless told otherwise, `nonroot`.
pub const NONROOT: u32 = 65532;
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
const NAME_SERVICES: &str = "hosts: files dns\n";

/// What an image holds.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    name: String,
    entrypoint: Vec<String>,
    environment: Vec<String>,
    user: u32,
    programs: Vec<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, PathBuf)>,
    trees: Vec<(PathBuf, PathBuf)>,
    texts: Vec<(PathBuf, String)>,
}

impl ImageSpec {
    /// An image with the given name and entry point. A name without a registry means `docker.io/`, as everywhere.
    #[must_use]
    pub fn new<S: Into<String>>(name: &str, entrypoint: impl IntoIterator<Item = S>) -> Self {
        Self {
            name: normalize(name),
            entrypoint: entrypoint.into_iter().map(Into::into).collect(),
            environment: vec!["PATH=/usr/local/bin:/usr/bin:/bin:/".to_owned()],
            user: NONROOT,
            programs: Vec::new(),
            files: Vec::new(),
            trees: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// Adds a program with the libraries that it is linked to and their loader.
    #[must_use]
    pub fn program(mut self, source: &Path, target: &str) -> Self {
        self.programs.push((source.to_owned(), target.into()));
        self
    }

    /// Adds a file as it is; it is executable when its source is.
    #[must_use]
    pub fn file(mut self, source: &Path, target: &str) -> Self {
        self.files.push((source.to_owned(), target.into()));
        self
    }

    /// Adds a folder with everything below it, such as an interpreter's. Symbolic links stay links.
    #[must_use]
    pub fn tree(mut self, source: &Path, target: &str) -> Self {
        self.trees.push((source.to_owned(), target.into()));
        self
    }

    /// Adds a file with the given text.
    #[must_use]
    pub fn text(mut self, target: &str, text: &str) -> Self {
        self.texts.push((target.into(), text.to_owned()));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Runs the image as another user than 65532.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// The image's full name, with registry and tag.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Writes the image as an OCI archive. The same files give the same bytes.
///
/// # Errors
/// A file can't be read, a library of a program is missing, or the archive can't be written.
pub fn build(image: &ImageSpec, archive: &Path) -> Result<()> {
    write_archive(image, archive).with_context(|| format!("build the image {}", image.name))
}

fn write_archive(image: &ImageSpec, archive: &Path) -> Result<()> {
    let mut layer_file = tempfile::tempfile_in(archive.parent().unwrap_or(Path::new(".")))?;
    let layer = write_layer(&content(image)?, &mut layer_file)?;
    let config = json!({
        "architecture": oci_architecture(),
        "os": "linux",
        "config": {"Entrypoint": image.entrypoint, "Env": image.environment, "User": image.user.to_string(), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
    });
    let config = Blob::of(&config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest(), "size": layer.size}],
    });
    let manifest = Blob::of(&manifest)?;
    let mut listed = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    listed["annotations"] = json!({"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });

    let partial = archive.with_extension("partial");
    let mut tar = tar::Builder::new(File::create(&partial).with_context(|| format!("create {}", partial.display()))?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
    for blob in [&config, &manifest] {
        append(&mut tar, &format!("blobs/sha256/{}", blob.hash), &blob.bytes)?;
    }
    io::Seek::rewind(&mut layer_file)?;
    let mut header = header(EntryType::Regular, 0o644, layer.size);
    tar.append_data(&mut header, format!("blobs/sha256/{}", layer.hash), layer_file)?;
    tar.into_inner()?.flush()?;
    fs::rename(partial, archive)?;
    Ok(())
}

enum Content {
    Directory(u32),
    File(PathBuf),
    Text(String),
    Link(PathBuf),
}

/// Everything in the image by its path, parents before what lies in them.
fn content(image: &ImageSpec) -> Result<BTreeMap<PathBuf, Content>> {
    let mut all = BTreeMap::new();
    all.insert("/tmp".into(), Content::Directory(0o1777));
    for (path, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/nsswitch.conf", NAME_SERVICES)] {
        all.insert(path.into(), Content::Text(text.to_owned()));
    }
    if Path::new(CA_CERTIFICATES).is_file() {
        all.insert(CA_CERTIFICATES.into(), Content::File(CA_CERTIFICATES.into()));
    }
    for (source, target) in &image.trees {
        add_tree(source, target, &mut all)?;
    }
    for (source, target) in &image.programs {
        let libraries = libraries(source)?;
        // Those of a folder that is here as a whole are found there.
        let is_here = |library: &PathBuf| image.trees.iter().any(|(tree, _)| library.starts_with(tree));
        for library in libraries.into_iter().filter(|library| !is_here(library)) {
            all.insert(library.clone(), Content::File(library));
        }
        all.insert(target.clone(), Content::File(source.clone()));
    }
    for (source, target) in &image.files {
        all.insert(target.clone(), Content::File(source.clone()));
    }
    for (target, text) in &image.texts {
        all.insert(target.clone(), Content::Text(text.clone()));
    }
    let parents: Vec<PathBuf> = all.keys().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
    for path in all.keys() {
        ensure!(path.is_absolute(), "the path {} in the image is not absolute", path.display());
    }
    for parent in parents {
        all.entry(parent).or_insert(Content::Directory(0o755));
    }
    all.remove(Path::new("/"));
    Ok(all)
}

fn add_tree(source: &Path, target: &Path, all: &mut BTreeMap<PathBuf, Content>) -> Result<()> {
    for entry in fs::read_dir(source).with_context(|| format!("read {}", source.display()))? {
        let entry = entry?;
        let (path, place) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            add_tree(&path, &place, all)?;
        } else if kind.is_symlink() {
            all.insert(place, Content::Link(fs::read_link(&path)?));
        } else if kind.is_file() {
            all.insert(place, Content::File(path));
        }
    }
    Ok(())
}

/// Paths of the libraries and the loader that a program needs; none of a static one.
///
/// # Errors
/// The program can't be read, or a library is not found.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    ensure!(program.is_file(), "there is no program {}", program.display());
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("run ldd (package libc-bin)")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", program.display(), said.trim());
    parse_ldd(&said).with_context(|| format!("libraries of {}", program.display()))
}

/// Lines are `name => /path (address)`, `/loader (address)`, or `linux-vdso…`, which is no file.
fn parse_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        let target = line.split_once(" => ").map_or(line, |(_, target)| target);
        if target.starts_with("not found") {
            bail!("{line}: install the package that holds it");
        }
        if let Some(path) = target.split_once(" (").map(|(path, _)| path).filter(|path| path.starts_with('/')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

struct Layer {
    hash: String,
    size: u64,
}

impl Layer {
    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }
}

fn write_layer(content: &BTreeMap<PathBuf, Content>, file: &mut File) -> Result<Layer> {
    let mut tar = tar::Builder::new(Hashing { inner: file, hash: Sha256::new(), size: 0 });
    for (path, entry) in content {
        let name = path.strip_prefix("/")?;
        match entry {
            Content::Directory(mode) => {
                tar.append_data(&mut header(EntryType::Directory, *mode, 0), name, io::empty())?;
            }
            Content::Text(text) => {
                let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
                tar.append_data(&mut header, name, text.as_bytes())?;
            }
            Content::Link(target) => {
                tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), name, target)?;
            }
            Content::File(source) => {
                let open = File::open(source).with_context(|| format!("open {}", source.display()))?;
                let meta = open.metadata()?;
                let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                tar.append_data(&mut header(EntryType::Regular, mode, meta.len()), name, open.take(meta.len()))?;
            }
        }
    }
    let written = tar.into_inner()?;
    Ok(Layer { hash: hex(&written.hash.finalize()), size: written.size })
}

/// Owner root and no time: the archive's bytes depend on the files' content alone.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), name, bytes)?)
}

struct Blob {
    bytes: Vec<u8>,
    hash: String,
}

impl Blob {
    fn of(document: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(document)?;
        let hash = hex(&Sha256::digest(&bytes));
        Ok(Self { bytes, hash })
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.hash), "size": self.bytes.len()})
    }
}

struct Hashing<'a> {
    inner: &'a mut File,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hash.update(&data[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn oci_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The full form of an image name, as the kubelet looks it up.
fn normalize(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let has_registry = first == "localhost" || first.contains(['.', ':']);
    let full = match (has_registry, first) {
        (true, _) => name.to_owned(),
        (false, "") => format!("docker.io/library/{rest}"),
        (false, _) => format!("docker.io/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains(':') { full } else { format!("{full}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_the_kubelet_looks_up() {
        for (given, full) in [
            ("worker", "docker.io/library/worker:latest"),
            ("worker:dev", "docker.io/library/worker:dev"),
            ("team/worker:1", "docker.io/team/worker:1"),
            ("localhost/worker:1", "localhost/worker:1"),
            ("localhost:5000/worker", "localhost:5000/worker:latest"),
            ("ghcr.io/team/worker:1", "ghcr.io/team/worker:1"),
        ] {
            assert_eq!(normalize(given), full);
        }
    }

    #[test]
    fn libraries_and_loader_are_read_from_ldd_and_a_missing_one_is_named() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse_ldd(said).unwrap();
        assert_eq!(found, [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), "/lib64/ld-linux-x86-64.so.2".into()]);
        let error = parse_ldd("\tlibodd.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libodd.so.1"), "{error}");
    }
}
