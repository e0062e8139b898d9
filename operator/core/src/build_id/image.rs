//! Which part of an image reference names its version.
//!
//! The grammar is that of `Parse` in github.com/distribution/reference v0.6: no default registry, no `latest`, and
//! upper-case letters only in the domain and the tag. Its two quirks that show in Build IDs: the first component of a
//! path counts as a domain whenever it could be one (`library/busybox` has the path `busybox`), and a reference that
//! does not parse is used as it is.

/// Longest path of a repository; a longer one does not parse.
const MAX_PATH: usize = 255;
/// Longest tag; a longer one does not parse.
const MAX_TAG: usize = 128;

/// The tag, else the digest's hex, else the repository path, else (not a valid reference) the whole text.
pub(super) fn version(image: &str) -> &str {
    parse(image).unwrap_or(image)
}

fn parse(image: &str) -> Option<&str> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest_hex(digest)?)),
        None => (image, None),
    };
    // A colon after the last slash starts the tag; before it, it belongs to the port of the domain.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    if !tag.is_none_or(is_tag) {
        return None;
    }
    let path = path(name).filter(|path| path.len() <= MAX_PATH)?;
    Some(tag.or(digest).unwrap_or(path))
}

/// The repository path of a name without its domain.
fn path(name: &str) -> Option<&str> {
    match name.split_once('/') {
        Some((domain, path)) if is_domain(domain) && is_path(path) => Some(path),
        _ => is_path(name).then_some(name),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

/// The hex of a digest whose algorithm is known and whose length fits it.
fn digest_hex(digest: &str) -> Option<&str> {
    let (algorithm, hex) = digest.split_once(':')?;
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return None,
    };
    let valid = hex.len() == digits && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(hex)
}

fn is_domain(domain: &str) -> bool {
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let ipv6 = !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
        return ipv6 && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)));
    port.is_none_or(is_port) && host.split('.').all(is_domain_component)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit())
}

fn is_domain_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// Lower-case letters and digits, with single dots, one or two underscores or any number of dashes between them.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|c| c == b'-');
    text.starts_with(alphanumeric) && text.ends_with(alphanumeric) && text.split(alphanumeric).all(separator)
}
