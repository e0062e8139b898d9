//! A Service in front of replicas, as far as a test needs one: an address whose connections go where the test says.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// It ends with the value.
pub struct Service {
    address: SocketAddr,
    target: watch::Sender<Option<u16>>,
    accept: AbortHandle,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Service {
    /// Starts it, without a target.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = watch::Sender::new(None);
        let aimed = target.subscribe();
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, aimed.clone()));
            }
        });
        Ok(Self { address, target, accept: accept.abort_handle() })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends new connections to a port of this machine, or refuses them. Open ones are cut.
    pub fn aim(&self, port: Option<u16>) {
        self.target.send_if_modified(|target| std::mem::replace(target, port) != port);
    }
}

async fn forward(mut stream: TcpStream, mut target: watch::Receiver<Option<u16>>) {
    let Some(port) = *target.borrow_and_update() else { return };
    let Ok(mut onward) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    // Otherwise it adds the 40 ms of a delayed acknowledgement to each new connection, which no Service does.
    if stream.set_nodelay(true).and_then(|()| onward.set_nodelay(true)).is_err() {
        return;
    }
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut onward) => {}
        _ = target.changed() => {}
    }
}
