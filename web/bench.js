import { byId, connect, fail, make, setState, short } from './app.js';

// Small, medium and large sizes, and the unit of the rate: GFLOP/s counts two operations per multiply-add.
const TASKS = [
  { name: 'matmul', sizes: [256, 1024, 4096], title: (n) => `product of ${n} x ${n} matrices` },
  { name: 'conv2d', sizes: [28, 56, 224], title: (n) => `convolution 3 x 3, 8 x 32 channels of ${n} x ${n}` },
  { name: 'elementwise', sizes: [1 << 16, 1 << 20, 1 << 24], title: (n) => `x tanh(x / 2 + 1), ${n} numbers` },
  { name: 'mlp step', sizes: [32, 128, 1024], title: (n) => `training step, dense network, batch ${n}` },
  { name: 'cnn step', sizes: [8, 32, 256], title: (n) => `training step, digits, batch ${n}` },
];
// Work that the reference, on the CPU, compares in a moment; larger tasks are compared at their small size.
const CHECKED = 3e8;
const SECONDS = 1;

const rate = (task, work, seconds) =>
  task.name === 'elementwise' ? `${short(work / seconds / 1e9)} GB/s` : `${short((2 * work) / seconds / 1e9)} GFLOP/s`;

// The shortest time of a run among rounds of many.
async function fastest(time) {
  let seconds = await time(1);
  const start = performance.now();
  do {
    const runs = Math.max(1, Math.min(200, Math.round(0.2 / seconds)));
    seconds = Math.min(seconds, await time(runs));
  } while (performance.now() - start < 1000 * SECONDS);
  return seconds;
}

async function loadScript(url) {
  await new Promise((resolve, reject) => {
    document.head.append(make('script', { src: url, onload: resolve, onerror: () => reject(new Error(`cannot load ${url}`)) }));
  });
}

// What TensorFlow.js computes for a task, or undefined.
function other(tf, name, n) {
  if (name === 'matmul') {
    const [a, b] = [tf.randomUniform([n, n]), tf.randomUniform([n, n])];
    return () => tf.matMul(a, b);
  }
  if (name === 'conv2d') {
    const [x, w] = [tf.randomUniform([8, n, n, 32]), tf.randomUniform([3, 3, 32, 32])];
    return () => tf.conv2d(x, w, 1, 'same');
  }
  if (name === 'elementwise') {
    const x = tf.randomUniform([n]);
    return () => tf.tidy(() => x.mul(0.5).add(1).tanh().mul(x));
  }
  if (name === 'mlp step') return training(tf, n, [784], []);
  if (name === 'cnn step') {
    const block = (filters, shape) => [
      tf.layers.conv2d({ filters, kernelSize: 3, useBias: false, ...shape }), tf.layers.batchNormalization(),
      tf.layers.activation({ activation: 'relu' }), tf.layers.maxPooling2d({ poolSize: 2 }),
    ];
    return training(tf, n, [28, 28, 1], [...block(16, { inputShape: [28, 28, 1] }), ...block(32), tf.layers.flatten()]);
  }
  return undefined;
}

// A training step with Adam; returns an updated bias. Two dense layers follow the others, as in `crates/wgrad-web/src/bench.rs`.
function training(tf, rows, inputShape, layers) {
  const hidden = layers.length ? { units: 64 } : { units: 256, inputShape };
  const dense = [tf.layers.dense({ ...hidden, activation: 'relu' }), tf.layers.dense({ units: 10 })];
  const model = tf.sequential({ layers: [...layers, ...dense] });
  const x = tf.randomUniform([rows, ...inputShape]);
  const labels = tf.oneHot(tf.range(0, rows, 1, 'int32').mod(tf.scalar(10, 'int32')), 10);
  const optimizer = tf.train.adam(1e-3);
  const loss = () => tf.losses.softmaxCrossEntropy(labels, model.apply(x, { training: true }));
  return () => {
    optimizer.minimize(loss);
    return model.layers.at(-1).getWeights()[1].clone();
  };
}

async function timeOther(tf, compute) {
  return fastest(async (runs) => {
    const start = performance.now();
    for (let run = 0; run < runs; run++) {
      const y = compute();
      if (run === runs - 1) await y.slice(y.shape.map(() => 0), y.shape.map(() => 1)).data();
      y.dispose();
    }
    return (performance.now() - start) / 1000 / runs;
  });
}

async function run(call) {
  setState('running');
  byId('start').disabled = true;
  byId('tasks').replaceChildren();
  if (byId('tfjs').value && !window.tf) {
    await loadScript(byId('tfjs').value);
    if (byId('backend').value) await loadScript(byId('backend').value);
    await window.tf.setBackend('webgpu');
    await window.tf.ready();
  }
  const results = [];
  for (const task of TASKS) {
    const n = task.sizes[byId('size').value];
    const cells = Array.from({ length: 5 }, () => make('td'));
    cells[0].textContent = task.title(n);
    cells[1].className = 'minor';
    byId('tasks').append(make('tr', {}, ...cells));
    let work = await call('prepareBench', task.name, n);
    const whole = work <= CHECKED;
    if (!whole) await call('prepareBench', task.name, task.sizes[0]);
    const compared = await call('verify');
    cells[1].textContent = whole ? `${compared.toLocaleString('en')} numbers` : 'at the small size';
    cells[1].className = 'minor good';
    if (!whole) work = await call('prepareBench', task.name, n);
    const seconds = await fastest((runs) => call('time', runs));
    cells[2].textContent = `${short(1000 * seconds)} ms`;
    cells[3].textContent = rate(task, work, seconds);
    results.push({ task: task.name, size: n, seconds, compared });
    const compute = window.tf && other(window.tf, task.name, n);
    if (compute) cells[4].textContent = `${short(1000 * (await timeOther(window.tf, compute)))} ms`;
  }
  byId('start').disabled = false;
  // For tests.
  window.results = results;
  setState('done');
}

const connected = await connect();
if (connected) {
  byId('start').onclick = () => run(connected.call).catch(fail);
  byId('start').disabled = false;
  setState('ready');
}
