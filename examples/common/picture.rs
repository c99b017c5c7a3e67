//! Pictures that the examples write: a grid of small images, as PNG.

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage};
use wgrad::{Error, Result, Tensor};

/// The gap between images, and the factor by which pixels are enlarged.
const GAP: u32 = 4;
const ZOOM: u32 = 2;

/// Writes images `[n, c, h, w]` of 1 (grey) or 3 (RGB) channels with values from 0 to 1, `columns` in a row, to
/// `FOLDER/NAME.png` and prints the path. Values outside are clipped; NaN is red.
pub fn save(images: &Tensor, columns: usize, folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(format!("{name}.png"));
    let &[n, c, h, w] = images.shape().to_vec().as_slice() else {
        return Err(Error::Input(format!("{}: expected images [n, c, h, w], not {}", path.display(), images.shape())));
    };
    let pixels = images.to_f32();
    let colour = |image: usize, y: usize, x: usize| {
        let channel = |k: usize| pixels[((image * c + k.min(c - 1)) * h + y) * w + x];
        let rgb = [channel(0), channel(1), channel(2)];
        match rgb.iter().any(|v| v.is_nan()) {
            true => Rgb([255, 0, 0]),
            false => Rgb(rgb.map(|v| (255.0 * v.clamp(0.0, 1.0)).round() as u8)),
        }
    };
    let (columns, tile) = (columns.clamp(1, n.max(1)), [w as u32 * ZOOM + GAP, h as u32 * ZOOM + GAP]);
    let rows = n.div_ceil(columns);
    let size = [columns as u32 * tile[0] + GAP, rows as u32 * tile[1] + GAP];
    // A middle grey, which is visible on light and on dark pages.
    let mut picture = RgbImage::from_pixel(size[0], size[1], Rgb([128, 128, 128]));
    for image in 0..n {
        let corner = [(image % columns) as u32 * tile[0] + GAP, (image / columns) as u32 * tile[1] + GAP];
        for (y, x) in (0..h as u32 * ZOOM).flat_map(|y| (0..w as u32 * ZOOM).map(move |x| (y, x))) {
            picture.put_pixel(corner[0] + x, corner[1] + y, colour(image, (y / ZOOM) as usize, (x / ZOOM) as usize));
        }
    }
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.into(), source })?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Up);
    let written = picture.write_with_encoder(encoder);
    written.map_err(|e| Error::File { path: path.clone(), message: e.to_string() })?;
    wgrad::io::write_atomically(&path, bytes.get_ref())?;
    println!("picture: {}", path.display());
    Ok(())
}
