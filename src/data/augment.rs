//! Random image augmentation, so that a model sees each image in many forms.

use rand::Rng;
use rand::rngs::StdRng;

use super::batches::seeded;
use crate::nn::init;
use crate::{Error, Result, Tensor};

/// Random changes of images `[N, C, H, W]`, drawn for each image: shift, rotation about the centre, mirroring
/// and noise. Pixels from outside the image are 0.
///
/// ```
/// use wgrad::{Tensor, data::Augment};
/// let image = Tensor::new([1, 1, 2, 2], [1.0f32, 2.0, 3.0, 4.0])?;
/// let augment = Augment::new(7).flip();
/// let seen: Vec<f32> = (0..20).map(|step| augment.apply(&image, step).map(|x| x.to_f32()[0])).collect::<Result<_, _>>()?;
/// assert!(seen.contains(&1.0) && seen.contains(&2.0)); // unchanged, and mirrored
/// assert_eq!(augment.apply(&image, 3)?, augment.apply(&image, 3)?); // a function of seed and step
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Augment {
    seed: u64,
    shift: u16,
    degrees: f64,
    flip: bool,
    noise: f64,
}

/// Maps the pixels of the new image to positions in the old one.
struct Placement {
    shift: [f64; 2],
    sin: f64,
    cos: f64,
    mirrored: bool,
}

impl Augment {
    /// No changes yet.
    pub fn new(seed: u64) -> Augment {
        Augment { seed, shift: 0, degrees: 0.0, flip: false, noise: 0.0 }
    }

    /// Shifts by up to `pixels` whole pixels, vertically and horizontally.
    pub fn shift(self, pixels: u16) -> Augment {
        Augment { shift: pixels, ..self }
    }

    /// Rotates by up to `degrees` in either direction, with bilinear interpolation.
    pub fn rotate(self, degrees: f64) -> Augment {
        Augment { degrees, ..self }
    }

    /// Mirrors each image left to right with probability 1/2.
    pub fn flip(self) -> Augment {
        Augment { flip: true, ..self }
    }

    /// Adds normal noise with standard deviation `std` to each pixel.
    pub fn noise(self, std: f64) -> Augment {
        Augment { noise: std, ..self }
    }

    /// The changed images: a function of the seed, the step, and the images.
    ///
    /// # Errors
    /// If the images are not `f32[N, C, H, W]`, the angle is not finite, or the noise is not finite and at
    /// least 0.
    pub fn apply(&self, images: &Tensor, step: u64) -> Result<Tensor> {
        let (&[count, channels, height, width], crate::DType::F32) = (&images.shape()[..], images.dtype()) else {
            return Err(Error::Input(format!("expected images f32[N, C, H, W], found {}", images.ty())));
        };
        if !(self.degrees.is_finite() && self.noise >= 0.0 && self.noise.is_finite()) {
            let Augment { degrees, noise, .. } = self;
            return Err(Error::Input(format!(
                "expected a finite angle and noise of at least 0, not {degrees} and {noise}"
            )));
        }
        let mut rng = seeded(self.seed, step);
        let pixels = images.to_f32();
        let plane = height * width;
        let mut changed = Vec::with_capacity(pixels.len());
        for image in 0..count {
            let placement = self.draw(&mut rng);
            for channel in 0..channels {
                let start = (image * channels + channel) * plane;
                placement.resample(&pixels[start..start + plane], width, &mut changed);
            }
        }
        if self.noise > 0.0 {
            let noise = init::draw_normal(&mut rng, changed.len(), 0.0, self.noise);
            changed.iter_mut().zip(noise).for_each(|(pixel, noise)| *pixel += noise);
        }
        Tensor::new(images.shape().clone(), changed)
    }

    fn draw(&self, rng: &mut StdRng) -> Placement {
        let most = i32::from(self.shift);
        let shift = [(); 2].map(|()| f64::from(rng.random_range(-most..=most)));
        let (sin, cos) = (self.degrees * (2.0 * rng.random::<f64>() - 1.0)).to_radians().sin_cos();
        Placement { shift, sin, cos, mirrored: rng.random::<bool>() && self.flip }
    }
}

impl Placement {
    /// Appends the resampled pixels of one channel to `out`.
    fn resample(&self, plane: &[f32], width: usize, out: &mut Vec<f32>) {
        let height = plane.len() / width.max(1);
        let middle = [height, width].map(|size| (size as f64 - 1.0) / 2.0);
        let at = |y: f64, x: f64| {
            let inside = y >= 0.0 && x >= 0.0 && y < height as f64 && x < width as f64;
            if inside { f64::from(plane[y as usize * width + x as usize]) } else { 0.0 }
        };
        for row in 0..height {
            for column in 0..width {
                let v = row as f64 - middle[0] - self.shift[0];
                let u = column as f64 - middle[1] - self.shift[1];
                let y = self.cos * v - self.sin * u + middle[0];
                let x = self.sin * v + self.cos * u;
                let x = if self.mirrored { -x } else { x } + middle[1];
                // Interpolate between four neighbours; at the exact position of a pixel, only that pixel counts.
                let (top, left) = (y.floor(), x.floor());
                let (down, right) = (y - top, x - left);
                let upper = (1.0 - right) * at(top, left) + right * at(top, left + 1.0);
                let lower = (1.0 - right) * at(top + 1.0, left) + right * at(top + 1.0, left + 1.0);
                out.push(((1.0 - down) * upper + down * lower) as f32);
            }
        }
    }
}
