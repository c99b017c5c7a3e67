//! Folders of images; with the feature `images`.

use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use wgrad::data::ImageFolder;
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};

/// Two classes: a red and a green gradient.
fn write(folder: &Path) {
    for (class, channel) in [("green", 1), ("red", 0)] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for number in 0..6u32 {
            let image = RgbImage::from_fn(4, 3, |x, y| {
                let mut pixel = [0; 3];
                pixel[channel] = (40 * number + 10 * x + y) as u8;
                Rgb(pixel)
            });
            image.save(folder.join(class).join(format!("{number}.png"))).unwrap();
        }
    }
    std::fs::write(folder.join("red/notes.txt"), "no image").unwrap();
    std::fs::write(folder.join("red/.hidden.png"), "no image").unwrap();
}

#[test]
fn pixels_and_classes_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!((images.len(), images.classes()), (12, &["green".to_owned(), "red".to_owned()][..]));
    assert_eq!(images.labels().unwrap().to_f64(), [0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 1., 1.]);
    assert!(images.file(7).unwrap().ends_with("red/1.png"));
    let (x, y) = images.load(&[7, 2]).unwrap();
    assert_eq!((x.ty().to_string(), y.to_f64()), ("f32[2, 3, 3, 4]".to_owned(), vec![1.0, 0.0]));
    let x = x.to_f32();
    for (image, (number, channel)) in [(1u32, 0), (2, 1)].into_iter().enumerate() {
        for (at, got) in x[image * 36..][..36].iter().enumerate() {
            let (plane, row, column) = (at / 12, at / 4 % 3, at % 4);
            let want = if plane == channel { (40 * number) as f32 + 10.0 * column as f32 + row as f32 } else { 0.0 };
            assert_eq!(*got, want / 255.0, "image {image}, element {at}");
        }
    }
    // A subset, resized, in grey.
    let small = images.subset(&[0, 11]).size(2, 2).grey();
    let (x, y) = small.load(&[1]).unwrap();
    assert_eq!((x.ty().to_string(), y.to_f64()), ("f32[1, 1, 2, 2]".to_owned(), vec![1.0]));
    assert!(x.to_f32().iter().all(|x| *x > 0.0 && *x < 0.5), "{x}");
}

#[test]
fn damaged_and_unequal_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    GrayImage::from_pixel(5, 5, Luma([9])).save(folder.path().join("green/5.png")).unwrap();
    let png = std::fs::read(folder.path().join("green/1.png")).unwrap();
    std::fs::write(folder.path().join("green/1.png"), &png[..40]).unwrap();
    let images = ImageFolder::open(folder.path()).unwrap();
    let error = |rows: &[usize]| images.load(rows).unwrap_err().to_string();
    assert!(error(&[1]).contains("1.png: cannot be decoded"), "{}", error(&[1]));
    assert!(
        error(&[0, 5]).contains("5.png: has 5 by 5 pixels, the first image of the batch 3 by 4"),
        "{}",
        error(&[0, 5])
    );
    assert!(error(&[12]).contains("no image 12 among 12"));
    let none = ImageFolder::open(folder.path().join("green")).unwrap_err().to_string();
    assert!(none.contains("has no images; expected a folder for each class"), "{none}");
    assert!(ImageFolder::open(folder.path().join("absent")).is_err());
}

#[test]
fn a_model_learns_the_classes_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let images = ImageFolder::open(folder.path()).unwrap();
    let model = Model::new([3, 3, 4], |nn: &Scope, x: &Value| nn.linear("fc", &x.flatten(1), 2));
    let mut trainer = Trainer::new(&model, |p, y| p.cross_entropy(y, Reduction::Mean)).lr(0.1).epochs(40).batch(5);
    trainer = trainer.workers(2).metrics([Metric::Accuracy]).quiet();
    let history = trainer.fit(&mut Session::new(Device::cpu()), &images, Some(&images)).expect("trains");
    assert_eq!(history.epochs[39].validation.as_ref().unwrap().get("accuracy"), Some(1.0));
}
