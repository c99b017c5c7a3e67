//! The device, and what all pages share.

use serde_json::{Value as Json, json};
use wasm_bindgen::prelude::*;
use wgrad::{Device, Error, OpenOptions, Profile};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);
}

/// Shows panics, which are bugs, in the console.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
}

/// Errors are strings in JavaScript.
pub fn thrown(error: Error) -> JsValue {
    error.to_string().into()
}

/// A JavaScript object.
pub fn object(json: &Json) -> Result<JsValue, JsValue> {
    js_sys::JSON::parse(&json.to_string())
}

/// The browser's GPU.
#[wasm_bindgen]
pub struct Gpu(Device);

#[wasm_bindgen]
impl Gpu {
    /// Opens the GPU; with `defaults`, limited to what every browser guarantees.
    pub async fn open(defaults: bool) -> Result<Gpu, JsValue> {
        let within = defaults.then(Profile::webgpu_defaults);
        let options = OpenOptions { within, ..OpenOptions::default() };
        let device = Device::open_async(None, &options).await.map_err(thrown)?;
        match device.is_cpu() {
            true => Err("this browser offers no WebGPU adapter".into()),
            false => Ok(Gpu(device)),
        }
    }

    /// Its name, limits and features.
    pub fn about(&self) -> Result<JsValue, JsValue> {
        let p = self.0.profile();
        object(&json!({
            "name": p.name,
            "kind": p.kind,
            "invocations per workgroup": p.max_invocations,
            "workgroups per dimension": p.max_workgroups,
            "workgroup memory": p.max_workgroup_memory,
            "storage buffers": p.max_storage_buffers,
            "largest binding": p.max_binding,
            "largest buffer": p.max_buffer,
            "subgroups": p.subgroups.map_or("no".to_owned(), |(low, high)| format!("{low} to {high}")),
            "f16": p.f16,
            "timestamps": p.timestamps,
        }))
    }

    /// The number of kernels compiled.
    pub fn kernels(&self) -> usize {
        self.0.pipelines()
    }
}

impl Gpu {
    pub fn device(&self) -> Device {
        self.0.clone()
    }
}
