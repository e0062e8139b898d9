//! Takes a field away.

use bytes::Bytes;

use crate::fields::{Fields, Malformed, Value, put_bytes};

/// `message` without the fields at `path`, which are the numbers of the fields that lead there; none when there is none.
///
/// # Errors
/// It is no message.
pub fn without(message: &[u8], path: &[u32]) -> Result<Option<Bytes>, Malformed> {
    let Some((number, rest)) = path.split_first() else { return Ok(None) };
    let mut new = Vec::with_capacity(message.len());
    let mut changed = false;
    for field in Fields::of(message) {
        let field = field?;
        let is_it = field.number == *number;
        match field.value {
            _ if is_it && rest.is_empty() => changed = true,
            Value::Bytes(inner) if is_it => match without(inner, rest)? {
                Some(inner) => {
                    changed = true;
                    put_bytes(*number, &inner, &mut new);
                }
                None => new.extend_from_slice(&message[field.place]),
            },
            _ => new.extend_from_slice(&message[field.place]),
        }
    }
    Ok(changed.then(|| new.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_within_repeated_messages_goes_and_all_else_stays() {
        let command = |eager: bool| {
            let mut inner = Vec::new();
            put_bytes(1, b"id", &mut inner);
            if eager {
                inner.extend_from_slice(&[12 << 3, 1]);
            }
            inner
        };
        let message = |eager| {
            let mut message = vec![0x50, 9];
            put_bytes(2, &command(eager), &mut message);
            put_bytes(2, &command(false), &mut message);
            message
        };
        assert_eq!(without(&message(true), &[2, 12]).unwrap().as_deref(), Some(&*message(false)));
        assert_eq!(without(&message(false), &[2, 12]), Ok(None));
        assert_eq!(without(&[0x12, 9], &[2, 12]), Err(Malformed::Truncated));
    }
}
