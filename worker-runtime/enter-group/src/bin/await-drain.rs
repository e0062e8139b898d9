//! `await-drain [ADDRESS]`: has the sidecar of the pod drain, and returns when no task of the Worker runs any more. The preStop
//! hook of a Worker behind a sidecar.
//!
//! The sidecar puts it into a volume that both containers mount, because it has to run in whatever image the Worker has: so it is
//! small, and linked statically in images.
#![deny(clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Address of the sidecar's probes.
const ADDRESS: &str = "127.0.0.1:7235";
/// Time in which a sidecar that was killed is there again.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let address = env::args().nth(1).unwrap_or_else(|| ADDRESS.to_owned());
    let begun = Instant::now();
    loop {
        match drain(&address) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return ExitCode::SUCCESS,
            Ok(answer) => eprintln!("await-drain: the sidecar at {address} answers {answer:?}"),
            Err(error) => eprintln!("await-drain: the sidecar at {address}: {error}"),
        }
        if begun.elapsed() > COMES_BACK_WITHIN {
            return ExitCode::FAILURE;
        }
        sleep(PAUSE);
    }
}

/// Asks, and gives back the answer. There is no limit: the pod's grace period is one.
fn drain(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "POST /drain HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}
