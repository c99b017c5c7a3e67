// Serves the built pages, and tests them in headless Chromium; `scripts/web` calls this. The pages are tested without
// packages: Chromium is controlled by its DevTools protocol over a pipe.
//
//   node scripts/web.mjs serve FOLDER PORT
//   node scripts/web.mjs test FOLDER [PAGE...]
//   node scripts/web.mjs shaders FOLDER MODULE     (compiles WGSL with Dawn: MODULE is index.js of the npm package webgpu)
//   node scripts/web.mjs extract DOCUMENT FOLDER   (writes the files that a document shows)

import { execFileSync, spawn } from 'node:child_process';
import { createReadStream, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, extname, join, normalize } from 'node:path';
import { pathToFileURL } from 'node:url';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };

function serve(folder, port) {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    const file = join(folder, path.endsWith('/') ? `${path}index.html` : path);
    if (!existsSync(file) || !statSync(file).isFile()) return response.writeHead(404).end('not found');
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-store' });
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve(server)));
}

// Chromium, and its protocol: messages that end with a zero byte.
class Browser {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), 'wgrad-web-'));
    const flags = ['--headless', '--no-sandbox', '--enable-unsafe-webgpu', '--remote-debugging-pipe', '--mute-audio'];
    this.process = spawn('chromium', [...flags, `--user-data-dir=${this.profile}`, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    this.waiting = new Map();
    this.handlers = [];
    this.next = 1;
    let rest = '';
    this.process.stdio[4].setEncoding('utf8').on('data', (text) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop();
      messages.map((message) => this.receive(JSON.parse(message)));
    });
  }

  receive({ id, error, result, method, params }) {
    if (id === undefined) return this.handlers.forEach((handle) => handle(method, params));
    const { resolve, reject } = this.waiting.get(id);
    error ? reject(new Error(error.message)) : resolve(result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.next++;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  // A new page; `scheme` is light or dark.
  async open(url, { width = 1000, height = 900, scheme = 'light' } = {}) {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, targetId, sessionId);
    await page.send('Runtime.enable');
    await page.send('Page.enable');
    await page.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
    await page.send('Page.navigate', { url });
    await page.parsed();
    return page;
  }

  close() {
    this.process.kill();
    this.process.once('exit', () => rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 }));
  }
}

class Page {
  constructor(browser, targetId, sessionId) {
    Object.assign(this, { browser, targetId, sessionId });
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  // Waits until the document is there: a new page is still blank.
  async parsed() {
    for (const end = Date.now() + 60e3; Date.now() < end; ) {
      if (await this.run(`location.href !== 'about:blank' && document.readyState !== 'loading'`).catch(() => false)) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error('the page does not load');
  }

  // Loads the page again, with other parameters in its address.
  async load(parameters = '') {
    const url = (await this.run('location.origin + location.pathname')) + parameters;
    await this.run(`document.documentElement.dataset.state = 'left'`);
    await this.send('Page.navigate', { url });
  }

  // The value of an expression, or of its promise.
  async run(expression) {
    const answer = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
    return answer.result.value;
  }

  text(id) {
    return this.run(`document.getElementById('${id}').textContent`);
  }

  // Waits for a state of the page; another end is an error.
  async until(state, seconds) {
    for (const end = Date.now() + 1000 * seconds; Date.now() < end; ) {
      const now = await this.run('document.documentElement?.dataset.state').catch(() => undefined);
      if (now === state) return;
      if (['done', 'failed', 'unsupported'].includes(now)) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`not ${state} after ${seconds} s: ${await this.text('message')} ${await this.run('document.body.innerText.slice(0, 2000)')}`);
  }

  async click(id) {
    await this.run(`document.getElementById('${id}').click()`);
  }

  // Draws a line with the mouse on an element; coordinates are shares of its size.
  async draw(id, points) {
    const { left, top, width, height } = await this.run(
      `(() => { const e = document.getElementById('${id}'); e.scrollIntoView({ block: 'center' }); return e.getBoundingClientRect().toJSON(); })()`,
    );
    const mouse = (type, [x, y]) =>
      this.send('Input.dispatchMouseEvent', { type, x: left + x * width, y: top + y * height, button: 'left', buttons: type === 'mouseReleased' ? 0 : 1, clickCount: 1 });
    await mouse('mousePressed', points[0]);
    for (const point of points) await mouse('mouseMoved', point);
    await mouse('mouseReleased', points.at(-1));
  }

  async picture(file) {
    const { data } = await this.send('Page.captureScreenshot', { captureBeyondViewport: true, format: 'png' });
    writeFileSync(file, Buffer.from(data, 'base64'));
  }
}

// Time for the doctor's quick check.
const DOCTOR_SECONDS = 1800;

const assert = (right, what) => {
  if (!right) throw new Error(what);
};

// The test of each page, by its address without `.html`, in a page that is open on it.
const tests = {
  async index(page) {
    await page.until('done', 30);
    assert((await page.text('about')).includes('storage buffers'), 'no limits are shown');

    const source = `Object.defineProperty(navigator, 'gpu', { value: undefined })`;
    const { identifier } = await page.send('Page.addScriptToEvaluateOnNewDocument', { source });
    await page.load();
    await page.until('unsupported', 30);
    assert((await page.text('message')).includes('localhost'), 'without WebGPU, the page does not say what to do');
    await page.send('Page.removeScriptToEvaluateOnNewDocument', { identifier });
    await page.load();
    await page.until('done', 30);
  },

  async minimal(page) {
    for (let tries = 0; tries < 300 && !(await page.text('result')).includes(' on '); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    console.log(`  ${await page.text('result')}`);
    const learned = JSON.parse((await page.text('result')).split(' on ')[0]);
    assert(learned.length === 4 && learned.every((y, i) => Math.abs(y - [0, 1, 1, 0][i]) < 0.1), 'it does not learn');
  },

  async lesson(page, folder) {
    await page.until('ready', 120);
    console.log(`  ${await page.text('message')}, ${((await page.run('performance.now()')) / 1000).toFixed(1)} s after the page`);
    await page.run('lesson.train(250)');
    const [first, time, rate, accuracy] = await Promise.all(['first', 'time', 'rate', 'accuracy'].map((id) => page.text(id)));
    console.log(`  first step ${first} after the click; ${time} a step, ${rate} images/s, ${accuracy} after 250 steps`);
    assert(parseFloat(first) < 2, `the first step took ${first}`);
    assert(parseFloat(accuracy) > 90, `only ${accuracy} of the test digits are recognised`);

    // A seven and a one.
    for (const [digit, points] of [
      ['7', [[0.25, 0.2], [0.5, 0.2], [0.75, 0.2], [0.65, 0.4], [0.55, 0.6], [0.45, 0.85]]],
      ['1', [[0.52, 0.15], [0.51, 0.4], [0.5, 0.6], [0.5, 0.85]]],
    ]) {
      await page.click('clear');
      await page.draw('pad', points);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const read = await page.text('digit');
      assert(read === digit, `a drawn ${digit} was taken for ${read}`);
    }
    console.log('  drawn digits are recognised');

    const report = await page.run('lesson.check()');
    assert(report.passed && report.compared > 1e6, `a step differs from the reference: ${report.failure}`);
    console.log(`  a step agrees with the reference: ${report.calls} kernel calls, ${report.compared} numbers`);
    await page.picture(join(folder, '../pictures/lesson-trained.png'));

    // Native wgrad computes the same from the saved weights: with the limits that all browsers guarantee, the kernels
    // are the same, and so is every bit.
    const weights = join(folder, '../lesson.safetensors');
    const bytes = await page.run(`lesson.call('weights').then((bytes) => bytes.toBase64())`);
    writeFileSync(weights, Buffer.from(bytes, 'base64'));
    const most = await differenceFromNative(page, weights);
    assert(most < 1e-5, `native predictions differ by ${most}`);
    await page.load('?defaults');
    await page.until('ready', 120);
    await page.run(`lesson.call('load', Uint8Array.fromBase64('${bytes}'))`);
    const withDefaults = await differenceFromNative(page, weights, '--defaults');
    assert(withDefaults === 0, `with the default limits, native predictions differ by ${withDefaults}`);
    console.log(`  native wgrad predicts the same from the saved weights: the same bits with the default limits, else within ${most.toExponential(1)}`);

    // The GPU is gone.
    await page.browser.send('Browser.crashGpuProcess');
    await page.click('train');
    await page.until('failed', 30);
    assert((await page.text('message')).includes('device was lost'), await page.text('message'));
    await page.load();
    await page.until('ready', 120);
  },

  async doctor(page, folder) {
    await page.until('ready', 30);
    await page.click('start');
    for (const end = Date.now() + 1000 * DOCTOR_SECONDS; Date.now() < end; ) {
      if ((await page.run('document.documentElement.dataset.state')) !== 'running') break;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    console.log(`  ${await page.text('summary')}`);
    writeFileSync(join(folder, '../doctor.json'), await page.run('JSON.stringify(report, null, 1)'));
    const failures = await page.run('report.cases.filter((c) => !c.passed).map((c) => `${c.op} ${c.case}: ${JSON.stringify(c.failures.map((f) => [f.kernel, f.way, f.what]))}`)');
    assert(failures.length === 0, failures.join('\n').slice(0, 4000));
    assert(await page.run('report.compared > 5e5 && report.cases.length > 200'), 'too little was compared');

    // The link of a case repeats it.
    const link = await page.run('report.cases.find((c) => c.op === "matmul" && c.backward).link');
    await page.load(new URL(link).search);
    await page.until('done', 60);
    const [again, ...others] = await page.run('report.cases.map((c) => [c.op, c.compared, c.link])');
    assert(again[0] === 'matmul' && again[1] > 0 && again[2] === link && !others.length, `repeated: ${again}`);
  },

  async 'doctor?defaults'(page, folder) {
    await page.until('ready', 30);
    assert(/storage buffers\s*8\n/.test(await page.run('document.body.innerText')), 'these are not the default limits');
    await tests.doctor(page, folder);
  },

  async bench(page) {
    await page.until('ready', 30);
    await page.run(`document.getElementById('size').value = '0'`);
    await page.click('start');
    await page.until('done', 300);
    const results = await page.run('results');
    assert(results.length === 5, 'tasks are missing');
    for (const { task, size, seconds } of results) console.log(`  ${task} ${size}: ${(1000 * seconds).toPrecision(3)} ms`);
  },
};

// The largest difference between probabilities of this page and of native wgrad with the same weights.
async function differenceFromNative(page, weights, ...options) {
  const count = 50;
  const here = await page.run(`(async () => {
    const rows = [];
    for (let i = 0; i < ${count}; i++) rows.push([...await lesson.call('recognize', (await lesson.call('testDigit', i)).slice(1))]);
    return rows;
  })()`);
  const command = ['run', '--release', '-q', '-p', 'wgrad-web', '--example', 'recognize', '--', weights, 'examples/data/mnist10k', `${count}`];
  const printed = execFileSync('cargo', [...command, ...options], { encoding: 'utf8', env: nativeEnvironment() });
  const there = printed.trim().split('\n').map((line) => line.split(' ').map(Number));
  assert(here.length === count && there.length === count && there.every((row) => row.length === 10), 'predictions are missing');
  // Numbers are printed so that they read as the same f32.
  const differences = here.flatMap((row, i) => row.map((x, j) => Math.abs(x - Math.fround(there[i][j]))));
  return differences.some(Number.isNaN) ? NaN : Math.max(...differences);
}

// For programs on this machine: SwiftShader, as in Chromium, if it is there.
function nativeEnvironment() {
  const swiftshader = '/usr/lib/chromium/vk_swiftshader_icd.json';
  return existsSync(swiftshader) ? { ...process.env, VK_ICD_FILENAMES: swiftshader } : process.env;
}

async function test(folder, names) {
  const server = await serve(folder, 0);
  const address = `http://127.0.0.1:${server.address().port}`;
  const pictures = join(folder, '../pictures');
  mkdirSync(pictures, { recursive: true });
  const browser = new Browser();
  let failed = 0;
  for (const name of names) {
    console.log(name);
    const page = await browser.open(`${address}/${name === 'minimal' ? 'minimal/' : name.replace(/^\w+/, '$&.html')}`);
    try {
      await tests[name](page, folder);
    } catch (error) {
      failed++;
      console.log(`  FAILED: ${error.message}`);
    }
    const picture = join(pictures, name.replace('?', '-'));
    await page.picture(`${picture}.png`);
    await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    await page.send('Emulation.setDeviceMetricsOverride', { width: 390, height: 844, deviceScaleFactor: 1, mobile: true });
    await page.picture(`${picture}-phone.png`);
    const overflow = await page.run('document.documentElement.scrollWidth - innerWidth');
    if (overflow > 0) {
      failed++;
      console.log(`  FAILED: ${overflow} pixels too wide for a phone`);
    }
    await browser.send('Target.closeTarget', { targetId: page.targetId });
  }
  browser.close();
  server.close();
  console.log(failed ? `${failed} FAILED` : 'all pages passed');
  process.exitCode = failed ? 1 : 0;
}

// Compiles the WGSL files of a folder with Dawn, which is Chromium's WebGPU and stricter than wgpu. No GPU is needed.
// Cooperative matrices are an extension of wgpu, so their kernels are left out.
async function shaders(folder, module) {
  const { create, globals } = await import(pathToFileURL(module));
  Object.assign(globalThis, globals);
  const gpu = create(['backend=null']); // must not be collected
  const adapter = await gpu.requestAdapter();
  const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups'] });
  const errorOf = async (code) => {
    device.pushErrorScope('validation');
    // wgpu has no directive for subgroups.
    device.createShaderModule({ code: code.includes('subgroup') ? `enable subgroups; ${code}` : code });
    return (await device.popErrorScope())?.message;
  };
  const wrong = `@compute @workgroup_size(8)
    fn main(@builtin(local_invocation_index) i: u32) { if (i > 3u) { workgroupBarrier(); } }`;
  assert((await errorOf(wrong))?.includes('uniform control flow'), 'Dawn does not find an error');
  const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl'));
  const texts = files.map((name) => [name, readFileSync(join(folder, name), 'utf8')]);
  const plain = texts.filter(([, code]) => !code.includes('enable wgpu_cooperative_matrix'));
  let failed = 0;
  for (const [name, code] of plain) {
    const error = await errorOf(code);
    if (error) console.log(`  ${name}: ${error}`);
    failed += error ? 1 : 0;
  }
  console.log(`${plain.length} shaders, ${failed} rejected by Dawn`);
  process.exit(failed || plain.length < 1000 ? 1 : 0);
}

// Writes the files that a document shows: blocks of code after a line that begins with a file's name.
function extract(document, folder) {
  for (const [, name, text] of readFileSync(document, 'utf8').matchAll(/^`([\w./]+)`[^\n]*:\n\n```[^\n]*\n([^]*?)```/gm)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
}

const [what, folder, ...rest] = process.argv.slice(2);
if (what === 'extract') {
  extract(folder, rest[0]);
} else if (what === 'shaders') {
  await shaders(folder, rest[0]);
} else if (what === 'serve') {
  await serve(folder, Number(rest[0]));
  console.log(`http://localhost:${rest[0]}`);
} else {
  await test(folder, rest.length ? rest : Object.keys(tests));
}
