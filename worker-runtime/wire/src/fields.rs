//! The fields of a message on the wire (the encoding of Protocol Buffers).

use std::ops::Range;

/// Deepest nesting that is followed: the limit of the common implementations.
pub const DEEPEST: usize = 100;

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A number is longer than 64 bits.
    #[error("a number in it is longer than 64 bits")]
    LongNumber,
    /// A field has a number or type that no field can have.
    #[error("a field in it has a number or type that no field can have")]
    Tag,
    /// It is nested too deeply.
    #[error("it is nested deeper than {DEEPEST} levels")]
    Deep,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
    /// Where it is in the message, tag and all.
    pub place: Range<usize>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a flag, or an enum's.
    Number(u64),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Anything else.
    Other,
}

/// Goes through the fields of a message in their order, and ends at the first that is none.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(Malformed::Truncated)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(Malformed::LongNumber);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::LongNumber)
    }

    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = u32::try_from(self.number()?).map_err(|_| Malformed::Tag)?;
        let number = tag >> 3;
        // Lossless: three bits.
        if number == 0 { Err(Malformed::Tag) } else { Ok((number, (tag & 7) as u8)) }
    }

    fn skip(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.message.len()).ok_or(Malformed::Truncated)?;
        let skipped = &self.message[self.at..end];
        self.at = end;
        Ok(skipped)
    }

    fn value(&mut self, number: u32, kind: u8, depth: usize) -> Result<Value<'a>, Malformed> {
        match kind {
            0 => Ok(Value::Number(self.number()?)),
            1 => self.skip(8).map(|_| Value::Other),
            2 => {
                let length = self.number()?;
                self.skip(length).map(Value::Bytes)
            }
            3 => self.group(number, depth).map(|()| Value::Other),
            5 => self.skip(4).map(|_| Value::Other),
            _ => Err(Malformed::Tag),
        }
    }

    fn group(&mut self, number: u32, depth: usize) -> Result<(), Malformed> {
        if depth == DEEPEST {
            return Err(Malformed::Deep);
        }
        loop {
            match self.tag()? {
                (end, 4) if end == number => return Ok(()),
                (inner, kind) => self.value(inner, kind, depth + 1)?,
            };
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let begin = self.at;
        let field = self.tag().and_then(|(number, kind)| {
            let value = self.value(number, kind, 0)?;
            Ok(Field { number, value, place: begin..self.at })
        });
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

/// Appends a number.
pub fn put_number(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        // Lossless: eight bits.
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Appends tag and length of a field of bytes.
pub fn put_head(number: u32, length: usize, into: &mut Vec<u8>) {
    put_number(u64::from(number) << 3 | 2, into);
    put_number(length as u64, into);
}

/// Appends a field of bytes.
pub fn put_bytes(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    put_head(number, bytes.len(), into);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_is_told_and_placed() {
        let message = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 2, b'h', b'i'],
            &[0x19, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x25, 0, 0, 0, 0],
            &[0x2b, 0x08, 1, 0x2c],
        ]
        .concat();
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        let seen: Vec<_> = fields.iter().map(|field| (field.number, field.value, field.place.clone())).collect();
        let expected = [
            (1, Value::Number(150), 0..3),
            (2, Value::Bytes(b"hi"), 3..7),
            (3, Value::Other, 7..16),
            (4, Value::Other, 16..21),
            (5, Value::Other, 21..25),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_no_message_is_refused_and_ends() {
        let long = [&[0x08][..], &[0xff; 10]].concat();
        let deep = vec![0x0b; 200];
        let cases: [(&[u8], Malformed); 7] = [
            (&[0x08], Malformed::Truncated),
            (&[0x12, 5, 1], Malformed::Truncated),
            (&[0x00, 1], Malformed::Tag),
            (&[0x0e], Malformed::Tag),
            (&[0x0c], Malformed::Tag),
            (&long, Malformed::LongNumber),
            (&deep, Malformed::Deep),
        ];
        for (message, problem) in cases {
            let fields: Vec<_> = Fields::of(message).collect();
            assert_eq!(fields, [Err(problem)], "{message:?}");
        }
    }
}
