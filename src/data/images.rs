//! Folders of images.

use std::fs;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};

use crate::{Error, Result, Tensor};

/// Images in folders, one for each class: `FOLDER/CLASS/FILE`, as torchvision's `ImageFolder`. Images are read, decoded
/// and resized when a batch needs them: on worker threads, if the trainer has some. Requires the feature `images`.
///
/// ```no_run
/// use wgrad::data::{ImageFolder, Split};
/// let images = ImageFolder::open("flowers")?.size(64, 64);
/// println!("{} images of {:?}", images.len(), images.classes());
/// let split = Split::stratified(&images.labels()?, 0.2, 0)?;
/// let (train, test) = (images.subset(&split.train), images.subset(&split.test)); // both are a `Dataset`
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    files: Vec<(PathBuf, i32)>,
    classes: Vec<String>,
    size: Option<[u32; 2]>,
    grey: bool,
}

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "pbm", "pgm", "ppm"];

impl ImageFolder {
    /// Lists the files. Classes are the names of the folders, in alphabetical order; so are the images of a class. Hidden
    /// files, and files that are neither PNG, JPEG nor PNM by their extension, are left out.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read, [`Error::File`] if there are no classes or no images.
    pub fn open(folder: impl AsRef<Path>) -> Result<ImageFolder> {
        let folder = folder.as_ref();
        let (mut files, mut classes) = (Vec::new(), Vec::new());
        for class in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
            let is_image = |path: &PathBuf| {
                let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
                path.is_file() && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
            };
            let number = classes.len() as i32;
            files.extend(entries(&class)?.into_iter().filter(is_image).map(|path| (path, number)));
            classes.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        if files.is_empty() {
            let why = format!(
                "has no images; expected a folder for each class, with files that end in {}",
                EXTENSIONS.join(", ")
            );
            return Err(Error::file(folder, why));
        }
        Ok(ImageFolder { files, classes, size: None, grey: false })
    }

    /// Resizes each image to this height and width, by bilinear interpolation over the pixels that it covers. Otherwise,
    /// all images of a batch must have the same size.
    pub fn size(self, height: u32, width: u32) -> ImageFolder {
        ImageFolder { size: Some([height, width]), ..self }
    }

    /// One channel, the brightness, instead of red, green and blue.
    pub fn grey(self) -> ImageFolder {
        ImageFolder { grey: true, ..self }
    }

    /// The images with these numbers; numbers that do not exist are left out.
    pub fn subset(&self, rows: &[usize]) -> ImageFolder {
        let files = rows.iter().filter_map(|&row| self.files.get(row).cloned()).collect();
        ImageFolder { files, ..self.clone() }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the classes, by their number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The number of each image's class, `i32[N]`.
    ///
    /// # Errors
    /// None for folders of images.
    pub fn labels(&self) -> Result<Tensor> {
        Tensor::new([self.len()], self.files.iter().map(|(_, class)| *class).collect::<Vec<_>>())
    }

    /// The file of an image.
    pub fn file(&self, row: usize) -> Option<&Path> {
        self.files.get(row).map(|(path, _)| path.as_path())
    }

    /// The images with these numbers, `f32[N, C, H, W]` from 0 to 1, and their classes, `i32[N]`.
    ///
    /// # Errors
    /// [`Error::File`] names an image that is damaged or has another size than the first; [`Error::Input`] for numbers
    /// that do not exist.
    pub fn load(&self, rows: &[usize]) -> Result<(Tensor, Tensor)> {
        let channels = if self.grey { 1 } else { 3 };
        let (mut pixels, mut labels, mut size) = (Vec::new(), Vec::new(), self.size);
        for &row in rows {
            let Some((path, class)) = self.files.get(row) else {
                return Err(Error::Input(format!("there is no image {row} among {}", self.len())));
            };
            let image = self.read(path)?;
            let found = [image.height(), image.width()];
            let expected = *size.get_or_insert(found);
            if found != expected {
                let [height, width] = expected;
                let why = format!(
                    "has {} by {} pixels, the first image of the batch {height} by {width}; call ImageFolder::size",
                    found[0], found[1]
                );
                return Err(Error::file(path, why));
            }
            labels.push(*class);
            let plane = found[0] as usize * found[1] as usize;
            let start = pixels.len();
            pixels.resize(start + channels * plane, 0f32);
            let bytes = if self.grey { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
            for (at, byte) in bytes.into_iter().enumerate() {
                pixels[start + at % channels * plane + at / channels] = f32::from(byte) / 255.0;
            }
        }
        let [height, width] = size.unwrap_or_default().map(|size| size as usize);
        Ok((Tensor::new([rows.len(), channels, height, width], pixels)?, Tensor::new([rows.len()], labels)?))
    }

    fn read(&self, path: &Path) -> Result<DynamicImage> {
        let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(Error::io(path))?;
        let image = reader.decode().map_err(|error| Error::file(path, format!("cannot be decoded: {error}")))?;
        Ok(match self.size {
            Some([height, width]) if [height, width] != [image.height(), image.width()] => {
                image.resize_exact(width, height, FilterType::Triangle)
            }
            _ => image,
        })
    }
}

/// What is in a folder, sorted, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let mut paths: Vec<PathBuf> = read.map_err(Error::io(folder))?;
    paths.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}
