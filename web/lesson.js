import { byId, connect, download, fail, make, setState, short } from './app.js';

const DATA = ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'];
const SIDE = 28;
// Steps between two evaluations.
const EVALUATE = 50;

let call, batch;
let training = false;
const losses = [];

function drawLoss() {
  const most = Math.max(...losses, 0.1);
  const step = 100 / Math.max(losses.length - 1, 1);
  const points = losses.map((loss, i) => `${(i * step).toFixed(2)},${(100 - (95 * loss) / most).toFixed(2)}`);
  byId('loss').firstElementChild.setAttribute('points', points.join(' '));
}

async function showFilters() {
  const weights = await call('filters');
  const most = Math.max(...weights.map(Math.abs));
  const filters = [];
  for (let filter = 0; filter < weights.length / 9; filter++) {
    const canvas = make('canvas', { width: 3, height: 3 });
    const context = canvas.getContext('2d');
    for (let i = 0; i < 9; i++) {
      const grey = Math.round(127.5 + (127.5 * weights[filter * 9 + i]) / most);
      context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
      context.fillRect(i % 3, Math.floor(i / 3), 1, 1);
    }
    filters.push(canvas);
  }
  byId('filters').replaceChildren(...filters);
}

async function evaluate() {
  byId('accuracy').textContent = `${(100 * (await call('accuracy'))).toFixed(1)} %`;
  await showFilters();
  await recognize();
}

// Trains until `most` steps or a click.
export async function train(most = Infinity) {
  training = true;
  setState('running');
  byId('train').textContent = 'Pause';
  try {
    await trainSteps(most);
    await evaluate();
  } finally {
    training = false;
    byId('train').textContent = 'Train';
  }
  setState('done');
}

async function trainSteps(most) {
  const clicked = performance.now();
  let seconds = 0;
  for (let steps = 1; training && steps <= most; steps++) {
    const start = performance.now();
    const loss = await call('step');
    seconds += (performance.now() - start) / 1000;
    if (losses.length === 0) byId('first').textContent = `${short((performance.now() - clicked) / 1000)} s`;
    losses.push(loss);
    byId('step').textContent = losses.length;
    byId('value').textContent = short(loss);
    byId('rate').textContent = short((batch * steps) / seconds);
    byId('time').textContent = `${short((1000 * seconds) / steps)} ms`;
    drawLoss();
    if (losses.length % EVALUATE === 0) await evaluate();
  }
}

// The drawn digit as in the data: 20 pixels high or wide, its centre of mass in the middle.
function pixels() {
  const pad = byId('pad');
  const { data } = pad.getContext('2d').getImageData(0, 0, pad.width, pad.height);
  let [left, top, right, bottom] = [pad.width, pad.height, -1, -1];
  let [sum, sumX, sumY] = [0, 0, 0];
  for (let y = 0; y < pad.height; y++) {
    for (let x = 0; x < pad.width; x++) {
      const ink = data[4 * (y * pad.width + x)];
      if (ink === 0) continue;
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
      [sum, sumX, sumY] = [sum + ink, sumX + ink * x, sumY + ink * y];
    }
  }
  if (right < 0) return null;
  const scale = 20 / Math.max(right - left + 1, bottom - top + 1);
  const small = make('canvas', { width: SIDE, height: SIDE }).getContext('2d');
  small.fillRect(0, 0, SIDE, SIDE);
  small.imageSmoothingQuality = 'high';
  small.translate(SIDE / 2 - (scale * sumX) / sum, SIDE / 2 - (scale * sumY) / sum);
  small.scale(scale, scale);
  small.drawImage(pad, 0, 0);
  const shades = small.getImageData(0, 0, SIDE, SIDE).data;
  return Float32Array.from({ length: SIDE * SIDE }, (_, i) => shades[4 * i] / 255);
}

async function recognize() {
  const drawn = pixels();
  const probabilities = drawn ? await call('recognize', drawn) : new Float32Array(10);
  byId('digit').textContent = drawn ? probabilities.indexOf(Math.max(...probabilities)) : '';
  [...byId('bars').children].forEach((bar, i) => (bar.style.height = `${100 * probabilities[i]}%`));
}

function preparePad() {
  const pad = byId('pad');
  const context = pad.getContext('2d', { willReadFrequently: true });
  const clear = () => {
    context.fillStyle = 'black';
    context.fillRect(0, 0, pad.width, pad.height);
  };
  clear();
  Object.assign(context, { strokeStyle: 'white', lineWidth: 22, lineCap: 'round', lineJoin: 'round' });
  const place = (event) => [(event.offsetX * pad.width) / pad.clientWidth, (event.offsetY * pad.height) / pad.clientHeight];
  let drawing = false;
  pad.onpointerdown = (event) => {
    drawing = true;
    pad.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...place(event));
    pad.onpointermove(event);
  };
  pad.onpointermove = (event) => {
    if (!drawing) return;
    context.lineTo(...place(event));
    context.stroke();
  };
  pad.onpointerup = pad.onpointercancel = () => {
    drawing = false;
    recognize().catch(fail);
  };
  byId('clear').onclick = () => {
    clear();
    recognize().catch(fail);
  };
  byId('bars').append(...Array.from({ length: 10 }, () => make('div')));
  byId('labels').append(...Array.from({ length: 10 }, (_, digit) => make('div', {}, `${digit}`)));
}

async function check() {
  byId('check').disabled = true;
  const report = await call('checkStep');
  const verdict = report.passed ? make('dd', { className: 'good' }, 'correct') : make('dd', { className: 'bad' }, 'wrong');
  byId('checked').replaceChildren(
    make('dt', {}, 'the step is'), verdict,
    make('dt', {}, 'kernel calls'), make('dd', {}, `${report.calls}`),
    make('dt', {}, 'numbers compared'), make('dd', {}, report.compared.toLocaleString('en')),
    make('dt', {}, 'largest error, as a share of its bound'), make('dd', {}, short(report.worst?.['share of tolerance'])),
  );
  byId('failure').hidden = !report.failure;
  byId('failure').textContent = report.failure ?? '';
  byId('check').disabled = false;
  return report;
}

// For tests.
window.lesson = { train, check, call: (...args) => call(...args) };

preparePad();
const connected = await connect();
if (connected) {
  try {
    ({ call } = connected);
    byId('message').textContent += '; compiling the kernels ...';
    batch = await call('prepareLesson', DATA.map((name) => new URL(`data/${name}.gz`, location).href));
    byId('message').textContent = `GPU: ${connected.gpu.name}; ${await call('kernels')} kernels are compiled`;
    await showFilters();
    byId('train').onclick = () => (training ? (training = false) : train().catch(fail));
    byId('check').onclick = () => check().catch(fail);
    byId('save').onclick = async () => download('digits.safetensors', await call('weights'), 'application/octet-stream');
    byId('load').onclick = () => byId('file').click();
    byId('file').onchange = async ({ target }) => {
      try {
        await call('load', new Uint8Array(await target.files[0].arrayBuffer()));
        await evaluate();
      } catch (error) {
        byId('message').textContent = String(error.message);
      }
    };
    for (const id of ['train', 'save', 'load', 'check']) byId(id).disabled = false;
    setState('ready');
  } catch (error) {
    fail(error);
  }
}
