// What the training step consists of: layers, kernel calls, memory, profile; and the worst predictions.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
/** The power of 1024 of the unit that suits a number of bytes. */
const unitOf = x => Math.min(4, Math.floor(Math.log2(Math.max(1, Math.abs(x))) / 10));
const bytes = x => isNumber(x) ? `${number(x / 1024 ** unitOf(x), 3)} ${UNITS[unitOf(x)]}` : '–';

/** A number with a decimal prefix: 1.81 G. */
function scaled(x, unit = '') {
  if (!isNumber(x)) return '–';
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, Math.abs(x))) / 3));
  return `${number(x / 1000 ** power, 3)} ${['', 'k', 'M', 'G', 'T'][power]}${unit}`.trim();
}

function shortTime(seconds) {
  if (!isNumber(seconds)) return '–';
  return seconds < 1e-3 ? `${number(seconds * 1e6, 3)} µs` : seconds < 1 ? `${number(seconds * 1e3, 3)} ms` : `${number(seconds, 3)} s`;
}

// ---- Layers

/** For each connection of rows that are not neighbours, the lane in which it is drawn; long ones are outside. */
function lanes(connections) {
  const ends = [];
  const placed = new Map();
  for (const edge of [...connections].sort((a, b) => (a.to - a.from) - (b.to - b.from) || a.from - b.from)) {
    let lane = ends.findIndex(taken => taken.every(other => other.to <= edge.from || other.from >= edge.to));
    if (lane < 0) lane = ends.push([]) - 1;
    ends[lane].push(edge);
    placed.set(edge, lane);
  }
  return { placed, count: ends.length };
}

/** The network: a table of its layers, with the connections between them drawn at its left edge. */
function network(run) {
  const known = run.description?.layers;
  if (!known?.rows.length) return;
  const edges = known.rows.flatMap((row, to) => [...new Set(row.inputs)].map(from => ({ from, to })));
  const { placed, count } = lanes(edges.filter(({ from, to }) => to - from > 1));
  const gap = Math.max(4, Math.min(11, 110 / Math.max(1, count))), width = 16 + gap * count;
  const space = () => el('span', { class: 'gutter', style: `width: ${width}px` });
  const rows = known.rows.map(row => ({ cells: [
    el('span', {}, space(), row.layer || '–'), row.ops.slice(0, 4).join(', ') + (row.ops.length > 4 ? ', …' : '') || 'view', row.output,
    row.parameters ? number(row.parameters) : '', row.other_variables ? number(row.other_variables) : '', row.multiply_adds ? scaled(row.multiply_adds) : '', row.kept_bytes ? bytes(row.kept_bytes) : ''] }));
  const listed = table(['layer', 'ops', 'output', 'parameters', 'not trained', 'multiply-adds', 'kept for the backward pass'], rows, { class: 'layers' });
  const picture = svg('svg', { class: 'edges', width, 'aria-hidden': 'true' });
  const box = scrolls('Layers', el('div', { class: 'drawn' }, listed, picture));
  const dot = width - 9;
  function draw() {
    const lines = [...listed.querySelectorAll('tbody tr')], y = i => lines[i].offsetTop + lines[i].offsetHeight / 2;
    if (!lines.length || !lines[0].offsetHeight) return;
    picture.setAttribute('height', listed.offsetHeight);
    picture.replaceChildren(...edges.map(edge => {
      const { from, to } = edge, lane = placed.get(edge);
      if (lane == null) return svg('path', { d: `M${dot} ${y(from)}V${y(to)}` });
      const x = dot - 9 - gap * lane, round = Math.min(6, (y(to) - y(from)) / 2);
      return svg('path', { d: `M${dot} ${y(from)}H${x + round}Q${x} ${y(from)} ${x} ${y(from) + round}V${y(to) - round}Q${x} ${y(to)} ${x + round} ${y(to)}H${dot}` });
    }), ...lines.map((_, i) => svg('circle', { cx: dot, cy: y(i), r: 3.5, class: known.rows[i].ops[0] === 'input' ? 'input' : null })));
  }
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(listed);
  section('Network', el('p', { class: 'soft' }, `${number(known.parameters)} parameters. With a batch of ${number(run.description.rows)} rows, the forward pass has ${scaled(known.multiply_adds)} multiply-adds, and training keeps ${bytes(known.kept_bytes)} of activations. Lines at the left connect a layer with those that read it.`), box);
}

// ---- Kernel calls, memory, profile

/** Sums by a key, largest first: `[key, sum, count]`. */
function sums(items, key, value) {
  const found = new Map();
  for (const [i, item] of items.entries()) {
    const entry = found.get(key(item)) ?? [0, 0];
    found.set(key(item), [entry[0] + value(item, i), entry[1] + 1]);
  }
  return [...found].map(([name, [sum, count]]) => [name, sum, count]).sort((a, b) => b[1] - a[1]);
}

/** The kernel calls of a step side by side, as wide as their times, or equally wide; colours are ops. */
function strip(calls, seconds) {
  const weight = i => seconds ? seconds[i] ?? 0 : 1;
  const ops = sums(calls, call => call.op, (_, i) => weight(i)), total = ops.reduce((sum, op) => sum + op[1], 0) || 1;
  const shown = ops.slice(0, 7).map(op => op[0]), colorOf = op => color(shown.includes(op) ? shown.indexOf(op) : 7);
  const width = 1000, height = 44;
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `Kernel calls of a step: ${ops.slice(0, 7).map(([op, sum]) => `${op} ${percent(sum / total)}`).join(', ')}` });
  let x = 0;
  calls.forEach((call, i) => {
    const wide = weight(i) / total * width;
    const text = `${i}: ${call.label} → ${call.writes}${call.layer ? `, ${call.layer}` : ''}${seconds ? `, ${shortTime(seconds[i])}` : ''}`;
    picture.append(svg('rect', { x, y: 0, width: Math.max(0.4, wide - (wide > 3 ? 1 : 0)), height, style: `fill: ${colorOf(call.op)}` }, svg('title', {}, text)));
    x += wide;
  });
  const legend = ops.slice(0, 7).map(([op, sum, count]) => el('span', {}, el('span', { class: 'swatch', style: `background: ${colorOf(op)}` }), `${op} ${seconds ? percent(sum / total) : `× ${count}`}`));
  if (ops.length > 7) legend.push(el('span', {}, el('span', { class: 'swatch', style: `background: ${color(7)}` }), 'others'));
  return el('div', { class: 'strip' }, picture, el('p', { class: 'legend' }, ...legend));
}

function step(run) {
  const { calls, memory, profile } = run.description ?? {};
  if (!calls?.length) return;
  const seconds = profile?.seconds.length === calls.length ? profile.seconds : null, total = seconds?.reduce((a, b) => a + b, 0);
  const dispatches = calls.reduce((sum, call) => sum + call.dispatches, 0);
  const intro = `A step with a batch of ${number(run.description.rows)} rows makes ${number(calls.length)} kernel calls, ${number(dispatches)} dispatches. `;
  const timed = seconds ? `They take ${shortTime(total)}, timed one by one ${profile.timestamps ? 'with timestamps of the device' : 'as submissions of their own, which adds some tens of microseconds to each'}; on the host, a step takes ${shortTime(profile.upload)} to check and upload, ${shortTime(profile.submit)} to record and submit, and ${shortTime(profile.readback)} to wait and read back.` : 'To see their times, call Trainer::profile before fit.';
  const peak = calls[memory.peak], unit = unitOf(Math.max(...memory.live));
  const chartOfMemory = chart([{ name: 'intermediate values', color: color(0), x: memory.live.map((_, i) => i), y: memory.live.map(size => size / 1024 ** unit), unlabelled: true }],
    { title: `Live intermediate values in ${UNITS[unit]}`, xName: 'call', zero: true, note: i => calls[i] && `${calls[i].label}${calls[i].layer ? ` (${calls[i].layer})` : ''}` });
  const others = [['intermediate values', memory.temporary], ['variables', memory.variables], ['inputs', memory.inputs], ['constants', memory.constants]];
  const buffers = el('section', { class: 'card' }, el('h3', {}, 'Buffers'), table(['for', 'bytes'], others.map(([name, size]) => ({ cells: [name, bytes(size)] }))),
    el('h3', { class: 'next' }, `Largest values at call ${memory.peak}, where the step needs most`), el('p', { class: 'soft' }, peak?.label ?? ''),
    table(['value', 'from call', 'to call', 'size'], memory.largest.map(value => ({ cells: [`${value.what} ${value.type}`, value.first, value.last === calls.length ? 'end' : value.last, bytes(value.bytes)] }))));
  const rates = seconds ? ['time', 'share', 'GB/s', 'GFLOP/s'] : [];
  const rows = calls.map((call, i) => ({ cells: [`${i}  ${call.label}`, call.writes, call.layer || '–', call.line, ...(seconds ? [shortTime(seconds[i]), percent(seconds[i] / total), number(call.bytes / seconds[i] / 1e9, 3), call.flops ? number(call.flops / seconds[i] / 1e9, 3) : ''] : [bytes(call.bytes)])] }));
  const all = el('details', {}, el('summary', {}, `${number(calls.length)} kernel calls`), scrolls('Kernel calls', table(['kernel call', 'writes', 'layer', 'line', ...rates, ...(seconds ? [] : ['read and written'])], rows, { class: 'calls' })));
  const by = (title, key) => el('section', { class: 'card' }, table([title, 'time', 'share', 'calls'], sums(calls, key, (_, i) => seconds[i]).slice(0, 12).map(([name, sum, count]) => ({ cells: [name || 'none or several', shortTime(sum), percent(sum / total), count] }))));
  section('Training step', el('p', { class: 'soft' }, intro + timed), el('div', { class: 'card' }, strip(calls, seconds), all),
    ...(seconds ? [el('div', { class: 'grid' }, by('op', call => call.op), by('layer', call => call.layer))] : []), el('div', { class: 'grid' }, chartOfMemory, buffers));
}

// ---- Worst predictions

function image({ width, height, channels, pixels }, label) {
  const picture = el('canvas', { width, height, role: 'img', 'aria-label': label });
  const context = picture.getContext('2d'), data = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const channel = c => parseInt(pixels.substr(2 * (i * channels + c), 2), 16);
    data.data.set(channels === 1 ? [channel(0), channel(0), channel(0), 255] : [channel(0), channel(1), channel(2), channels === 4 ? channel(3) : 255], 4 * i);
  }
  context.putImageData(data, 0, 0);
  return picture;
}

function worst(run) {
  if (!run.worst?.rows?.length) return;
  const { epoch, measure, rows } = run.worst;
  const list = values => values.map(x => number(x, 3)).join(', ');
  const share = p => isNumber(p) ? ` (${percent(p)})` : '';
  const pictures = rows.every(row => row.input?.pixels);
  const text = row => `label ${list(row.target)}${share(row.target_probability)}, predicted ${list(row.predicted)}${share(row.probability)}`;
  const content = pictures ? el('div', { class: 'card pictures' }, ...rows.map(row => el('figure', {}, image(row.input, `Row ${row.row}: ${text(row)}`),
    el('figcaption', {}, el('b', {}, `${list(row.target)} → ${list(row.predicted)}`), share(row.probability), el('br'), el('span', { class: 'soft' }, `row ${row.row}, ${number(row.error, 3)}`)))))
    : scrolls('Worst predictions', table(['row', measure, 'target', 'predicted', 'input'], rows.map(row => ({ cells: [row.row, number(row.error), list(row.target) + share(row.target_probability), list(row.predicted) + share(row.probability),
      row.input?.numbers ? list(row.input.numbers) + (row.input.of > row.input.numbers.length ? ', …' : '') : ''] }))));
  section('Worst predictions', el('p', { class: 'soft' }, `The validation rows with the largest ${measure} after epoch ${epoch}${pictures ? ': label → prediction, with the probability of the prediction' : ''}.`), content);
}
