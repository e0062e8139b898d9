//! Changes the payloads of a message.
//!
//! A message within a message begins with its length, so that a change in the innermost changes all around it. The message is
//! gone through once, into pieces: stretches that stay as they are, and what is new. Only these are put together, once.

use std::ops::Range;

use bytes::Bytes;

use crate::failure::{self, FailureChange, FailureText};
use crate::fields::{DEEPEST, Fields, Malformed, Value, put_bytes, put_head};
use crate::{Leads, MESSAGES, Message, message};

/// Where a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the headers of a Workflow or Activity: clients without a codec for them write them as they are.
    Header,
    /// In an answer that the server computed from search attributes.
    Computed,
    /// Anywhere else.
    Value,
}

/// What is done to what is found.
pub trait Visitor {
    /// Why something can't be done.
    type Error;

    /// The payload in place of `payload`, both encoded; none when it stays as it is.
    ///
    /// # Errors
    /// Nothing of the message may be used then.
    fn payload(&mut self, payload: &[u8], place: Place) -> Result<Option<Vec<u8>>, Self::Error>;

    /// What becomes of the texts of a failure.
    ///
    /// # Errors
    /// As [`Self::payload`].
    fn failure(&mut self, text: &FailureText<'_>) -> Result<Option<FailureChange>, Self::Error>;
}

/// Why a message could not be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError<E> {
    /// It is no message.
    #[error("the message can't be read: {0}")]
    Malformed(#[from] Malformed),
    /// The visitor failed.
    #[error(transparent)]
    Visitor(E),
}

/// A part of the new message.
enum Piece {
    /// A stretch of the old one.
    Kept(Range<usize>),
    New(Vec<u8>),
}

struct Rewriter<'a, V> {
    message: &'a [u8],
    visitor: &'a mut V,
    pieces: Vec<Piece>,
    changed: bool,
}

/// `bytes`, a message of this kind, with what `visitor` makes of its payloads and failures; none when nothing changes.
///
/// # Errors
/// [`RewriteError`].
pub fn rewrite<V: Visitor>(
    bytes: &[u8],
    kind: &Message,
    visitor: &mut V,
) -> Result<Option<Bytes>, RewriteError<V::Error>> {
    let mut rewriter = Rewriter { message: bytes, visitor, pieces: Vec::new(), changed: false };
    let length = rewriter.walk(0..bytes.len(), kind, 0)?;
    if !rewriter.changed {
        return Ok(None);
    }
    let mut new = Vec::with_capacity(length);
    for piece in rewriter.pieces {
        match piece {
            Piece::Kept(range) => new.extend_from_slice(&bytes[range]),
            Piece::New(bytes) => new.extend_from_slice(&bytes),
        }
    }
    Ok(Some(new.into()))
}

impl<V: Visitor> Rewriter<'_, V> {
    /// Goes through the message at `range`, and gives back its new length.
    fn walk(&mut self, range: Range<usize>, kind: &Message, depth: usize) -> Result<usize, RewriteError<V::Error>> {
        if depth == DEEPEST {
            return Err(Malformed::Deep.into());
        }
        let begin = range.start;
        let fields = Fields::of(&self.message[range.clone()]);
        let change = match kind.name == failure::NAME {
            true => self.change_of_failure(fields.clone())?,
            false => None,
        };
        let (mut kept, mut length) = (begin, 0);
        for field in fields {
            let field = field?;
            let place = begin + field.place.start..begin + field.place.end;
            let leads = kind.leads(field.number);
            let new = match (leads, field.value) {
                _ if kind.name == failure::NAME && failure::is_text(field.number) => {
                    if change.is_none() {
                        continue;
                    }
                    length += self.keep(kept..place.start);
                    kept = place.end;
                    continue;
                }
                (Some(leads), Value::Bytes(inner)) => {
                    length += self.keep(kept..place.start);
                    self.field((field.number, leads), place.end - inner.len()..place.end, kind, depth)?
                }
                _ => continue,
            };
            // As it is: the field joins the stretch that goes on.
            match new {
                None => kept = place.start,
                Some(new) => {
                    length += new;
                    kept = place.end;
                }
            }
        }
        length += self.keep(kept..range.end);
        if let Some(change) = change {
            length += self.put(change.encode());
        }
        Ok(length)
    }

    /// Changes a field whose content is at `inner`; gives back its new length, or none when it stays as it is.
    fn field(
        &mut self,
        (number, leads): (u32, Leads),
        inner: Range<usize>,
        kind: &Message,
        depth: usize,
    ) -> Result<Option<usize>, RewriteError<V::Error>> {
        let bytes = &self.message[inner.clone()];
        let kind = match leads {
            Leads::Payload => {
                let place = place(kind);
                let Some(new) = self.visitor.payload(bytes, place).map_err(RewriteError::Visitor)? else {
                    return Ok(None);
                };
                let mut field = Vec::with_capacity(new.len() + 8);
                put_bytes(number, &new, &mut field);
                return Ok(Some(self.put(field)));
            }
            Leads::Message(index) => &MESSAGES[index],
            Leads::Any => return self.any(number, inner, depth),
        };
        self.nested(number, inner, kind, depth)
    }

    fn nested(
        &mut self,
        number: u32,
        inner: Range<usize>,
        kind: &Message,
        depth: usize,
    ) -> Result<Option<usize>, RewriteError<V::Error>> {
        let (before, changed) = (self.pieces.len(), std::mem::replace(&mut self.changed, false));
        self.pieces.push(Piece::New(Vec::new()));
        let length = self.walk(inner, kind, depth + 1)?;
        let this_changed = std::mem::replace(&mut self.changed, changed);
        if !this_changed {
            self.pieces.truncate(before);
            return Ok(None);
        }
        self.changed = true;
        let mut head = Vec::with_capacity(12);
        put_head(number, length, &mut head);
        let total = head.len() + length;
        self.pieces[before] = Piece::New(head);
        Ok(Some(total))
    }

    /// An `Any` has the name of its type in field 1, and a message of that in field 2.
    fn any(&mut self, number: u32, inner: Range<usize>, depth: usize) -> Result<Option<usize>, RewriteError<V::Error>> {
        let mut name = "";
        for field in Fields::of(&self.message[inner.clone()]) {
            if let (1, Value::Bytes(url)) = (field.clone()?.number, field?.value) {
                name = std::str::from_utf8(url).unwrap_or_default().rsplit('/').next().unwrap_or_default();
            }
        }
        let Some(index) = message(name).and_then(|found| MESSAGES.iter().position(|one| std::ptr::eq(one, found)))
        else {
            return Ok(None);
        };
        self.nested(number, inner, &Message { name: "google.protobuf.Any", fields: &ANYS[index] }, depth)
    }

    fn change_of_failure(&mut self, fields: Fields<'_>) -> Result<Option<FailureChange>, RewriteError<V::Error>> {
        let text = FailureText::read(fields)?;
        let change = self.visitor.failure(&text).map_err(RewriteError::Visitor)?;
        self.changed |= change.is_some();
        Ok(change)
    }

    fn keep(&mut self, range: Range<usize>) -> usize {
        let length = range.len();
        if length > 0 {
            self.pieces.push(Piece::Kept(range));
        }
        length
    }

    fn put(&mut self, bytes: Vec<u8>) -> usize {
        let length = bytes.len();
        self.pieces.push(Piece::New(bytes));
        self.changed = true;
        length
    }
}

/// The field of an `Any` that leads on, for each message of the table.
static ANYS: [[(u32, Leads); 1]; MESSAGES.len()] = {
    let mut anys = [[(2, Leads::Any)]; MESSAGES.len()];
    let mut index = 0;
    while index < anys.len() {
        anys[index] = [(2, Leads::Message(index))];
        index += 1;
    }
    anys
};

/// Where the payloads of a message are.
fn place(kind: &Message) -> Place {
    match kind.name {
        "temporal.api.common.v1.Header.FieldsEntry" => Place::Header,
        name if name.ends_with(".AggregationGroup") => Place::Computed,
        _ => Place::Value,
    }
}

#[cfg(test)]
mod tests;
