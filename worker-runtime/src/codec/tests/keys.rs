use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Whether the ring of a file's content decrypts what `key` encrypted.
fn holds(content: &[u8], key: &[u8; 32]) -> bool {
    let sealed = Sealer::new(ring(("k", key), &[]), "default").seal(Payload::default()).unwrap();
    opener(&ring(("k", content), &[]), Mode::Require).open(sealed).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_key_is_raw_bytes_base64_or_hexadecimal() {
    let base64 = STANDARD.encode(KEY);
    for text in [base64, hex(KEY), hex(KEY).to_uppercase()] {
        for end in ["", "\n", "\r\n"] {
            assert!(holds(format!("{text}{end}").as_bytes(), KEY), "{text:?}{end:?}");
        }
    }
    assert!(holds(KEY, KEY) && !holds(KEY, OTHER));
}

#[test]
fn thirty_two_bytes_are_a_key_even_when_they_look_like_text() {
    for raw in [b"0123456789abcdef0123456789abcdef", b"0123456789abcdef0123456789abcde\n"] {
        assert!(holds(raw, raw));
    }
}

#[test]
fn every_other_length_is_refused_with_the_way_to_make_a_key() {
    let wrong = (0..=70).filter(|length| ![32, 44, 64].contains(length));
    for length in wrong {
        let error = KeyRing::load(("k1", &vec![b'A'; length]), []).unwrap_err();
        assert_eq!(error, KeyError::Length { id: "k1".into(), length });
        assert_says(&error, &["\"k1\"", &format!("has {length} bytes"), "32 raw bytes", "openssl rand -base64 32"]);
    }
}

#[test]
fn a_newline_after_raw_bytes_or_a_second_one_after_text_is_refused() {
    let raw = [KEY.as_slice(), b"\n"].concat();
    let text = format!("{}\n\n", hex(KEY));
    for (content, length) in [(raw.as_slice(), 33), (text.as_bytes(), 66)] {
        let error = KeyRing::load(("k1", content), []).unwrap_err();
        assert_eq!(error, KeyError::Length { id: "k1".into(), length });
    }
}

#[test]
fn text_of_the_right_length_that_stands_for_no_key_is_refused() {
    let signs = format!("+{}", &hex(KEY)[1..]);
    let url_safe = STANDARD.encode([0xff; 32]).replace('/', "_");
    let (short, long) = ("A".repeat(42) + "==", "A".repeat(44));
    let texts = [(short, "base64"), (long, "base64"), (url_safe, "base64"), (signs, "hexadecimal")];
    for (text, form) in texts {
        let error = KeyRing::load(("k1", text.as_bytes()), []).unwrap_err();
        assert_eq!(error, KeyError::Text { id: "k1".into(), length: text.len(), form });
        assert_says(&error, &["\"k1\"", form, "openssl rand -base64 32"]);
    }
}

#[test]
fn a_bad_read_key_is_named_too() {
    let error = KeyRing::load(("k1", KEY), [("k2", b"short".as_slice())]).unwrap_err();
    assert_says(&error, &["\"k2\"", "has 5 bytes"]);
    assert_says(&KeyRing::load(("", KEY), []).unwrap_err(), &["id \"\""]);
}

#[test]
fn one_id_has_one_key() {
    let text = STANDARD.encode(KEY);
    let same = [("w", text.as_bytes()), ("r", OTHER), ("r", OTHER)];
    assert_eq!(KeyRing::load(("w", KEY), same).unwrap().ids(), ["w", "r"]);
    for read in [[("w", OTHER), ("r", OTHER)], [("r", OTHER), ("r", KEY)]] {
        let read = read.map(|(id, bytes)| (id, bytes.as_slice()));
        let error = KeyRing::load(("w", KEY), read).unwrap_err();
        assert!(matches!(error, KeyError::Ambiguous { .. }));
        assert_says(&error, &["given twice", "writeKey and readKeys"]);
    }
}

#[test]
fn no_output_shows_a_key() {
    let keys = ring(("w", KEY), &[("r", OTHER)]);
    let shown = format!("{keys:?} {:?} {:?}", Sealer::new(keys.clone(), "default"), opener(&keys, Mode::Require));
    assert!(shown.contains("\"w\"") && shown.contains("\"r\""), "{shown}");
    let bad = b"key-that-is-too-short";
    let error = KeyRing::load(("w", bad), []).unwrap_err();
    let numbers = [format!("{KEY:?}"), format!("{OTHER:?}"), format!("{bad:?}")];
    let texts = ["test-key", "another-key", "too-short"].map(str::to_owned);
    for output in [shown, format!("{error} {error:?}")] {
        for secret in numbers.iter().chain(&texts) {
            assert!(!output.contains(secret.trim_matches(['[', ']'])), "{output}");
        }
    }
}
