// The page: what is known about the runs, as charts and tables.

const report = JSON.parse(document.getElementById('data').textContent);
const runs = report.runs, single = runs.length === 1;
const main = document.querySelector('main');
const natural = new Intl.Collator('en', { numeric: true }).compare;

const finalEpoch = run => run.epochs[run.epochs.length - 1];
const bestEpoch = run => run.epochs.find(epoch => epoch.epoch === run.best);
const valueOf = (epoch, name) => (epoch?.validation ?? epoch)?.[name];
const metrics = [...new Set(runs.flatMap(run => run.epochs.flatMap(epoch => Object.keys(epoch.validation ?? {}))))].filter(name => name !== 'loss').sort();

function duration(seconds) {
  if (!isNumber(seconds)) return '–';
  if (seconds < 60) return `${number(seconds, 3)} s`;
  const whole = Math.round(seconds), pad = x => String(x).padStart(2, '0');
  return whole < 3600 ? `${Math.floor(whole / 60)}:${pad(whole % 60)} min` : `${Math.floor(whole / 3600)}:${pad(Math.floor(whole % 3600 / 60))} h`;
}

const seconds = run => run.epochs.reduce((sum, epoch) => sum + (epoch.seconds ?? 0), 0);
const steps = run => run.end?.step ?? run.steps.step[run.steps.step.length - 1] ?? 0;
const status = run => run.end?.ended ?? 'running or killed';

function table(head, rows, attributes = {}) {
  const cell = (tag, value, i) => el(tag, { class: i ? 'n' : null, scope: tag === 'th' ? 'col' : null }, value instanceof Node ? value : String(value ?? '–'));
  return el('table', attributes, el('thead', {}, el('tr', {}, ...head.map((name, i) => cell('th', name, i)))),
    el('tbody', {}, ...rows.map(row => el('tr', { class: row.best ? 'best' : null }, ...row.cells.map((value, i) => cell('td', value, i))))));
}

const section = (title, ...content) => main.append(el('h2', {}, title), ...content);
const runName = (run, i) => el('span', { class: 'run' }, el('span', { class: 'swatch', style: `background: ${color(i)}` }), run.name);
/** A region that scrolls, also with the keyboard. */
const scrolls = (label, ...content) => el('div', { class: 'card scroll', tabindex: 0, role: 'region', 'aria-label': label }, ...content);

// ---- Head

/** Light or dark: `#light` and `#dark` in the address, or the button; else as the system. */
function themeButton() {
  const themes = ['auto', 'light', 'dark'];
  let theme = 'auto';
  try { theme = localStorage.getItem('wgrad-theme') ?? theme; } catch { /* Storage may be off. */ }
  if (themes.includes(location.hash.slice(1))) theme = location.hash.slice(1);
  const button = el('button', { type: 'button', onclick: () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem('wgrad-theme', theme); } catch { /* As above. */ }
    show();
  } });
  const show = () => {
    document.documentElement.style.colorScheme = theme === 'auto' ? '' : theme;
    button.textContent = `Theme: ${theme}`;
  };
  show();
  return button;
}

function head() {
  const title = single ? runs[0].name : `${runs.length} runs`;
  const environment = runs[0].config?.environment ?? {};
  const below = single ? [environment.adapter, environment.driver && `driver ${environment.driver}`] : runs.map(run => run.name);
  const written = new Date(report.written * 1000).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
  main.append(el('header', {}, el('div', {}, el('h1', {}, title), el('p', { class: 'soft' }, below.filter(Boolean).join(' · '))), themeButton()));
  if (single) {
    const run = runs[0], good = ['finished', 'stopped early', 'time budget'].includes(status(run));
    main.append(el('p', {}, el('span', { class: `verdict ${good ? 'good' : run.end ? 'bad' : ''}`, style: run.end ? null : 'background: var(--soft)' }, status(run)),
      run.end?.why && status(run) !== 'failed' ? `${run.end.why}. ` : '', `Written ${written}${run.end ? '' : '; reload for a newer report of a running training'}.`));
    if (status(run) === 'failed') main.append(el('div', { class: 'card failure' }, el('pre', {}, run.end.why ?? '')));
  } else main.append(el('p', { class: 'soft' }, `Written ${written}.`));
  for (const warning of report.warnings) main.append(el('p', { class: 'badtext' }, warning));
}

function figures(run) {
  const last = finalEpoch(run), best = bestEpoch(run), total = run.config?.trainer?.epochs;
  const figure = (name, value) => el('div', { class: 'figure' }, el('span', { class: 'soft' }, name), el('b', {}, value));
  const found = [figure('Epochs', total ? `${run.epochs.length} of ${total}` : run.epochs.length), figure('Optimiser steps', number(steps(run)))];
  const losses = run.steps.mean.filter(isNumber);
  found.push(figure('Training loss', number(last?.loss ?? losses[losses.length - 1])));
  if (last?.validation) found.push(figure('Validation loss', number(last.validation.loss)));
  for (const name of metrics.slice(0, 3)) found.push(figure(name, number(last?.validation?.[name])));
  if (best) found.push(figure(`Best ${best.validation ? run.monitor : 'loss'}, epoch ${best.epoch}`, number(valueOf(best, run.monitor))));
  found.push(figure('Time', duration(seconds(run))));
  main.append(el('div', { class: 'figures' }, ...found));
}

// ---- Curves

/** Exponential moving average, corrected for its start. */
function smoothed(values, weight) {
  let sum = 0, norm = 0;
  return values.map(value => {
    if (!isNumber(value)) return null;
    sum = sum * weight + value * (1 - weight);
    norm = norm * weight + (1 - weight);
    return sum / norm;
  });
}

const byEpoch = (run, of, x = 'step') => {
  const points = run.epochs.map(epoch => [epoch[x], of(epoch)]).filter(([, y]) => isNumber(y));
  return { x: points.map(point => point[0]), y: points.map(point => point[1]) };
};

function lossChart() {
  const series = weight => runs.flatMap((run, i) => {
    const { step, mean, low, high, each } = run.steps, found = [], validation = byEpoch(run, epoch => epoch.validation?.loss);
    if (single) found.push({ name: 'each batch', x: step, y: mean, color: color(0), faint: true, unlabelled: true, ...(each > 1 ? { low, high } : {}) });
    const average = smoothed(mean, weight);
    found.push({ name: single ? 'training' : run.name, x: step, y: average, color: color(i) });
    if (validation.x.length) found.push({ name: single ? 'validation' : `${run.name}, validation`, ...validation, color: single ? color(1) : color(i), dash: !single });
    return found;
  });
  const points = Math.max(...runs.map(run => run.steps.step.length));
  const start = points < 20 ? 0 : Math.min(0.98, 1 - 1 / Math.max(2, points / 60));
  const slider = el('input', { type: 'range', min: 0, max: 0.995, step: 0.005, value: start, 'aria-label': 'Smoothing of the training loss', oninput: () => chartOfLoss.update(series(Number(slider.value))) });
  const chartOfLoss = chart(series(start), { title: 'Loss', tools: [el('label', {}, 'smoothing', slider)] });
  const each = Math.max(...runs.map(run => run.steps.each));
  const what = single ? `Thin: ${each > 1 ? `the mean of ${each} batches in a row, and their range` : 'each batch'}. Thick: their moving average.` : 'Training: moving average. Dashed: validation.';
  section('Curves', chartOfLoss, el('p', { class: 'soft' }, `${what} Point at a chart or touch it for values. To zoom, press + and −, or drag with a mouse; a double click shows everything. Keys: arrows, +, −, 0, L.`));
}

function curves() {
  const perRun = of => runs.map((run, i) => ({ name: single ? '' : run.name, color: color(i), unlabelled: single, ...of(run) })).filter(s => s.x.length).map(s => ({ ...s, name: s.name || 'value' }));
  const charts = [];
  const add = (series, options) => { if (series.length) charts.push(chart(series, options)); };
  for (const name of metrics) add(perRun(run => byEpoch(run, epoch => epoch.validation?.[name], 'epoch')), { title: `Validation: ${name}`, xName: 'epoch' });
  const lr = run => {
    const points = run.steps.step.map((step, i) => [step, run.steps.lr[i]]).filter(([, y]) => isNumber(y));
    return { x: points.map(p => p[0]), y: points.map(p => p[1]) };
  };
  add(perRun(lr), { title: 'Learning rate' });
  add(perRun(run => byEpoch(run, epoch => epoch.rows_per_second, 'epoch')), { title: 'Throughput in rows per second', xName: 'epoch', zero: true });
  add(perRun(run => byEpoch(run, epoch => epoch.waiting, 'epoch')), { title: 'Share of time waiting for data', xName: 'epoch', zero: true, format: percent });
  main.append(el('div', { class: 'grid' }, ...charts));
}

// ---- Gradients and weights

function norms() {
  const watched = runs.map((run, i) => ({ run, i })).filter(({ run }) => run.norms);
  if (!watched.length) return;
  const total = byName => Object.values(byName)[0]?.map((_, at) => Math.hypot(...Object.values(byName).map(column => column[at] ?? NaN)));
  const kinds = [
    ['Norm of the gradient', n => n.gradient], ['Norm of the weights', n => n.weight], ['Norm of the update', n => n.update],
    ['Update relative to the weights', n => Object.fromEntries(Object.entries(n.update).map(([name, column]) => [name, column.map((u, at) => n.weight[name]?.[at] > 0 ? u / n.weight[name][at] : null)]))],
  ];
  const charts = kinds.map(([title, of], kind) => {
    const series = watched.flatMap(({ run, i }) => {
      const n = run.norms;
      if (single) return Object.keys(of(n)).sort(natural).map((name, at) => ({ name, x: n.step, y: of(n)[name], color: color(at) }));
      const [update, weight] = [total(n.update), total(n.weight)];
      return [{ name: run.name, x: n.step, color: color(i), y: kind === 3 ? update.map((u, at) => u / weight[at]) : total(of(n)) }];
    });
    return chart(series, { title, log: true });
  });
  section(single ? 'Gradients and weights by parameter' : 'Gradients and weights, all parameters together',
    el('p', { class: 'soft' }, 'Euclidean norms at watched steps. Gradients are unscaled and not clipped; weights are those before the step.'),
    el('div', { class: 'grid' }, ...charts));
}

/** The histograms of a parameter, one ridge for each epoch, the first at the top. */
function ridges(name, epochs) {
  const found = epochs.map(line => ({ epoch: line.epoch, ...line.parameters[name] })).filter(h => isNumber(h.min) && isNumber(h.max));
  const last = found[found.length - 1];
  const caption = el('figcaption', {}, el('b', {}, name), last ? ` mean ${number(last.mean, 3)}, deviation ${number(last.std, 3)}` : ' no finite numbers');
  if (last?.not_finite) caption.append(el('span', { class: 'badtext' }, ` ${number(last.not_finite)} not finite`));
  if (!last) return el('figure', {}, caption);
  let low = Math.min(...found.map(h => h.min)), high = Math.max(...found.map(h => h.max));
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const [width, gap, tall] = [250, Math.min(22, 120 / found.length), 46], height = tall + gap * (found.length - 1) + 22;
  const X = x => 20 + (x - low) / (high - low) * (width - 26);
  const density = found.map(h => h.bins.map(n => n / h.count / Math.max((h.max - h.min) / h.bins.length, (high - low) / 200)));
  const top = Math.max(...density.flat());
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Histograms of ${name} by epoch` });
  found.forEach((h, i) => {
    const base = tall + gap * i, bin = (h.max - h.min) / h.bins.length;
    const points = density[i].map((d, at) => `${X(h.min + (at + 0.5) * bin).toFixed(1)},${(base - d / top * (tall - 6)).toFixed(1)}`);
    const shape = [`${X(h.min).toFixed(1)},${base}`, ...points, `${X(h.max).toFixed(1)},${base}`].join(' ');
    const text = `epoch ${h.epoch}: ${number(h.min, 3)} to ${number(h.max, 3)}, mean ${number(h.mean, 3)}, deviation ${number(h.std, 3)}`;
    picture.append(svg('polygon', { points: shape, fill: 'var(--card)', stroke: color(0), 'stroke-width': 1.3, style: `fill: color-mix(in srgb, ${color(0)} 22%, var(--card))` }, svg('title', {}, text)));
    if (gap >= 11 || i === 0 || i === found.length - 1) picture.append(svg('text', { x: 0, y: base }, h.epoch));
  });
  const zero = low < 0 && high > 0 ? X(0) : null;
  if (zero) picture.append(svg('line', { x1: zero, x2: zero, y1: 4, y2: height - 18, stroke: 'var(--soft)', 'stroke-dasharray': '2 4' }));
  picture.append(svg('text', { x: 20, y: height - 5 }, number(low, 3)), svg('text', { x: width - 4, y: height - 5, 'text-anchor': 'end' }, number(high, 3)));
  if (zero > 70 && zero < width - 60) picture.append(svg('text', { x: zero, y: height - 5, 'text-anchor': 'middle' }, '0'));
  return el('figure', {}, caption, picture);
}

function histograms() {
  runs.filter(run => run.weights.length).forEach(run => {
    const names = Object.keys(run.weights[run.weights.length - 1].parameters).sort(natural);
    const grid = el('div', { class: 'ridges' });
    const fill = () => { if (!grid.childElementCount) grid.append(...names.map(name => ridges(name, run.weights))); };
    const open = single && names.length <= 24;
    if (open) fill();
    const details = el('details', { open, ontoggle: fill }, el('summary', {}, `${names.length} parameters${single ? '' : ` of ${run.name}`}, one curve for each epoch`), grid);
    section(single ? 'Histograms of the weights' : `Histograms of the weights: ${run.name}`, el('div', { class: 'card' }, details));
  });
}

// ---- Confusion matrix

function matrix({ matrix, classes }) {
  const small = classes > 20, sums = matrix.map(row => row.reduce((a, b) => a + b, 0));
  const cell = (n, label, predicted) => {
    const share = sums[label] ? n / sums[label] : 0, right = label === predicted;
    const strength = n ? Math.max(4, 50 * (right ? share : Math.min(1, 3 * Math.sqrt(share)))) : 0;
    const background = `background: color-mix(in srgb, var(${right ? '--good' : '--bad'}) ${strength.toFixed(0)}%, var(--card))`;
    return el('td', { style: background, title: `label ${label}, predicted ${predicted}: ${n} (${percent(share)})` }, small ? '' : n || '');
  };
  const numbers = [...Array(classes).keys()];
  return el('table', { class: `matrix${small ? ' small' : ''}` },
    el('thead', {}, el('tr', {}, el('th', {}, ''), ...numbers.map(i => el('th', { scope: 'col' }, small && i % 5 ? '' : i)))),
    el('tbody', {}, ...matrix.map((row, label) => el('tr', {}, el('th', { scope: 'row' }, small && label % 5 ? '' : label), ...row.map((n, predicted) => cell(n, label, predicted))))));
}

function confusion(run) {
  if (!run.confusions.length) return;
  const box = el('div', { class: 'card', tabindex: 0, role: 'region', 'aria-label': 'Confusion matrix' }), errors = el('div', { class: 'card scroll', tabindex: 0, role: 'region', 'aria-label': 'Most frequent errors' });
  const show = found => {
    box.hidden = !found.matrix;
    if (found.matrix) box.replaceChildren(matrix(found));
    const list = found.errors.slice(0, found.matrix ? 12 : 50);
    errors.replaceChildren(el('h3', {}, 'Most frequent errors'), list.length ? table(['label', 'predicted', 'rows'], list.map(([n, label, predicted]) => ({ cells: [label, predicted, number(n)] }))) : el('p', {}, 'none'));
  };
  const choice = el('select', { 'aria-label': 'Epoch of the confusion matrix', onchange: () => show(run.confusions[choice.selectedIndex]) },
    ...run.confusions.map(found => el('option', { selected: found === run.confusions[run.confusions.length - 1] }, `epoch ${found.epoch}${found.epoch === run.best ? ' (best)' : ''}`)));
  show(run.confusions[run.confusions.length - 1]);
  section(single ? 'Confusion matrix' : `Confusion matrix: ${run.name}`, el('p', { class: 'soft' }, 'Rows are labels, columns predictions. Colours are shares of a row; those of errors are amplified. ', choice), el('div', { class: 'grid' }, box, errors));
}

// ---- Tables

function epochs(run) {
  if (!run.epochs.length) return;
  const optional = [['lr', 'lr']].filter(([, key]) => run.epochs.some(epoch => isNumber(epoch[key])));
  const validated = run.epochs.some(epoch => epoch.validation), own = validated ? metrics : [];
  const headings = ['epoch', 'step', 'training loss', ...(validated ? ['validation loss'] : []), ...own, ...optional.map(([name]) => name), 'rows/s', 'waiting', 'time'];
  const rows = run.epochs.map(epoch => ({ best: epoch.epoch === run.best, cells: [
    epoch.epoch === run.best ? `${epoch.epoch} best` : epoch.epoch, number(epoch.step), number(epoch.loss), ...(validated ? [number(epoch.validation?.loss)] : []), ...own.map(name => number(epoch.validation?.[name])),
    ...optional.map(([, key]) => number(epoch[key], 3)), number(epoch.rows_per_second, 3), percent(epoch.waiting), duration(epoch.seconds)] }));
  const content = scrolls('Epochs', table(headings, rows));
  if (single) section('Epochs', content); else main.append(el('details', {}, el('summary', {}, `Epochs of ${run.name}`), content));
}

function comparison() {
  const rows = runs.map((run, i) => {
    const last = finalEpoch(run), best = bestEpoch(run);
    const losses = run.epochs.map(epoch => epoch.validation?.loss).filter(isNumber);
    return { cells: [runName(run, i), status(run), run.epochs.length, number(steps(run)), number(last?.loss), number(last?.validation?.loss), losses.length ? number(Math.min(...losses)) : '–',
      ...metrics.map(name => number(last?.validation?.[name])), best ? `${number(valueOf(best, run.monitor))} (${run.monitor}, epoch ${best.epoch})` : '–',
      number(last?.rows_per_second, 3), duration(seconds(run))] };
  });
  section('Results', scrolls('Results', table(['run', 'status', 'epochs', 'steps', 'training loss', 'validation loss', 'least validation loss', ...metrics, 'best', 'rows/s', 'time'], rows)));
}

/** Settings by path: `trainer.clip_norm`. */
function flat(value, path = '', found = {}) {
  if (value && typeof value === 'object' && !Array.isArray(value)) for (const [key, inner] of Object.entries(value)) flat(inner, path ? `${path}.${key}` : key, found);
  else found[path] = Array.isArray(value) ? value.join(path.endsWith('command') ? ' ' : ', ') : value;
  return found;
}

const shown = value => value == null || value === '' ? '–' : typeof value === 'number' ? number(value, 6) : typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
const label = key => key.replace(/^(settings|trainer)\./, '').replace('environment.', '').replace(/_/g, ' ');

function differences() {
  const all = runs.map(run => flat(run.config ?? {})), keys = [...new Set(all.flatMap(Object.keys))];
  const different = keys.filter(key => new Set(all.map(settings => JSON.stringify(settings[key] ?? null))).size > 1);
  const content = different.length ? scrolls('Settings that differ', table(['setting', ...runs.map(runName)], different.map(key => ({ cells: [label(key), ...all.map(settings => shown(settings[key]))] })), { class: 'texts' })) : el('p', {}, 'The runs have the same settings and environment.');
  section('Settings that differ', content);
}

function configuration(run) {
  const { settings = {}, trainer = {}, environment = {} } = run.config ?? {};
  const list = values => el('dl', {}, ...Object.entries(flat(values)).filter(([, value]) => value != null && value !== '').flatMap(([key, value]) => [el('dt', {}, label(key)), el('dd', {}, key === 'command' ? el('code', {}, value) : key.endsWith('seed') || key.startsWith('metadata') ? String(value) : shown(value))]));
  section('Configuration', el('div', { class: 'grid' }, el('div', { class: 'card' }, el('h3', {}, 'Training'), list({ ...settings, ...trainer })), el('div', { class: 'card' }, el('h3', {}, 'Environment'), list(environment))));
}

main.replaceChildren();
head();
if (single) figures(runs[0]); else { comparison(); differences(); }
if (runs.some(run => run.steps.step.length)) { lossChart(); curves(); } else section('Curves', el('p', {}, 'No steps have been logged yet.'));
norms();
histograms();
runs.forEach(confusion);
if (single) worst(runs[0]);
runs.forEach(epochs);
if (single) {
  network(runs[0]);
  step(runs[0]);
  configuration(runs[0]);
}
chart.all.forEach(draw => draw());
