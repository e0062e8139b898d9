//! What `make check-layers` appends to a copy of operator/core, one violation a line: each line that ends in the mark
//! has to be reported.

#![allow(missing_docs, clippy::missing_docs_in_private_items)]

pub fn forbidden_clock() {
    let _ = jiff::Timestamp::now(); // forbidden
    let _ = jiff::Zoned::now(); // forbidden
    let _ = std::time::Instant::now(); // forbidden
    let _ = std::time::SystemTime::now(); // forbidden
    let _ = None.unwrap_or_else(jiff::Timestamp::now); // forbidden
}

pub fn forbidden_environment() {
    let _ = std::env::var("HOME"); // forbidden
    let _ = std::env::var_os("HOME"); // forbidden
    let _ = std::env::vars().count(); // forbidden
    let _ = std::env::args().count(); // forbidden
    let _ = std::env::current_dir(); // forbidden
}

pub fn forbidden_files() {
    let _ = std::fs::read("x"); // forbidden
    let _ = std::fs::read_to_string("x"); // forbidden
    let _ = std::fs::write("x", "y"); // forbidden
    let _ = std::fs::File::open("x"); // forbidden
    let _ = std::path::Path::new("x").exists(); // forbidden
}

pub fn forbidden_programs_and_transport() {
    let _ = std::process::Command::new("x"); // forbidden
    let _ = std::net::TcpStream::connect("x"); // forbidden
    std::thread::sleep(std::time::Duration::ZERO); // forbidden
    std::process::exit(1); // forbidden
}

pub fn forbidden_logs() {
    println!("x"); // forbidden
    eprintln!("x"); // forbidden
    let _ = std::io::stderr(); // forbidden
}

pub static FORBIDDEN_STATE: std::sync::Mutex<()> = std::sync::Mutex::new(()); // forbidden

pub fn forbidden_panic() {
    let _ = None::<()>.unwrap(); // forbidden
}
