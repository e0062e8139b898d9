//! How the runtime's programs are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Each pod has one: 0.5 of some 12 MB were the list of addresses that the loader reads once and keeps mapped. In this form it is a
    // tenth of that. Read by glibc from 2.36 on.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
