//! A connection that writes at once what belongs together.
//!
//! HTTP/2 under tonic writes the head of a call, and gets to its message only when the head is out: two packets, two system
//! calls, and two wake-ups of either side. Here a flush waits until everything else that can go on has done so once; by then
//! the message is there.

mod answers;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codegen::{Service, http::Uri};

use answers::Answers;

/// More than this is not kept: it is written without waiting for a flush.
const MOST: usize = 64 * 1024;
/// Bytes that a client writes before its first frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;

type ConnectError = <HttpConnector as Service<Uri>>::Error;

/// Connects by TCP as tonic does by itself, and gathers what is written.
#[derive(Clone, Debug)]
pub struct Connector(HttpConnector);

impl Connector {
    /// A connector that looks names up anew at each connect; the addresses of a name share `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        // TLS is put around the connection.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        Self(connector)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Gathering<TcpStream>>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // Frames can't be told within TLS.
        let preface = (uri.scheme_str() != Some("https")).then_some(PREFACE);
        let connecting = self.0.call(uri);
        async move { Ok(TokioIo::new(Gathering::over(connecting.await?.into_inner(), preface))) }.boxed()
    }
}

/// A stream that keeps what is written until the second time that a flush is asked for.
#[derive(Debug)]
pub struct Gathering<T> {
    inner: T,
    unwritten: BytesMut,
    /// Whether others had their turn since a flush was first asked for.
    waited: bool,
    /// The answers to PINGs that were written.
    answers: Option<Answers>,
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    /// Gathers what is written to `inner`; answers to PINGs too, if what is written is HTTP/2's frames after so many bytes.
    pub fn over(inner: T, before_frames: Option<usize>) -> Self {
        Self { inner, unwritten: BytesMut::new(), waited: false, answers: before_frames.map(Answers::new) }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(written);
        }
        self.waited = false;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unwritten.len() >= MOST {
            ready!(self.poll_write_out(cx))?;
        }
        let Self { unwritten, answers, .. } = &mut *self;
        let kept = bytes.len().min(MOST - unwritten.len());
        match answers {
            Some(answers) => answers.take(&bytes[..kept], unwritten),
            None => unwritten.extend_from_slice(&bytes[..kept]),
        }
        Poll::Ready(Ok(kept))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { unwritten, answers, .. } = &mut *self;
        if let Some(answers) = answers {
            answers.poll_due(cx, unwritten);
        }
        if !self.unwritten.is_empty() && !std::mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Keeps each write apart.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_comes_while_a_flush_waits_is_written_with_it() {
        let mut stream = Gathering::over(Writes::default(), None);
        let mut cx = Context::from_waker(Waker::noop());
        let mut pinned = Pin::new(&mut stream);
        assert!(pinned.as_mut().poll_write(&mut cx, b"head").is_ready());
        assert!(pinned.as_mut().poll_flush(&mut cx).is_pending());
        assert!(pinned.as_mut().poll_write(&mut cx, b"message").is_ready());
        assert!(pinned.as_mut().poll_flush(&mut cx).is_ready());
        assert_eq!(stream.inner.0, [b"headmessage"]);
    }

    #[tokio::test]
    async fn nothing_is_lost_and_little_is_kept() {
        let mut stream = Gathering::over(Writes::default(), None);
        let sent = vec![7; 5 * MOST + 3];
        stream.write_all(&sent).await.unwrap();
        assert!(stream.unwritten.len() <= MOST);
        stream.flush().await.unwrap();
        stream.write_all(b"end").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.inner.0.concat(), [&sent[..], b"end"].concat());
    }
}
