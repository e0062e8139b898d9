//! What the tag of format 1 vouches for beside the data.

/// The four metadata values that are authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Version of the format.
    pub format: &'a [u8],
    /// Id of the key.
    pub key_id: &'a [u8],
    /// Encoding of the encrypted payload.
    pub encoding: &'a [u8],
    /// Temporal namespace of the writer.
    pub namespace: &'a [u8],
}

impl Bound<'_> {
    /// The associated data: format version, key id, encoding and namespace, in this order. Each is its length in bytes as
    /// an unsigned 64-bit big-endian number, then its bytes as they are in the metadata. Nothing precedes, separates or
    /// follows them.
    ///
    /// Two different quadruples never have the same form: the number of fields is fixed, and every length is known before
    /// its bytes are read.
    ///
    /// For `1`, `k`, `binary/encrypted` and `ns` it is, in hexadecimal:
    ///
    /// ```text
    /// 0000000000000001 31
    /// 0000000000000001 6b
    /// 0000000000000010 62696e6172792f656e63727970746564
    /// 0000000000000002 6e73
    /// ```
    pub fn canonical(&self) -> Vec<u8> {
        let fields = [self.format, self.key_id, self.encoding, self.namespace];
        let mut form = Vec::with_capacity(fields.iter().map(|field| size_of::<u64>() + field.len()).sum());
        for field in fields {
            // Lossless: no platform of Rust has a usize of more than 64 bits.
            form.extend_from_slice(&(field.len() as u64).to_be_bytes());
            form.extend_from_slice(field);
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_that_of_its_documentation() {
        let bound = Bound { format: b"1", key_id: b"k", encoding: b"binary/encrypted", namespace: b"ns" };
        let expected = [
            b"\0\0\0\0\0\0\0\x011".as_slice(),
            b"\0\0\0\0\0\0\0\x01k",
            b"\0\0\0\0\0\0\0\x10binary/encrypted",
            b"\0\0\0\0\0\0\0\x02ns",
        ];
        assert_eq!(bound.canonical(), expected.concat());
    }

    #[test]
    fn a_byte_that_moves_to_the_next_field_changes_the_form() {
        let first = Bound { format: b"1", key_id: b"ab", encoding: b"c", namespace: b"" };
        let second = Bound { key_id: b"a", encoding: b"bc", ..first };
        let third = Bound { encoding: b"", namespace: b"c", ..first };
        assert!(first.canonical() != second.canonical() && first.canonical() != third.canonical());
    }
}
