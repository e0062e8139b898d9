//! Pictures and their thumbnails: the work of the example, shared by the program that makes thumbnails and by the
//! activity that checks them.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Size of a picture, in pixels. Decoding and shrinking one takes a good part of a second of a core.
pub const SIZE: (u32, u32) = (2400, 1800);

/// What to make a thumbnail of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// File name of the picture.
    pub picture: String,
    /// Width of the thumbnail; its height follows.
    pub width: u32,
}

/// A thumbnail, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thumbnail {
    /// File name of the picture.
    pub picture: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Size of the PNG file.
    pub bytes: usize,
    /// SHA-256 of the PNG file, in hexadecimal.
    pub sha256: String,
    /// Mean of red, green and blue.
    pub mean_color: [u8; 3],
}

/// File name of the picture with a number.
pub fn name(number: u32) -> String {
    format!("picture-{number:03}.jpg")
}

/// A picture as a JPEG file: waves of colour, different for each number and always the same for one.
pub fn draw(number: u32) -> Result<Vec<u8>, ImageError> {
    let phase = f32::from(u16::try_from(number % 1000).unwrap_or_default());
    let wave = |place: u32, length: f32, shift: f32| {
        let place = f32::from(u16::try_from(place).unwrap_or_default());
        (place / length + phase * shift).sin()
    };
    let tone = |value: f32| (127.5 + 60.0 * value) as u8;
    let columns: Vec<_> = (0..SIZE.0).map(|x| (wave(x, 97.0, 0.7), wave(x, 23.0, 1.3))).collect();
    let picture = RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
        let (slow, fast) = columns[x as usize];
        let row = columns[(y as usize * 3 / 4) % columns.len()];
        image::Rgb([tone(slow + row.0), tone(fast * row.0 + slow), tone(row.1 * slow + fast)])
    });
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 85).encode_image(&DynamicImage::ImageRgb8(picture))?;
    Ok(file)
}

/// Makes a thumbnail of a JPEG file.
pub fn shrink(name: &str, file: &[u8], width: u32) -> Result<Thumbnail, ImageError> {
    let picture = image::load_from_memory_with_format(file, ImageFormat::Jpeg)?;
    let height = (picture.height() * width).div_ceil(picture.width());
    let small = picture.resize_exact(width, height, FilterType::Lanczos3);
    let mut png = Vec::new();
    small.write_to(&mut Cursor::new(&mut png), ImageFormat::Png)?;
    Ok(Thumbnail {
        picture: name.to_owned(),
        width: small.width(),
        height: small.height(),
        bytes: png.len(),
        sha256: Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect(),
        mean_color: mean(&small.to_rgb8()),
    })
}

/// Mean colour of a picture.
pub fn mean(picture: &RgbImage) -> [u8; 3] {
    let mut sums = [0_u64; 3];
    for pixel in picture.pixels() {
        for (sum, value) in sums.iter_mut().zip(pixel.0) {
            *sum += u64::from(value);
        }
    }
    let pixels = u64::from(picture.width()) * u64::from(picture.height());
    sums.map(|sum| u8::try_from(sum / pixels.max(1)).unwrap_or(u8::MAX))
}
