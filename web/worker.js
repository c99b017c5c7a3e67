// Runs wgrad, so that the page stays responsive. A message is the name of a call and its arguments; the answer is the
// result or the error. Calls run one after the other.

import init, { Bench, Doctor, Gpu, Lesson } from './pkg/wgrad_web.js';

let gpu, doctor, lesson, bench;

const calls = {
  // The GPU; with `defaults`, limited to what every browser guarantees.
  async open(defaults) {
    await init();
    gpu = await Gpu.open(defaults);
    return gpu.about();
  },
  kernels: () => gpu.kernels(),

  cases: (all) => (doctor ??= new Doctor()).list(all),
  check: (at, seed) => (doctor ??= new Doctor()).check(gpu, at, seed),

  async prepareLesson(urls) {
    const files = await Promise.all(urls.map(fetchBytes));
    lesson?.free();
    lesson = await Lesson.open(gpu, ...files);
    return lesson.batch_size();
  },
  step: () => lesson.step(),
  accuracy: () => lesson.accuracy(),
  filters: () => lesson.filters(),
  recognize: (pixels) => lesson.recognize(pixels),
  testDigit: (number) => lesson.test_digit(number),
  checkStep: () => lesson.check(),
  weights: () => lesson.weights(),
  load: (bytes) => lesson.load(bytes),

  async prepareBench(name, size) {
    bench?.free();
    bench = await Bench.open(gpu, name, size);
    return bench.work();
  },
  verify: () => bench.verify(),
  // Seconds per run.
  async time(runs) {
    const start = performance.now();
    await bench.run(runs);
    return (performance.now() - start) / 1000 / runs;
  },
};

async function fetchBytes(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

// A panic, which is a bug, ends the module; the page shows its message.
const { error: log } = console;
console.error = (...texts) => {
  log(...texts);
  postMessage({ panic: texts.join(' ') });
};

let last = Promise.resolve();

onmessage = ({ data: { id, name, args } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, result: await calls[name](...args) });
    } catch (error) {
      postMessage({ id, error: String(error?.message ?? error) });
    }
  });
};
