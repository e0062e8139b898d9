//! Answers to PINGs, which wait for each other.
//!
//! gRPC in Go sends a PING with each message that it gets, to learn how fast the connection is, and the next one only once that is
//! answered (its BDP estimator). Where messages are small and many, half of all packets would be PINGs and their answers, and each
//! wakes the other side up. So an answer is taken out of what is written, and goes a little later: then there is a PING for many
//! messages.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures::FutureExt as _;
use tokio::time::Sleep;

/// Time that an answer waits. Nobody takes a connection for dead because of it: who asks for that reason waits for seconds.
const WAIT: Duration = Duration::from_millis(10);
/// Bytes of answers that wait at most; they are a question each, and nobody has this many under way.
const MOST: usize = 64 * PING;
/// Bytes of a frame's head: length in three, type, flags, and stream in four (RFC 9113 section 4.1).
const HEAD: usize = 9;
/// Head of a PING that answers (RFC 9113 section 6.7), and the bytes of all of it.
const ANSWER: [u8; HEAD] = [0, 0, 8, 6, 1, 0, 0, 0, 0];
const PING: usize = HEAD + 8;

/// The answers that wait on a connection, and where in its frames what is written stands.
#[derive(Debug)]
pub struct Answers {
    /// Bytes that are still to come of what is no frame, or of the frame that is being written.
    left: usize,
    /// The beginning of a frame's head.
    head: BytesMut,
    /// Whether that frame is an answer.
    is_answer: bool,
    waiting: BytesMut,
    until: Option<Pin<Box<Sleep>>>,
}

impl Answers {
    /// Of a connection on which `before` bytes are written before the first frame.
    pub fn new(before: usize) -> Self {
        Self { left: before, head: BytesMut::new(), is_answer: false, waiting: BytesMut::new(), until: None }
    }

    /// Takes the answers out of `bytes`, which follow what was given before, and puts the rest behind `rest`.
    pub fn take(&mut self, mut bytes: &[u8], rest: &mut BytesMut) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (part, others) = bytes.split_at(bytes.len().min(self.left));
                if self.is_answer { &mut self.waiting } else { &mut *rest }.extend_from_slice(part);
                (bytes, self.left) = (others, self.left - part.len());
                continue;
            }
            let (part, others) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
            self.head.extend_from_slice(part);
            bytes = others;
            if self.head.len() == HEAD {
                self.is_answer = self.head[..] == ANSWER;
                if self.is_answer { &mut self.waiting } else { &mut *rest }.extend_from_slice(&self.head);
                self.left = usize::try_from(self.head.get_uint(3)).unwrap_or(0);
                self.head.clear();
            }
        }
    }

    /// Puts the answers behind `into` once they have waited, or are many; until then the task is woken when it is time.
    pub fn poll_due(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) {
        let between_frames = self.left == 0 && self.head.is_empty();
        if self.waiting.is_empty() || !between_frames {
            return;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(WAIT)));
        if self.waiting.len() < MOST && until.poll_unpin(cx) == Poll::Pending {
            return;
        }
        into.unsplit(self.waiting.split());
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, u8::from(kind == 6), 0, 0, 0, 0], payload].concat()
    }

    fn answer() -> Vec<u8> {
        frame(6, &[7; 8])
    }

    fn kept_and_rest(before: usize, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let (mut answers, mut rest) = (Answers::new(before), BytesMut::new());
        pieces.iter().for_each(|piece| answers.take(piece, &mut rest));
        (answers.waiting.to_vec(), rest.to_vec())
    }

    #[test]
    fn what_only_looks_like_an_answer_goes_on() {
        let question = [&[0, 0, 8, 6, 0, 0, 0, 0, 0], &[7; 8][..]].concat();
        let others = [frame(0, &answer()), question, frame(6, &[7; 9])].concat();
        assert_eq!(kept_and_rest(0, &[&others]), (Vec::new(), others));
        assert_eq!(kept_and_rest(17, &[&answer(), &answer()]), (answer(), answer()), "before the first frame");
    }

    proptest! {
        #[test]
        fn frames_keep_their_order_and_answers_theirs_however_they_are_cut(
            kinds in proptest::collection::vec((0..8_u8, 0..40_usize), 0..12),
            cuts in proptest::collection::vec(1..30_usize, 1..10),
        ) {
            let of = |&(kind, length): &(u8, usize)| if kind == 6 { answer() } else { frame(kind, &vec![kind; length]) };
            let all: Vec<u8> = kinds.iter().flat_map(of).collect();
            let (mut pieces, mut open) = (Vec::new(), &all[..]);
            for cut in cuts.iter().cycle() {
                if open.is_empty() { break }
                let (piece, others) = open.split_at(open.len().min(*cut));
                pieces.push(piece);
                open = others;
            }
            let only = |answers: bool| kinds.iter().filter(|(kind, _)| (*kind == 6) == answers).flat_map(of).collect::<Vec<u8>>();
            prop_assert_eq!(kept_and_rest(0, &pieces), (only(true), only(false)));
        }
    }

    #[tokio::test]
    async fn answers_wait_for_a_while_and_for_the_end_of_a_frame() {
        let (mut answers, mut rest, mut out) = (Answers::new(0), BytesMut::new(), BytesMut::new());
        let data = frame(0, &[1; 20]);
        answers.take(&answer(), &mut rest);
        let begun = Instant::now();
        std::future::poll_fn(|cx| {
            answers.poll_due(cx, &mut out);
            if out.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        assert!(begun.elapsed() >= WAIT && out == answer());

        answers.take(&answer().repeat(MOST / PING), &mut rest);
        answers.take(&data[..12], &mut rest);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        out.clear();
        answers.poll_due(&mut cx, &mut out);
        assert!(out.is_empty(), "they would be in the middle of a frame");
        answers.take(&data[12..], &mut rest);
        answers.poll_due(&mut cx, &mut out);
        assert_eq!((out.len(), &rest[..]), (MOST, &data[..]), "so many wait no longer");
    }
}
