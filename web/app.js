// What all pages share: the worker, the message if there is no WebGPU, and small helpers.

const NO_WEBGPU = `This browser offers no WebGPU adapter. Use a current Chrome, Edge, Safari (26 or later) or Firefox. On
Linux, start Chrome with <code>--enable-unsafe-webgpu --enable-features=Vulkan</code>. The page must come from
<code>https://</code> or from <code>localhost</code>.`;

export const byId = (id) => document.getElementById(id);

// An element with properties and children.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// What tests and styles see: `ready`, `running`, `done` or `failed`.
export function setState(state) {
  document.documentElement.dataset.state = state;
}

export function fail(error) {
  const text = String(error?.message ?? error);
  byId('message').textContent = text.includes('device was lost') ? `${text}. In a browser, reload the page.` : text;
  byId('message').className = 'error';
  setState('failed');
}

// Starts the worker and opens the GPU. Returns a function that calls the worker, and what is known about the GPU, or
// null if there is no WebGPU, which the page then says.
export async function connect() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) {
    byId('message').innerHTML = NO_WEBGPU;
    byId('message').className = 'error';
    setState('unsupported');
    return null;
  }
  const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  const waiting = new Map();
  let next = 0;
  worker.onmessage = ({ data: { id, result, error, panic } }) => {
    if (panic) return fail(panic);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    error === undefined ? resolve(result) : reject(new Error(error));
  };
  worker.onerror = (event) => byId('message').className === 'error' || fail(event.message ?? 'the worker does not start');
  const call = (name, ...args) =>
    new Promise((resolve, reject) => {
      waiting.set(next, { resolve, reject });
      worker.postMessage({ id: next++, name, args });
    });
  try {
    const gpu = await call('open', new URLSearchParams(location.search).has('defaults'));
    // wgpu does not know a browser's name of the GPU.
    const { vendor, architecture, device } = adapter.info;
    const name = [vendor, architecture, device].filter(Boolean).join(' ');
    if (name) gpu.name = gpu.name.replace('unnamed GPU', name);
    byId('message').textContent = `GPU: ${gpu.name}`;
    return { call, gpu };
  } catch (error) {
    fail(error);
    return null;
  }
}

// Fills a list with what is known about the GPU.
export function showGpu(list, gpu) {
  for (const [name, value] of Object.entries(gpu)) {
    const isBytes = ['largest binding', 'largest buffer', 'workgroup memory'].includes(name);
    const text = isBytes ? bytes(value) : { true: 'yes', false: 'no' }[value] ?? `${value}`;
    list.append(make('dt', {}, name), make('dd', {}, text));
  }
}

function bytes(count) {
  const power = Math.min(3, Math.floor(Math.log2(count) / 10));
  return `${Number((count / 1024 ** power).toPrecision(4))} ${['bytes', 'KiB', 'MiB', 'GiB'][power]}`;
}

export function download(name, data, type) {
  const url = URL.createObjectURL(new Blob([data], { type }));
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// A short number.
export function short(x) {
  if (x === null || x === undefined) return 'inf';
  if (x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3)) return x.toExponential(1);
  return String(Number(x.toPrecision(3)));
}
