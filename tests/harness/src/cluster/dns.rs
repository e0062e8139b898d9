//! A DNS question to the cluster's server: enough to know that it answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_millis(500);
const ID: [u8; 2] = [0x54, 0x57];

/// Asks for the IPv4 address of a name. `None` when the server says that there is none.
///
/// # Errors
/// No answer within half a second.
pub(crate) fn resolve(server: Ipv4Addr, name: &str) -> io::Result<Option<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(SocketAddr::from((server, 53)))?;
    socket.send(&question(name))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    Ok(address(&answer[..length]))
}

/// RFC 1035, section 4: header with one question, then the name's labels, type A, class IN.
fn question(name: &str) -> Vec<u8> {
    let mut packet = ID.to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The address of an answer with exactly one record, which then ends the packet or precedes an OPT record.
fn address(answer: &[u8]) -> Option<Ipv4Addr> {
    let has_answer = answer.get(..2)? == ID && answer.get(3)? & 0x0f == 0 && *answer.get(7)? > 0;
    // Type A, class IN, four bytes of TTL, length 4.
    let record = answer.windows(10).rposition(|part| part[..4] == [0, 1, 0, 1] && part[8..] == [0, 4])?;
    let bytes: [u8; 4] = answer.get(record + 10..record + 14)?.try_into().ok()?;
    has_answer.then(|| Ipv4Addr::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_an_answer_is_read_and_a_refusal_has_none() {
        let mut answer = question("a.b");
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 2, 3]);
        assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 1, 2, 3)));
        answer[3] = 0x83;
        assert_eq!(address(&answer), None);
        assert_eq!(address(&question("a.b")), None);
    }
}
