//! MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST database of handwritten digits*.

use std::path::{Path, PathBuf};

use crate::data::idx;
use crate::{Error, Result, Shape, Tensor};

/// Handwritten digits, or another data set in the same files and format (such as Fashion-MNIST).
///
/// ```no_run
/// use wgrad::data::Mnist;
/// let mnist = Mnist::load("examples/data/mnist10k")?;
/// assert_eq!(mnist.train.images.shape()[1..], [1, 28, 28]);
/// assert_eq!((mnist.train.len(), mnist.test.labels.shape().len()), (8000, 1));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mnist {
    /// From the `train-` files.
    pub train: Digits,
    /// From the `t10k-` files.
    pub test: Digits,
}

/// Images and their labels. Example: [`Mnist`].
#[derive(Clone, Debug)]
pub struct Digits {
    /// `f32[N, 1, 28, 28]`, from 0 (background) to 1.
    pub images: Tensor,
    /// `i32[N]`, each from 0 to 9.
    pub labels: Tensor,
}

const SIDE: usize = 28;

impl Mnist {
    /// Loads the four files from a folder, each gzipped or not: `train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.
    ///
    /// # Errors
    /// [`Error::File`] names a file that is missing or damaged, and what is wrong with it.
    pub fn load(folder: impl AsRef<Path>) -> Result<Mnist> {
        let folder = folder.as_ref();
        let part = |name: &str| {
            Digits::load(
                find(folder, &format!("{name}-images-idx3-ubyte"))?,
                find(folder, &format!("{name}-labels-idx1-ubyte"))?,
            )
        };
        Ok(Mnist { train: part("train")?, test: part("t10k")? })
    }
}

/// The file with this name, or with `.gz` appended.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = folder.join(name);
    let zipped = folder.join(format!("{name}.gz"));
    let found = [&plain, &zipped].into_iter().find(|path| path.exists()).cloned();
    found.ok_or_else(|| Error::file(&plain, "no such file, nor one with .gz appended"))
}

impl Digits {
    /// Loads images and labels from two IDX files, gzipped or not.
    ///
    /// # Errors
    /// [`Error::File`] if a file is damaged, images are not 28 by 28, a label is not 0 to 9, or the numbers of
    /// labels and images differ.
    pub fn load(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Digits> {
        let (images, labels) = (images.as_ref(), labels.as_ref());
        Digits::new((images, idx::read(images, 3)?), (labels, || idx::read(labels, 1)))
    }

    /// Images and labels from the bytes of two IDX files, gzipped or not: in a browser, for instance, where there are no
    /// files.
    ///
    /// ```
    /// use wgrad::data::Digits;
    /// let images = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28][..], &[255; 784]].concat();
    /// let digits = Digits::from_bytes(&images, &[0, 0, 8, 1, 0, 0, 0, 1, 7])?;
    /// assert_eq!((digits.images.to_f32()[0], digits.labels.to_f64()[0]), (1.0, 7.0));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Digits::load`].
    pub fn from_bytes(images: &[u8], labels: &[u8]) -> Result<Digits> {
        let named = Path::new(idx::IN_MEMORY);
        Digits::new((named, idx::from_bytes(images, 3)?), (named, || idx::from_bytes(labels, 1)))
    }

    /// From the contents of two files; labels are read if the images are right.
    fn new(
        (images, (shape, pixels)): (&Path, (Shape, Vec<u8>)),
        (labels, read_labels): (&Path, impl FnOnce() -> Result<(Shape, Vec<u8>)>),
    ) -> Result<Digits> {
        if shape[1..] != [SIDE, SIDE] {
            let why = format!("expected images of {SIDE} by {SIDE} pixels, found {} by {}", shape[1], shape[2]);
            return Err(Error::file(images, why));
        }
        let (count, digits) = read_labels()?;
        if count[0] != shape[0] {
            let why = format!("has {} labels, but {} has {} images", count[0], images.display(), shape[0]);
            return Err(Error::file(labels, why));
        }
        if let Some(at) = digits.iter().position(|&digit| digit > 9) {
            let why = format!("label {} at position {at} is not a digit from 0 to 9", digits[at]);
            return Err(Error::file(labels, why));
        }
        let pixels: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
        let digits: Vec<i32> = digits.iter().map(|&digit| i32::from(digit)).collect();
        Ok(Digits { images: Tensor::new([shape[0], 1, SIDE, SIDE], pixels)?, labels: Tensor::new([shape[0]], digits)? })
    }

    /// The first `count` images, or all if there are fewer.
    ///
    /// # Errors
    /// If there are more labels than images, which loading rules out.
    pub fn first(&self, count: usize) -> Result<Digits> {
        let rows: Vec<usize> = (0..count.min(self.len())).collect();
        Ok(Digits { images: self.images.rows(&rows)?, labels: self.labels.rows(&rows)? })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.numel()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
