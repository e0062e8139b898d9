//! How the operator's program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A thousand fleets fit into 40 MB, of which 0.5 were the list of addresses that the loader reads once and keeps mapped. In this form
    // it is a tenth of that. Read by glibc from 2.36 on.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
