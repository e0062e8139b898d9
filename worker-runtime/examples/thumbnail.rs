//! A program for an `exec` handler: makes a thumbnail of a picture.
//!
//! `thumbnail FOLDER` reads `[{"picture": "picture-001.jpg", "width": 320}]` on standard input, and prints what the
//! thumbnail is. `thumbnail --make-pictures FOLDER COUNT` draws the pictures, when an image is built.

#[path = "shared/picture.rs"]
mod picture;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--make-pictures", folder, count] => make_pictures(Path::new(folder), count.parse()?),
        [folder] => make_thumbnail(Path::new(folder)),
        _ => bail!("usage: thumbnail FOLDER | thumbnail --make-pictures FOLDER COUNT"),
    }
}

fn make_pictures(folder: &Path, count: u32) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for number in 0..count {
        std::fs::write(folder.join(picture::name(number)), picture::draw(number)?)?;
    }
    Ok(())
}

fn make_thumbnail(folder: &Path) -> anyhow::Result<()> {
    let [order]: [picture::Order; 1] = serde_json::from_reader(std::io::stdin())
        .context("give one argument: {\"picture\": FILE, \"width\": PIXELS}")?;
    let path = PathBuf::from(&order.picture);
    ensure!(path.file_name() == Some(path.as_os_str()), "picture is {:?}; give a file name", order.picture);
    ensure!((16..=1024).contains(&order.width), "width is {}; give 16 to 1024 pixels", order.width);
    let path = folder.join(path);
    let file = std::fs::read(&path).with_context(|| format!("picture {} can't be read", path.display()))?;
    let thumbnail = picture::shrink(&order.picture, &file, order.width)?;
    println!("{}", serde_json::to_string(&thumbnail)?);
    Ok(())
}
