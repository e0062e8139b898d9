use std::collections::HashMap;

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Any payload but one that says it is encrypted.
fn plain() -> impl Strategy<Value = Payload> {
    let encoding = prop_oneof!["json/plain", "binary/null", "[a-z]{0,8}/[a-z]{0,8}"];
    let metadata = (hash_map(".{0,12}", vec(any::<u8>(), 0..40), 0..5), proptest::option::of(encoding));
    (metadata, vec(any::<u8>(), 0..600)).prop_map(|((mut metadata, encoding), data)| {
        metadata.extend(encoding.map(|encoding| (ENCODING.to_owned(), encoding.into_bytes())));
        Payload { metadata, data, ..Payload::default() }
    })
}

/// A writer: id and bytes of its key, and its namespace.
fn writer() -> impl Strategy<Value = (String, [u8; 32], String)> {
    (".{1,20}", any::<[u8; 32]>(), ".{0,20}")
}

fn reader(id: &str, key: &[u8; 32], namespace: &str) -> Opener {
    Opener::new(ring((id, key), &[]), Mode::Require, namespace, [])
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same((id, key, namespace) in writer(), plain in plain()) {
        let sealed = Sealer::new(ring((&id, &key), &[]), &*namespace).seal(plain.clone()).unwrap();
        prop_assert_eq!(reader(&id, &key, &namespace).open(sealed).unwrap(), plain);
    }

    #[test]
    fn a_flipped_bit_of_data_fails((id, key, namespace) in writer(), plain in plain(), at in any::<Index>()) {
        let mut sealed = Sealer::new(ring((&id, &key), &[]), &*namespace).seal(plain).unwrap();
        sealed.data = flipped(&sealed.data, at.index(sealed.data.len() * 8));
        let result = reader(&id, &key, &namespace).open(sealed);
        prop_assert_eq!(result, Err(CodecError::NotAuthentic { key_id: id }));
    }

    /// Also when the reader has the key under the new id, and allows the new namespace.
    #[test]
    fn a_flipped_bit_of_bound_metadata_fails(
        (id, key, namespace) in writer(),
        plain in plain(),
        name in proptest::sample::select(BOUND.to_vec()),
        at in any::<Index>(),
        mode in proptest::sample::select(vec![Mode::Require, Mode::Migrate]),
    ) {
        let sealed = Sealer::new(ring((&id, &key), &[]), &*namespace).seal(plain).unwrap();
        let value = &sealed.metadata[name];
        prop_assume!(!value.is_empty());
        let value = flipped(value, at.index(value.len() * 8));
        let text = String::from_utf8_lossy(&value).into_owned();
        let keys = ring((&id, &key), &[(&text, &key)]);
        let opener = Opener::new(keys, mode, &namespace, [text.clone()]);
        prop_assert!(opener.open(with(sealed, name, &value)).is_err());
    }

    #[test]
    fn another_key_fails((id, key, namespace) in writer(), other in any::<[u8; 32]>(), plain in plain()) {
        prop_assume!(key != other);
        let sealed = Sealer::new(ring((&id, &key), &[]), &*namespace).seal(plain).unwrap();
        let result = reader(&id, &other, &namespace).open(sealed);
        prop_assert_eq!(result, Err(CodecError::NotAuthentic { key_id: id }));
    }

    #[test]
    fn a_namespace_that_is_not_allowed_fails((id, key, namespace) in writer(), own in ".{0,20}", plain in plain()) {
        prop_assume!(namespace != own);
        let sealed = Sealer::new(ring((&id, &key), &[]), &*namespace).seal(plain).unwrap();
        let result = reader(&id, &key, &own).open(sealed);
        prop_assert_eq!(result, Err(CodecError::ForeignNamespace { namespace, allowed: vec![own] }));
    }

    #[test]
    fn nothing_forged_opens(
        data in vec(any::<u8>(), 0..100),
        values in [".{0,3}", ".{0,3}", "1|2|", "default|"],
        present in any::<[bool; 4]>(),
    ) {
        let names = BOUND.iter().zip(values).zip(present).filter(|(_, present)| *present);
        let mut metadata: HashMap<_, _> =
            names.map(|((name, value), _)| ((*name).to_owned(), value.into_bytes())).collect();
        metadata.insert(ENCODING.to_owned(), ENCRYPTED.to_vec());
        let forged = Payload { metadata, data, ..Payload::default() };
        for mode in [Mode::Require, Mode::Migrate] {
            prop_assert!(opener(&a(), mode).open(forged.clone()).is_err());
        }
    }

    #[test]
    fn different_bindings_have_different_forms(one in any::<[Vec<u8>; 4]>(), other in any::<[Vec<u8>; 4]>()) {
        fn form([format, key_id, encoding, namespace]: &[Vec<u8>; 4]) -> Vec<u8> {
            Bound { format, key_id, encoding, namespace }.canonical()
        }
        prop_assert_eq!(one == other, form(&one) == form(&other));
    }
}
