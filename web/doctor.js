import { byId, connect, download, fail, make, setState, short, showGpu } from './app.js';

// Upper ends of the histogram's bins, in ulps; one more follows.
const ENDS = ['0', '½', '1', '2', '4', '8', '16', '64', '256', '4k', '>'];

const parameters = new URLSearchParams(location.search);
const seed = Number(parameters.get('seed') ?? 1);

let call, gpu;
let stopped = false;
let report = null;

// A link to this page that runs one case again.
function link(item) {
  const url = new URL(location.href);
  const kept = parameters.has('defaults') ? { defaults: '' } : {};
  url.search = new URLSearchParams({ ...kept, op: item.op, case: item.case, seed });
  return url.href;
}

function showFailure(item, result) {
  byId('failed').hidden = false;
  const details = make('details', {}, make('summary', {}, `${item.op}: ${item.name} `, make('a', { href: link(item) }, 'again')));
  for (const failure of result.failures) {
    const what = [failure.what].flat().filter(Boolean).join('\n');
    const where = failure.kernel ? `${failure.kernel} (${failure.way}): ${failure.wrong} of ${failure.of} wrong\n` : '';
    details.append(make('pre', {}, where + what));
    for (const text of failure.text ?? []) details.append(make('pre', {}, text));
  }
  byId('failures').append(details);
}

function showHistogram(counts) {
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  [...byId('bars').children].forEach((bar, i) => {
    // From one in a hundred million to all.
    const height = counts[i] ? Math.max(0.02, 1 + Math.log10(counts[i] / total) / 8) : 0;
    bar.style.height = `${100 * height}%`;
    bar.title = `${counts[i]} of ${total}`;
  });
}

function showOp(tally) {
  const failed = tally.failed > 0;
  tally.row.replaceChildren(
    make('td', {}, tally.op), make('td', { className: 'minor' }, `${tally.cases}`),
    make('td', { className: 'minor' }, tally.compared.toLocaleString('en')),
    make('td', { className: 'minor' }, short(tally.ulp)), make('td', {}, short(tally.ratio)),
    make('td', { className: failed ? 'bad' : 'good' }, failed ? `${tally.failed} failed` : 'correct'),
  );
}

// Adds a result to its op's row.
function add(ops, item, result) {
  if (!ops.has(item.op)) {
    const tally = { op: item.op, cases: 0, compared: 0, failed: 0, ulp: 0, ratio: 0, row: make('tr') };
    ops.set(item.op, tally);
    byId('ops').append(tally.row);
  }
  const tally = ops.get(item.op);
  tally.cases++;
  tally.compared += result.compared;
  tally.failed += result.passed ? 0 : 1;
  // JSON has no infinity.
  if (result.histogram) tally.ulp = Math.max(tally.ulp, result['most ulp'] ?? Infinity);
  if (result.worst) tally.ratio = Math.max(tally.ratio, result.worst.ratio ?? Infinity);
  showOp(tally);
}

async function run() {
  setState('running');
  stopped = false;
  for (const id of ['ops', 'failures']) byId(id).replaceChildren();
  byId('failed').hidden = true;
  byId('start').disabled = true;
  byId('stop').disabled = false;
  let cases = await call('cases', byId('all').checked || parameters.has('case'));
  if (parameters.has('op')) cases = cases.filter((item) => item.op === parameters.get('op'));
  if (parameters.has('case')) cases = cases.filter((item) => item.case === Number(parameters.get('case')));
  const start = performance.now();
  const ops = new Map();
  const histogram = new Array(ENDS.length).fill(0);
  report = { page: location.href, browser: navigator.userAgent, date: new Date().toISOString(), seed, gpu, cases: [] };
  let [failed, compared] = [0, 0];
  const summarize = (what) => {
    const seconds = Math.round((performance.now() - start) / 1000);
    const verdict = failed ? `${failed} FAILED` : 'all correct';
    byId('summary').textContent = `${what}: ${verdict}; ${ops.size} ops, ${report.cases.length} of ${cases.length} cases, ${compared.toLocaleString('en')} numbers compared, ${seconds} s`;
  };
  for (const item of cases) {
    if (stopped) break;
    summarize(`Checking ${item.op}`);
    const result = await call('check', item.at, seed);
    report.cases.push({ ...item, ...result, link: link(item) });
    result.histogram?.forEach((count, i) => (histogram[i] += count));
    compared += result.compared;
    failed += result.passed ? 0 : 1;
    add(ops, item, result);
    if (!result.passed) showFailure(item, result);
    showHistogram(histogram);
    byId('progress').value = report.cases.length / cases.length;
  }
  Object.assign(report, { compared, failed, histogram, seconds: (performance.now() - start) / 1000 });
  summarize(stopped ? 'Stopped' : 'Done');
  byId('summary').className = failed ? 'bad' : 'good';
  byId('start').disabled = false;
  byId('stop').disabled = true;
  byId('report').disabled = false;
  // For tests.
  window.report = report;
  setState(failed ? 'failed' : 'done');
}

byId('bars').append(...ENDS.map(() => make('div')));
byId('labels').append(...ENDS.map((end) => make('div', {}, end)));
const connected = await connect();
if (connected) {
  ({ call, gpu } = connected);
  showGpu(byId('about'), gpu);
  byId('start').onclick = () => run().catch(fail);
  byId('stop').onclick = () => (stopped = true);
  byId('report').onclick = () => download('wgrad-doctor.json', JSON.stringify(report, null, 1), 'application/json');
  byId('start').disabled = false;
  setState('ready');
  if (parameters.has('case')) run().catch(fail);
}
