//! Preprocessing and metrics: values computed by hand, and properties that hold for any data. Needs no
//! GPU.

use proptest::collection::vec;
use proptest::prelude::*;
use wgrad::data::{
    Augment, ConfusionMatrix, Imputer, Scaler, Split, accuracy, average_precision, class_weights, one_hot, over_sample,
    precision_recall_curve, r2_score, roc_auc, under_sample,
};
use wgrad::{Data, Tensor};

fn column(values: &[f64]) -> Tensor {
    Tensor::new([values.len()], values).unwrap()
}

fn labels(values: &[i32]) -> Tensor {
    Tensor::new([values.len()], values).unwrap()
}

fn says<T>(result: wgrad::Result<T>, words: &str) {
    let message = result.err().expect("an error").to_string();
    assert!(message.contains(words), "{message}");
}

#[test]
fn scalers_match_values_computed_by_hand() {
    // Mean 5, deviations -3 -1 -1 -1 0 0 2 4, variance 32 / 8.
    let scaler = Scaler::standard(&column(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])).unwrap();
    assert_eq!((scaler.shift(), scaler.scale()), (&[5.0][..], &[2.0][..]));
    let scaler = Scaler::min_max(&Tensor::new([2, 2], [-1.0, 7.0, 3.0, 7.0]).unwrap()).unwrap();
    assert_eq!((scaler.shift(), scaler.scale()), (&[-1.0, 7.0][..], &[4.0, 1.0][..]));
    let test = Tensor::new([1, 2], [5.0, 8.0]).unwrap();
    assert_eq!(scaler.apply(&test).unwrap().to_f64(), [1.5, 1.0], "test rows may lie outside the fitted range");
    // A constant column becomes 0, although the mean of 0.1s is not exact.
    let tenths = column(&[0.1; 7]);
    assert_eq!(Scaler::standard(&tenths).unwrap().apply(&tenths).unwrap().to_f64(), [0.0; 7]);
}

#[test]
fn columns_that_cannot_be_fitted_are_refused() {
    for wrong in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
        says(Scaler::standard(&column(&[1.0, wrong])), "column 1 holds NaN");
        says(Scaler::min_max(&column(&[wrong, wrong])), "column 1 holds NaN");
    }
    says(Scaler::min_max(&column(&[-1e308, 1e308])), "cannot be computed");
    says(Scaler::standard(&column(&[1e300, -1e300])), "cannot be computed");
    says(Scaler::standard(&column(&[])), "nothing to learn");
    says(Scaler::standard(&Tensor::scalar(1.0)), "expected columns");
    says(Scaler::standard(&column(&[1.0, 2.0])).unwrap().apply(&Tensor::new([1, 2], [1.0, 2.0]).unwrap()), "1 columns");
    says(Imputer::mean(&Tensor::new([1, 2], [1.0, f64::NAN]).unwrap()), "column 2 has no value");
    says(Imputer::median(&column(&[f64::INFINITY])), "column 1 has no value");
    says(Imputer::constant(&column(&[1.0]), f64::NAN), "finite");
}

#[test]
fn imputers_use_statistics_of_the_training_split() {
    let nan = f64::NAN;
    let train = Tensor::new([5, 2], [1.0, nan, nan, 2.0, 3.0, 4.0, 11.0, 9.0, nan, 1.0]).unwrap();
    let test = Tensor::new([1, 2], [nan, nan]).unwrap();
    assert_eq!(Imputer::mean(&train).unwrap().apply(&test).unwrap().to_f64(), [5.0, 4.0]);
    assert_eq!(Imputer::median(&train).unwrap().apply(&test).unwrap().to_f64(), [3.0, 3.0]);
    assert_eq!(Imputer::constant(&train, -1.0).unwrap().apply(&test).unwrap().to_f64(), [-1.0, -1.0]);
}

#[test]
fn metrics_match_values_computed_by_hand() {
    let truth = labels(&[0, 0, 1, 1, 1, 2]);
    let predicted = labels(&[0, 1, 1, 1, 2, 2]);
    let matrix = ConfusionMatrix::new(&predicted, &truth, 3).unwrap();
    assert_eq!(
        matrix.to_string(),
        "is \\ predicted     0     1     2\n             0     1     1     0\n             1     0     2     1\n             2     0     0     1"
    );
    assert_eq!((matrix.accuracy(), accuracy(&predicted, &truth).unwrap()), (4.0 / 6.0, 4.0 / 6.0));
    assert_eq!((matrix.precision(1), matrix.recall(1), matrix.precision(2)), (2.0 / 3.0, 2.0 / 3.0, 0.5));
    assert_eq!(matrix.count(7, 0), 0);
    // Of the 2 x 3 pairs, 4 are in order and one is tied.
    let auc = roc_auc(&column(&[0.1, 0.5, 0.5, 0.9, 0.3]), &labels(&[0, 0, 1, 1, 1])).unwrap();
    assert_eq!(auc, 4.5 / 6.0);
    assert_eq!(r2_score(&column(&[1.0, 2.0, 5.0]), &column(&[1.0, 3.0, 5.0])).unwrap(), 1.0 - 1.0 / 8.0);
    says(roc_auc(&column(&[0.1, 0.2]), &labels(&[1, 1])), "class 0 and of class 1");
    says(roc_auc(&column(&[f64::NAN, 0.2]), &labels(&[0, 1])), "NaN");
    says(roc_auc(&column(&[0.1]), &labels(&[0, 1])), "1 predictions for 2 rows");
    // The tied scores are one step: from recall 1/3 and precision 1 to 1/3 + 1/3 and 2/3.
    let (scores, truth) = (column(&[0.1, 0.5, 0.5, 0.9, 0.3]), labels(&[0, 0, 1, 1, 1]));
    let curve = [(1.0 / 3.0, 1.0), (2.0 / 3.0, 2.0 / 3.0), (1.0, 0.75), (1.0, 0.6)];
    assert_eq!(precision_recall_curve(&scores, &truth).unwrap(), curve);
    let area = average_precision(&scores, &truth).unwrap();
    assert!((area - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-12, "{area}");
    says(average_precision(&column(&[0.1, 0.2]), &labels(&[0, 0])), "rows of class 1");
    says(average_precision(&column(&[f64::NAN, 0.2]), &labels(&[0, 1])), "NaN");
    says(precision_recall_curve(&column(&[0.1]), &labels(&[0, 1])), "1 predictions for 2 rows");
    says(r2_score(&column(&[1.0]), &column(&[1.0])), "constant targets");
    says(accuracy(&labels(&[]), &labels(&[])), "at least one prediction");
    says(ConfusionMatrix::new(&labels(&[0]), &labels(&[3]), 3), "class 3 is not one of 3");
    says(ConfusionMatrix::new(&labels(&[0]), &labels(&[0]), 1 << 40), "2^31");
}

#[test]
fn invalid_class_labels_are_refused() {
    says(one_hot(&labels(&[0, -1]), 2), "none below 0; found -1");
    says(one_hot(&labels(&[0, 2]), 2), "class 2 is not one of 2");
    says(one_hot(&column(&[0.0]), 2), "found f32[1]");
    says(one_hot(&labels(&[0, 1]), usize::MAX), "2^31");
    says(class_weights(&labels(&[0, 2]), 3), "class 1 has no rows");
    says(Split::stratified(&column(&[0.0, 1.0]), 0.5, 0), "found f32[2]");
    says(Split::random(10, 0.01, 0), "leaves one part empty");
    says(Split::random(10, f64::NAN, 0), "leaves one part empty");
    says(Split::random(0, 0.5, 0), "leaves one part empty");
    assert_eq!(over_sample(&labels(&[]), 0).unwrap(), [0usize; 0]);
    assert_eq!(one_hot(&Tensor::new([1, 2], [1, 0]).unwrap(), 2).unwrap().shape().to_vec(), [1, 2, 2]);
}

#[test]
fn an_image_moves_as_a_whole() {
    // A shift by up to 1 moves the centre pixel of a 5 x 5 image to exactly 9 places.
    let mut pixels = [0f32; 25];
    pixels[12] = 1.0;
    let image = Tensor::new([1, 1, 5, 5], pixels).unwrap();
    let mut seen = [0; 25];
    for step in 0..200 {
        let moved = Augment::new(1).shift(1).apply(&image, step).unwrap().to_f32();
        let at = moved.iter().position(|&x| x == 1.0).expect("the pixel");
        assert_eq!(moved.iter().filter(|&&x| x != 0.0).count(), 1);
        seen[at] += 1;
    }
    let places: Vec<usize> = (0..25).filter(|&at| seen[at] > 0).collect();
    assert_eq!(places, [6, 7, 8, 11, 12, 13, 16, 17, 18]);
}

#[test]
fn an_image_rotates_about_its_centre() {
    // A disc keeps its mass and its centre at any angle.
    let disc: Vec<f32> =
        (0..225).map(|i| if (i / 15i32 - 7).pow(2) + (i % 15 - 7).pow(2) <= 20 { 1.0 } else { 0.0 }).collect();
    let image = Tensor::new([1, 1, 15, 15], disc.clone()).unwrap();
    for step in 0..20 {
        let turned = Augment::new(3).rotate(180.0).apply(&image, step).unwrap().to_f32();
        let mass: f32 = turned.iter().sum();
        assert!((mass / disc.iter().sum::<f32>() - 1.0).abs() < 0.02, "mass {mass}");
        assert_eq!(turned[112], 1.0);
    }
    let unturned = Augment::new(3).rotate(0.0).shift(0).apply(&image, 0).unwrap();
    assert_eq!(unturned, image, "the identity is exact");
}

#[test]
fn noise_has_its_standard_deviation() {
    let image = Tensor::new([2, 3, 50, 50], vec![0.25f32; 15_000]).unwrap();
    let noisy = Augment::new(5).noise(0.1).apply(&image, 0).unwrap().to_f64();
    let mean = noisy.iter().sum::<f64>() / 15_000.0;
    let std = (noisy.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 15_000.0).sqrt();
    assert!((mean - 0.25).abs() < 0.004 && (std - 0.1).abs() < 0.003, "{mean} {std}"); // five sigma
    says(Augment::new(0).noise(f64::NAN).apply(&image, 0), "noise");
    says(Augment::new(0).rotate(f64::INFINITY).apply(&image, 0), "finite angle");
    says(Augment::new(0).apply(&labels(&[1]), 0), "found i32[1]");
    let far = Augment::new(0).shift(u16::MAX).rotate(1e300).apply(&image, 0).unwrap();
    assert!(far.to_f32().iter().all(|x| x.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scaling_can_be_inverted(values in vec(-1e6..1e6f64, 4..60), width in 1usize..4) {
        let rows = values.len() / width;
        let x = Tensor::new([rows, width], &values[..rows * width]).unwrap();
        for scaler in [Scaler::standard(&x).unwrap(), Scaler::min_max(&x).unwrap()] {
            let back = scaler.invert(&scaler.apply(&x).unwrap()).unwrap().to_f64();
            for (a, b) in back.iter().zip(x.to_f64()) {
                prop_assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{a} {b}");
            }
        }
        let scaled = Scaler::min_max(&x).unwrap().apply(&x).unwrap().to_f64();
        prop_assert!(scaled.iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn a_split_has_each_row_once(classes in vec(0..4i32, 2..80), share in 0.05..0.95f64, seed: u64) {
        let rows = classes.len();
        let wanted = (rows as f64 * share).round() as usize;
        prop_assume!(wanted >= 1 && wanted < rows);
        let y = labels(&classes);
        for split in [Split::random(rows, share, seed).unwrap(), Split::stratified(&y, share, seed).unwrap()] {
            prop_assert_eq!(split.test.len(), wanted);
            let mut all: Vec<usize> = split.train.iter().chain(&split.test).copied().collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..rows));
        }
        let split = Split::stratified(&y, share, seed).unwrap();
        prop_assert_eq!(&split, &Split::stratified(&y, share, seed).unwrap());
        for class in 0..4 {
            let of = |rows: &[usize]| rows.iter().filter(|&&row| classes[row] == class).count() as f64;
            let quota = share * classes.iter().filter(|&&c| c == class).count() as f64;
            prop_assert!((of(&split.test) - quota).abs() < 1.0, "class {class}: {} of {quota}", of(&split.test));
        }
    }

    #[test]
    fn sampled_classes_are_equally_frequent(classes in vec(0..4i32, 1..60), seed: u64) {
        let y = labels(&classes);
        let counts = |rows: &[usize]| {
            let mut counts = [0usize; 4];
            rows.iter().for_each(|&row| counts[classes[row] as usize] += 1);
            counts.into_iter().filter(|&count| count > 0).collect::<Vec<_>>()
        };
        let all = counts(&(0..classes.len()).collect::<Vec<_>>());
        let (over, under) = (over_sample(&y, seed).unwrap(), under_sample(&y, seed).unwrap());
        prop_assert_eq!(counts(&over), vec![*all.iter().max().unwrap(); all.len()]);
        prop_assert_eq!(counts(&under), vec![*all.iter().min().unwrap(); all.len()]);
        prop_assert!((0..classes.len()).all(|row| over.contains(&row)), "over-sampling drops nothing");
        let mut once = under.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), under.len(), "under-sampling repeats nothing");
        prop_assert_eq!(over, over_sample(&y, seed).unwrap());
    }

    #[test]
    fn weighted_classes_have_equal_total_weight(mut classes in vec(0..3i32, 1..60)) {
        classes.extend([0, 1, 2]);
        let weights = class_weights(&labels(&classes), 3).unwrap().to_f64();
        for (class, weight) in (0..3i32).zip(weights) {
            let sum = weight * classes.iter().filter(|&&c| c == class).count() as f64;
            prop_assert!((sum - classes.len() as f64 / 3.0).abs() < 1e-4);
        }
    }

    #[test]
    fn the_auc_is_the_share_of_pairs_in_order(rows in vec((0..5u8, any::<bool>()), 2..40)) {
        prop_assume!(rows.iter().any(|r| r.1) && rows.iter().any(|r| !r.1));
        let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
        let truth: Vec<i32> = rows.iter().map(|r| i32::from(r.1)).collect();
        let (mut won, mut pairs) = (0.0, 0.0);
        for one in rows.iter().filter(|r| r.1) {
            for zero in rows.iter().filter(|r| !r.1) {
                won += if one.0 > zero.0 { 1.0 } else if one.0 == zero.0 { 0.5 } else { 0.0 };
                pairs += 1.0;
            }
        }
        let auc = roc_auc(&column(&scores), &labels(&truth)).unwrap();
        prop_assert!((auc - won / pairs).abs() < 1e-12, "{auc} {}", won / pairs);
    }

    #[test]
    fn images_keep_their_shape(n in 0usize..3, c in 1usize..3, h in 0usize..5, w in 0usize..5, seed: u64) {
        let pixels: Vec<f32> = (0..n * c * h * w).map(|i| i as f32).collect();
        let images = Tensor::new([n, c, h, w], pixels).unwrap();
        let augment = Augment::new(seed).shift(2).rotate(30.0).flip().noise(0.1);
        let changed = augment.apply(&images, 1).unwrap();
        prop_assert_eq!(changed.shape(), images.shape());
        prop_assert!(matches!(changed.data(), Data::F32(v) if v.iter().all(|x| x.is_finite())));
        prop_assert_eq!(changed, augment.apply(&images, 1).unwrap());
    }
}
