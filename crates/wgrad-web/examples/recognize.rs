//! Loads weights that the lesson's page has saved, and prints the probabilities of the first test digits, a line for
//! each: `cargo run --release -p wgrad-web --example recognize -- WEIGHTS FOLDER COUNT [--defaults]`. FOLDER has the
//! MNIST files; `--defaults` keeps to the limits that all browsers guarantee.

use wgrad::data::Mnist;
use wgrad::train::Model;
use wgrad::{Device, Error, OpenOptions, Profile, Result, Session};
use wgrad_web::network::network;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (weights, folder, count, within) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [weights, folder, count] => (*weights, *folder, *count, None),
        [weights, folder, count, "--defaults"] => (*weights, *folder, *count, Some(Profile::webgpu_defaults())),
        _ => return Err(Error::Input("usage: recognize WEIGHTS FOLDER COUNT [--defaults]".into())),
    };
    let count = count.parse().map_err(|_| Error::Input(format!("`{count}` is not a number of digits")))?;
    let mut session = Session::new(Device::open_with(None, &OpenOptions { within, ..OpenOptions::default() })?);
    eprintln!("{}", session.device());
    // As the page does, a digit at a time: kernels are chosen by shape.
    let mut model = Model::new([1, 28, 28], |nn, x| network(nn, x).softmax(1)).batch(1);
    model.load(&mut session, weights)?;
    let digits = Mnist::load(folder)?.test.first(count)?;
    for row in model.predict(&mut session, &digits.images)?.to_f32().chunks(10) {
        println!("{}", row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
