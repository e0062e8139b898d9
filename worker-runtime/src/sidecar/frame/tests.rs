use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt as _;
use http_body_util::StreamBody;

use super::*;

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// Reads a body that comes in pieces.
async fn read(pieces: Vec<Vec<u8>>, encoding: Option<&[u8]>) -> Result<Message, Status> {
    let pieces = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
    Message::read(StreamBody::new(futures::stream::iter(pieces)), encoding, &Budget::new(1 << 20)).await
}

#[tokio::test]
async fn a_message_is_read_whatever_its_pieces() {
    let whole = frame(0, b"hello");
    for cut in 0..=whole.len() {
        let pieces = vec![whole[..cut].to_vec(), whole[cut..].to_vec()];
        assert_eq!(read(pieces, None).await.unwrap().bytes.as_deref(), Some(&b"hello"[..]), "cut at {cut}");
    }
    assert!(read(vec![], None).await.unwrap().bytes.is_none());
}

#[tokio::test]
async fn a_compressed_message_is_read_and_bounded() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let message = read(vec![frame(1, &gzip(b"hello"))], Some(b"gzip")).await.unwrap();
    assert_eq!(message.bytes.as_deref(), Some(&b"hello"[..]));
    let other = read(vec![frame(1, &gzip(b"hello"))], Some(b"zstd")).await.unwrap_err();
    assert!(other.message().contains("zstd") && other.message().contains("use gzip"), "{other}");
    let bomb = gzip(&vec![0; LONGEST + 1]);
    assert_eq!(read(vec![frame(1, &bomb)], Some(b"gzip")).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn what_is_no_single_message_is_refused() {
    let long = [&[0, 255, 255, 255, 255][..], b"x"].concat();
    let cases = [
        (frame(7, b"x"), "flag 7"),
        (frame(0, b"hello")[..7].to_vec(), "shorter"),
        (vec![0, 0, 0], "shorter"),
        ([frame(0, b"one"), frame(0, b"two")].concat(), "more than one"),
        (long, "more than 134217728"),
    ];
    for (body, problem) in cases {
        let error = read(vec![body], None).await.unwrap_err();
        assert!(error.message().contains(problem), "{problem}: {error}");
    }
}

#[tokio::test]
async fn a_body_is_read_back_with_what_follows_it() {
    for size in [0, 10, SMALL, SMALL + 1, 2 * PIECE + 1] {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let budget = Budget::new(1 << 20);
        let body = body(vec![7; size].into(), Some(trailers.clone()), Some(budget.share(1).await));
        let message = Message::read(body, None, &budget).await.unwrap();
        assert_eq!((message.bytes.unwrap().len(), message.trailers), (size, Some(trailers)));
    }
}

#[tokio::test]
async fn what_is_not_looked_into_passes_as_it_came() {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    for whole in [vec![], frame(1, b"compressed by nobody knows what"), frame(0, &[7; 2 * PIECE])] {
        let data = whole.chunks(1000).map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
        let frames = data.chain([Frame::trailers(trailers.clone())]).map(Ok::<_, Status>);
        let body = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
        let passed = Framed::read(body, &Budget::new(1 << 20)).await.unwrap().body().collect().await.unwrap();
        assert_eq!(passed.trailers(), Some(&trailers));
        assert!(passed.to_bytes() == whole, "{} bytes", whole.len());
    }
}

#[tokio::test]
async fn a_share_is_given_back_with_the_end_of_its_message() {
    let budget = Budget::new(4 * PIECE);
    let mut body = body(vec![7; 2 * PIECE].into(), None, Some(budget.share(4 * PIECE).await));
    let mut pieces = 0;
    while let Some(frame) = body.frame().await {
        pieces += usize::from(frame.unwrap().data_ref().unwrap().len() == PIECE);
        assert!(budget.share(1).now_or_never().is_none(), "after {pieces} pieces");
    }
    assert_eq!(pieces, 2);
    drop(budget.share(4 * PIECE).await);
}
