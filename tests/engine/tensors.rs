//! Host tensors: joining, slicing, and their text.

use wgrad::{DType, Data, Tensor};

fn tensor(shape: &[usize], data: impl Into<Data>) -> Tensor {
    Tensor::new(shape, data).expect("a tensor")
}

#[test]
fn tensors_print_as_numpy_arrays() {
    // What NumPy 2 prints for the same numbers and types.
    let thirds = [1.0 / 3.0, 2.0 / 3.0];
    let line: Vec<f32> = (0..30).map(|i| (f64::from(i) / 29.0) as f32).collect();
    let halves = [0.1, 65504.0, 1.0].map(half::f16::from_f64);
    let cases = [
        (tensor(&[2, 3], [1.0f32, 0.25, -3.0, 10.5, f32::NAN, 0.0]), "[[ 1.    0.25 -3.  ]\n [10.5    nan  0.  ]]"),
        (tensor(&[2], [1.5f32, 2e9]), "[1.5e+00 2.0e+09]"),
        (tensor(&[3], [0.1f32, 0.2, 0.3]), "[0.1 0.2 0.3]"),
        (tensor(&[2], thirds), "[0.33333333 0.66666667]"),
        (tensor(&[2], [1e-5f32, 1.0]), "[1.e-05 1.e+00]"),
        (tensor(&[], [3.5f32]), "3.5"),
        (tensor(&[4], [f64::INFINITY, f64::NEG_INFINITY, 1e9, -2.5]), "[     inf     -inf  1.0e+09 -2.5e+00]"),
        (tensor(&[2], [1.0f32 / 3.0, 100.5]), "[  0.33333334 100.5       ]"),
        (tensor(&[2], [123_456.789, 1.0]), "[1.23456789e+05 1.00000000e+00]"),
        (tensor(&[3], [-0.0, 5e-324, 1e-3]), "[-0.e+000  5.e-324  1.e-003]"),
        (tensor(&[3], halves), "[1.00e-01 6.55e+04 1.00e+00]"),
        (tensor(&[2, 0], [0f32; 0]), "[]"),
        (
            tensor(&[2, 2, 3], (0..12).collect::<Vec<i32>>()),
            "[[[ 0  1  2]\n  [ 3  4  5]]\n\n [[ 6  7  8]\n  [ 9 10 11]]]",
        ),
        (
            tensor(&[30], line),
            "[0.         0.03448276 0.06896552 0.10344828 0.13793103 0.1724138\n \
             0.20689656 0.2413793  0.27586207 0.31034482 0.3448276  0.37931034\n \
             0.41379312 0.44827586 0.4827586  0.51724136 0.55172414 0.5862069\n \
             0.62068963 0.6551724  0.6896552  0.7241379  0.7586207  0.79310346\n \
             0.82758623 0.86206895 0.8965517  0.9310345  0.9655172  1.        ]",
        ),
        (
            tensor(&[40, 50], (0..2000).collect::<Vec<i32>>()),
            "[[   0    1    2 ...   47   48   49]\n [  50   51   52 ...   97   98   99]\n \
             [ 100  101  102 ...  147  148  149]\n ...\n [1850 1851 1852 ... 1897 1898 1899]\n \
             [1900 1901 1902 ... 1947 1948 1949]\n [1950 1951 1952 ... 1997 1998 1999]]",
        ),
        (tensor(&[2], [true, false]), "[ true false]"),
    ];
    for (tensor, text) in cases {
        assert_eq!(tensor.to_string(), text);
    }
    let blocks = tensor(&[8, 8, 8, 8], (0..4096).collect::<Vec<i32>>()).to_string();
    assert!(blocks.starts_with("[[[[   0    1    2 ...    5    6    7]\n   [   8"), "{blocks}");
    assert!(blocks.contains("959]]\n\n  [[ 960") && blocks.contains("1023]]]\n\n\n [[[1024"), "{blocks}");
    assert!(blocks.contains("1535]]]\n\n\n ...\n\n\n [[[2560") && blocks.ends_with("4095]]]]"), "{blocks}");
}

#[test]
fn slices_and_concatenation_are_inverse() {
    let x = tensor(&[3, 4, 2], (0..24).collect::<Vec<i32>>());
    for (axis, size) in [(0, 3), (1, 4), (2, 2), (-1, 2), (-3, 3)] {
        for cut in 0..=size {
            let parts = [x.slice(axis, 0..cut).expect("slices"), x.slice(axis, cut..size).expect("slices")];
            assert_eq!(Tensor::concat(&[&parts[0], &parts[1]], axis).expect("joins"), x, "axis {axis} at {cut}");
        }
    }
    assert_eq!(x.slice(1, 2..3).expect("slices"), tensor(&[3, 1, 2], [4, 5, 12, 13, 20, 21]));
    let rows: Vec<Tensor> = x.iter_rows().collect();
    assert_eq!((rows.len(), &rows[2]), (3, &tensor(&[4, 2], (16..24).collect::<Vec<i32>>())));
    assert_eq!(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0).expect("stacks"), x);
    let last = Tensor::stack(&[&rows[0], &rows[1]], -1).expect("stacks");
    assert_eq!(last.shape()[..], [4, 2, 2]);
    assert_eq!(last.slice(0, 0..1).expect("slices"), tensor(&[1, 2, 2], [0, 8, 1, 9]));
    assert_eq!(Tensor::scalar(1.0).iter_rows().len(), 0);
    // Empty tensors keep their types and sizes.
    let empty = tensor(&[2, 0], [0u8; 0]);
    assert_eq!(Tensor::concat(&[&empty, &empty], 0).expect("joins").ty().to_string(), "u8[4, 0]");
    assert_eq!(empty.slice(0, 1..2).expect("slices").ty().to_string(), "u8[1, 0]");
    assert_eq!(empty.iter_rows().map(|row| row.numel()).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn outputs_of_the_reference_join_with_other_tensors() {
    let x = Tensor::new([2], [1.5f32, 2.5]).expect("a tensor");
    let exact = Tensor::new([1], vec![0.1f64]).expect("a tensor");
    for (joined, expected) in
        [(Tensor::concat(&[&x, &exact], 0), [1.5, 2.5, 0.1]), (Tensor::concat(&[&exact, &x], 0), [0.1, 1.5, 2.5])]
    {
        let joined = joined.expect("both are f32");
        assert_eq!((joined.ty().to_string(), joined.to_f64()), ("f32[3]".to_owned(), expected.to_vec()));
    }
}

#[test]
fn no_rows_are_an_empty_matrix() {
    let empty = Tensor::try_from(Vec::<Vec<bool>>::new()).expect("empty");
    assert_eq!(empty.ty(), wgrad::TensorType::new(DType::Bool, [0, 0]));
}

#[test]
fn strided_elements_are_those_of_the_formula_and_checked() {
    let data: Vec<i32> = (0..60).collect();
    for (shape, strides, offset) in [
        ([3usize, 4, 5], [20isize, 5, 1], 0),
        ([5, 4, 3], [1, 5, 20], 0),
        ([3, 4, 5], [-20, 5, -1], 44),
        ([2, 3, 2], [0, 7, 0], 9),
        ([1, 2, 1], [isize::MAX, -3, isize::MIN], 3),
    ] {
        let made = Tensor::from_strided(shape, &strides, offset, &data).expect("inside");
        let mut expected = Vec::new();
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                for k in 0..shape[2] {
                    let along = |(i, stride): (usize, isize)| if i == 0 { 0 } else { i as isize * stride };
                    let place: isize = [i, j, k].into_iter().zip(strides).map(along).sum();
                    expected.push(data[(offset as isize + place) as usize]);
                }
            }
        }
        assert_eq!(made, Tensor::new(shape, expected).unwrap(), "{shape:?} {strides:?}");
    }
    assert_eq!(Tensor::from_strided([2, 0], &[9, 9], 70, &data).unwrap().ty().to_string(), "i32[2, 0]");
    assert_eq!(Tensor::from_strided([], &[], 7, &data).unwrap(), Tensor::new([], [7]).unwrap());
    for (shape, strides, offset, part) in [
        (vec![3, 4], vec![4], 0, "shape [3, 4] has 2 axes, but 1 strides"),
        (vec![2], vec![60], 0, "elements at 0 to 60, but there are 60 elements"),
        (vec![3, 2], vec![-2, 1], 3, "elements at -1 to 4"),
        (vec![], vec![], 60, "elements at 60 to 60"),
        (vec![usize::MAX, usize::MAX], vec![isize::MAX, isize::MAX], 0, "but there are 60 elements"),
        (vec![usize::MAX, usize::MAX], vec![0, 0], 0, "no memory for a tensor of shape"),
        (vec![1 << 60], vec![0], 0, "no memory for a tensor of shape"),
    ] {
        let error = Tensor::from_strided(shape, &strides, offset, &data).unwrap_err().to_string();
        assert!(error.contains(part), "no `{part}` in {error}");
    }
}
