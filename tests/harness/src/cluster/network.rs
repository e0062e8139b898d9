//! The network of one cluster: a link between the machine and the cluster's network namespace, and routes over it.
//!
//! Each cluster has 1,024 addresses of its own: four for the link, 256 for pods, 256 for Services. Pods hang on
//! point-to-point links that the node routes between, so replies always pass the node and Services work without
//! bridge filtering. Nothing is routed beyond the machine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::wait_until;

/// Blocks that clusters choose from: 10.128.0.0/9 cut into blocks of 1,024 addresses.
const BLOCKS: u32 = 1 << 13;
const FIRST_BLOCK: u32 = 0x0a80_0000;
const BLOCK_BITS: u32 = 10;
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    block: u32,
}

impl Network {
    /// The machine's own address on the link: pods reach a server of a test here.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The node's address: API server, DNS, kubelet and Temporal servers listen here.
    #[must_use]
    pub fn node(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// Addresses of pods, as `10.x.y.0/24`.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("{}/24", self.address(256))
    }

    /// Addresses of Services, as `10.x.y.0/24`.
    #[must_use]
    pub fn services(&self) -> String {
        format!("{}/24", self.address(512))
    }

    /// Address of the Service `kubernetes`, the first of the range.
    #[must_use]
    pub fn kubernetes_service(&self) -> Ipv4Addr {
        self.address(513)
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base() + offset)
    }

    fn base(&self) -> u32 {
        FIRST_BLOCK + (self.block << BLOCK_BITS)
    }

    /// The link's name on the machine, unique by the block.
    pub(crate) fn link(&self) -> String {
        let [_, second, third, _] = Ipv4Addr::from(self.base()).octets();
        format!("tw-{second}-{third}")
    }

    /// Makes the link into the network namespace of process `init`, and the routes.
    ///
    /// # Errors
    /// No block is free, or the kernel refuses.
    pub fn create(cluster: &str, init: i32) -> Result<Self> {
        let routes = Routes::read()?;
        let first = cluster.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        for attempt in 0..BLOCKS {
            let network = Self { block: first.wrapping_add(attempt) % BLOCKS };
            if routes.overlap(network.base()) {
                continue;
            }
            // The name holds the block, so a run at the same moment that chose the same block fails here.
            if ip(&format!("link add {} type veth peer name eth0 netns {init}", network.link())).is_err()
                && Path::new("/sys/class/net").join(network.link()).exists()
            {
                continue;
            }
            network.configure().inspect_err(|_| drop(network.remove()))?;
            return Ok(network);
        }
        bail!("every block of 10.128.0.0/9 is in use on this machine (`ip route`)")
    }

    fn configure(&self) -> Result<()> {
        let link = self.link();
        ip(&format!("address add {}/30 dev {link}", self.host()))?;
        // Packets that come from the cluster are not forwarded: it reaches this machine and nothing beyond.
        fs::write(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "0").context("switch forwarding off")?;
        ip(&format!("link set {link} up"))?;
        for range in [self.pods(), self.services()] {
            ip(&format!("route add {range} via {} dev {link}", self.node()))?;
        }
        Ok(())
    }

    /// Commands that set the inner end of the link up, to be run inside the namespace.
    #[must_use]
    pub fn inner_script(&self) -> String {
        format!(
            // A process of the node can only reach a Service when there is a route to its address, whichever it is.
            "ip link set lo up\nip address add {}/30 dev eth0\nip link set eth0 up\nip route add {} dev eth0\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward\n",
            self.node(),
            self.services()
        )
    }

    /// Removes the link. The kernel does so by itself some time after the namespace has ended.
    ///
    /// # Errors
    /// The link is still there after ten seconds.
    pub fn remove(&self) -> Result<()> {
        let link = self.link();
        let is_gone = || !Path::new("/sys/class/net").join(&link).exists();
        let removed =
            wait_until(REMOVE_LIMIT, || is_gone() || (ip(&format!("link delete {link}")).is_ok() && is_gone()));
        if !removed {
            bail!("the network link {link} can't be removed: `ip link delete {link}`");
        }
        Ok(())
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("run ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Destinations of the machine's routes, each an address and a mask.
struct Routes(Vec<(u32, u32)>);

impl Routes {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/net/route").context("read /proc/net/route")?;
        Ok(Self::parse(&text))
    }

    /// Addresses and masks are hexadecimal, in the byte order of the network read as this machine's: little endian.
    fn parse(text: &str) -> Self {
        let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
        let route = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
        };
        // The default route covers everything and stands in nobody's way.
        Self(text.lines().skip(1).filter_map(route).filter(|(_, mask)| *mask != 0).collect())
    }

    fn overlap(&self, base: u32) -> bool {
        let block_mask = u32::MAX << BLOCK_BITS;
        self.0.iter().any(|(destination, mask)| (destination ^ base) & mask & block_mask == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        tw-130-12\t000D820A\t020C820A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn a_block_with_a_route_in_it_is_taken_and_the_default_route_takes_none() {
        let routes = Routes::parse(ROUTES);
        assert!(routes.overlap(u32::from(Ipv4Addr::new(10, 130, 12, 0))));
        assert!(!routes.overlap(u32::from(Ipv4Addr::new(10, 130, 16, 0))));
        assert!(!routes.overlap(u32::from(Ipv4Addr::new(10, 130, 8, 0))));
    }

    #[test]
    fn addresses_of_a_block_are_distinct_ranges() {
        let network = Network { block: 0x283 };
        assert_eq!(network.link(), "tw-138-12");
        assert_eq!(network.node(), Ipv4Addr::new(10, 138, 12, 2));
        assert_eq!(network.pods(), "10.138.13.0/24");
        assert_eq!(network.services(), "10.138.14.0/24");
        assert_eq!(network.kubernetes_service(), Ipv4Addr::new(10, 138, 14, 1));
    }
}
