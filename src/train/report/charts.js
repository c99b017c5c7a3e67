'use strict';
// Elements, numbers and line charts.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter(child => child != null));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const isNumber = x => typeof x === 'number' && Number.isFinite(x);
const color = i => `var(--c${i % 8})`;

/** A number with at most `digits` significant digits, without exponent if that is short. */
function number(x, digits = 4) {
  if (!isNumber(x)) return '–';
  const size = Math.abs(x);
  if (Number.isInteger(x) && size < 1e15) return grouped(String(x));
  if (size < 1e-4 || size >= 1e7) return x.toExponential(digits - 1).replace(/\.?0+e/, 'e').replace('e+', 'e').replace('-', '−');
  const text = x.toPrecision(digits);
  return grouped(text.includes('e') ? String(Number(text)) : text.includes('.') ? text.replace(/\.?0+$/, '') : text);
}

/** Thin spaces between thousands; a proper minus. */
function grouped(text) {
  const [whole, part] = text.replace('-', '−').split('.');
  const spaced = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, '\u2009') : whole;
  return part ? `${spaced}.${part}` : spaced;
}

const percent = x => isNumber(x) ? `${number(100 * x, 3)} %` : '–';

/** Decimal ticks: multiples of 1, 2 or 5 times a power of ten. */
function linearTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find(f => f * power >= raw * 0.75) ?? 10);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, count) {
  const decades = Math.log10(high / low), ticks = [];
  const factors = decades > 3 || decades > count ? [1] : decades > 1.5 ? [1, 3] : [1, 2, 5];
  const every = Math.max(1, Math.ceil(decades / Math.max(2, count)));
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    if (e % every) continue;
    for (const f of factors) {
      const tick = Number((f * 10 ** e).toPrecision(3));
      if (tick >= low * 0.9999 && tick <= high * 1.0001) ticks.push(tick);
    }
  }
  return ticks.length >= 2 ? ticks : linearTicks(low, high, count);
}

/** The index of the number nearest to x in a sorted array. */
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

/** Positions of labels at least `gap` apart, near the wanted ones, within a range. */
function spread(wanted, gap, low, high) {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b]);
  const at = [...wanted];
  let last = -Infinity;
  for (const i of order) last = at[i] = Math.max(at[i], last + gap, low);
  last = Infinity;
  for (const i of [...order].reverse()) last = at[i] = Math.min(at[i], last - gap, high);
  return at;
}

/**
 * A line chart: a card with a title and buttons.
 *
 * `series`: `{name, color, x, y}`, and optionally `low` and `high` (a band), `faint`, `dash`, `unlabelled`.
 * `options`: `{title, xName, format, log, zero, tools, note}`; `note(x)` is a line about the values at x.
 * Move over it for values; drag for a part of the x axis. With the keyboard: arrows, + and −, 0, L.
 */
function chart(series, { title, xName = 'step', format = number, log = false, zero = false, tools = [], note = () => null }) {
  const card = el('section', { class: 'card chart' });
  const state = { series, log, zoom: null, cursor: null, pointerY: null, drag: null };
  const button = (text, label, action) => el('button', { type: 'button', 'aria-label': `${label}: ${title}`, title: label, onclick: action }, text);
  const logButton = button('log', 'Logarithmic scale', () => { state.log = !state.log; draw(); });
  const resetButton = button('all', 'Show everything', () => { state.zoom = null; draw(); });
  card.append(el('div', { class: 'bar' }, el('h3', {}, title), ...tools, logButton,
    button('−', 'Zoom out', () => zoomBy(2)), button('+', 'Zoom in', () => zoomBy(0.5)), resetButton));
  const picture = svg('svg', { tabindex: 0, role: 'img' });
  const tip = el('div', { class: 'tip', hidden: true, 'aria-live': 'polite' });
  card.append(picture, tip);
  let plot = null;

  /** The whole x range. */
  function extent() {
    const all = state.series.filter(s => s.x.length).flatMap(s => [s.x[0], s.x[s.x.length - 1]]);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    return low === high ? [low - 1, high + 1] : [low, high];
  }

  function zoomBy(factor) {
    const [low, high] = extent(), [a, b] = state.zoom ?? [low, high];
    const middle = state.cursor != null && state.cursor >= a && state.cursor <= b ? state.cursor : (a + b) / 2;
    const width = Math.min(high - low, Math.max((b - a) * factor, (high - low) * 1e-4));
    const from = Math.min(Math.max(middle - (middle - a) / (b - a) * width, low), high - width);
    state.zoom = width >= (high - low) * 0.999 ? null : [from, from + width];
    draw();
  }

  function draw() {
    const shown = state.series.filter(s => s.y.some(isNumber));
    const width = Math.max(240, picture.clientWidth || card.clientWidth - 30 || 600);
    const narrow = width < 480, labelled = shown.filter(s => !s.unlabelled);
    const room = Math.min(26, labelled.length);
    const height = Math.max(narrow ? 220 : 250, Math.min(430, 15 * room + 60));
    picture.setAttribute('height', height);
    picture.setAttribute('viewBox', `0 0 ${width} ${height}`);
    picture.replaceChildren();
    if (!shown.length) {
      picture.append(svg('text', { x: 10, y: 24 }, 'no finite values'));
      plot = null;
      return;
    }
    const [x0, x1] = state.zoom ?? extent();
    // The y range of what is visible, without bands: these may have outliers.
    let low = Infinity, high = -Infinity, positive = Infinity;
    for (const s of shown) s.y.forEach((y, i) => {
      if (!isNumber(y) || s.x[i] < x0 || s.x[i] > x1) return;
      if (s.faint && s.y.length > 20 && i < s.y.length / 100) return;
      low = Math.min(low, y); high = Math.max(high, y);
      if (y > 0) positive = Math.min(positive, y);
    });
    const canLog = positive < Infinity, useLog = state.log && canLog;
    if (low === Infinity) [low, high] = [0, 1];
    if (zero && !useLog) low = Math.min(0, low);
    if (useLog) low = Math.max(low, positive, high * 1e-12);
    if (high - low < 1e-9 * Math.abs(high) || high === low) {
      const spare = Math.abs(high) * 0.1 || 1;
      [low, high] = useLog ? [low * 0.8, high * 1.25] : [low - spare, high + spare];
    } else if (useLog) {
      const spare = (high / low) ** 0.04;
      [low, high] = [low / spare, high * spare];
    } else {
      const spare = (high - low) * 0.04;
      [low, high] = [zero && low === 0 ? 0 : low - spare, high + spare];
    }
    const ticks = (useLog ? logTicks : linearTicks)(low, high, Math.floor((height - 40) / 38));
    const texts = ticks.map(tick => format(tick));
    const left = Math.max(12 + 7 * Math.max(2, ...texts.map(text => text.length)), 10 + 7 * xName.length);
    const longest = Math.max(0, ...labelled.map(s => s.name.length));
    const right = labelled.length ? Math.min(14 + 6.6 * longest, width * (narrow ? 0.3 : 0.34)) : 14;
    const [top, bottom] = [8, height - 24];
    const X = x => left + (x - x0) / (x1 - x0) * (width - left - right);
    const scaled = y => useLog ? Math.log(Math.max(y, low * 1e-3)) : y;
    const Y = y => bottom - (scaled(y) - scaled(low)) / (scaled(high) - scaled(low)) * (bottom - top);
    plot = { left, right: width - right, top, bottom, x0, x1, X, Y, shown, useLog, width, height };

    const clip = `clip${chart.count = (chart.count ?? 0) + 1}`;
    const inside = svg('g', { 'clip-path': `url(#${clip})` });
    picture.append(svg('clipPath', { id: clip }, svg('rect', { x: left, y: top - 4, width: Math.max(1, width - right - left + 4), height: bottom - top + 8 })));
    ticks.forEach((tick, i) => picture.append(
      svg('line', { class: 'rule', x1: left, x2: width - right, y1: Y(tick), y2: Y(tick) }),
      svg('text', { x: left - 6, y: Y(tick) + 4, 'text-anchor': 'end' }, texts[i])));
    for (const tick of linearTicks(x0, x1, Math.floor((width - left - right) / 80))) {
      if (xName === 'epoch' && !Number.isInteger(tick)) continue;
      const text = number(tick), half = 3.5 * text.length;
      // To the right, there may be a note about labels that do not fit.
      if (labelled.length > (bottom - top) / 14 && X(tick) + half > width - right + 4) continue;
      picture.append(svg('text', { x: Math.min(X(tick), width - half), y: bottom + 17, 'text-anchor': 'middle' }, text));
    }
    picture.append(svg('text', { x: 0, y: bottom + 17 }, xName));
    shown.forEach(s => inside.append(...curve(s, plot)));
    picture.append(inside);
    endLabels(labelled, plot, width);
    logButton.hidden = !canLog;
    logButton.setAttribute('aria-pressed', useLog);
    resetButton.disabled = !state.zoom;
    picture.setAttribute('aria-label', `${title}: ${labelled.slice(0, 8).map(s => `${s.name} ${format(lastOf(s, x0, x1)?.y)}`).join(', ')}. ` +
      'Arrow keys show values, plus and minus zoom, 0 shows everything, L changes the scale.');
    drawCursor();
  }

  function curve(s, { X, Y, useLog, shown }) {
    const parts = [], usable = y => isNumber(y) && (!useLog || y > 0);
    if (s.low && s.high) {
      const ends = s.x.map((x, i) => [x, s.low[i], s.high[i]]).filter(([, a, b]) => usable(a) && usable(b));
      const points = [...ends.map(([x, , b]) => `${X(x).toFixed(1)},${Y(b).toFixed(1)}`), ...ends.reverse().map(([x, a]) => `${X(x).toFixed(1)},${Y(a).toFixed(1)}`)];
      parts.push(svg('polygon', { points: points.join(' '), fill: s.color, opacity: 0.16 }));
    }
    let path = '', pen = 'M';
    s.y.forEach((y, i) => {
      if (!usable(y)) { pen = 'M'; return; }
      path += `${pen}${X(s.x[i]).toFixed(1)} ${Y(y).toFixed(1)}`;
      pen = 'L';
    });
    const line = svg('path', { d: path, stroke: s.color, 'stroke-width': s.faint || shown.length > 12 ? 1 : 2, opacity: s.faint ? 0.45 : null, 'stroke-dasharray': s.dash ? '6 4' : null });
    s.line = line;
    parts.push(line);
    if (!s.faint && s.y.length <= 40 && shown.length <= 6) {
      s.y.forEach((y, i) => { if (usable(y)) parts.push(svg('circle', { cx: X(s.x[i]), cy: Y(y), r: s.y.length > 20 ? 2 : 3, fill: s.color })); });
    }
    return parts;
  }

  /** The last point of a series within a range. */
  function lastOf(s, x0, x1) {
    for (let i = s.x.length - 1; i >= 0; i--) if (s.x[i] <= x1 && s.x[i] >= x0 && isNumber(s.y[i])) return { x: s.x[i], y: s.y[i] };
    return null;
  }

  /** Names at the ends of the curves. If there are too many, the rest is named when the pointer is near. */
  function endLabels(labelled, { right, top, bottom, x0, x1, X, Y, useLog }, width) {
    let ends = labelled.map(s => ({ s, end: lastOf(s, x0, x1) })).filter(({ end }) => end && (!useLog || end.y > 0));
    const most = Math.floor((bottom - top) / 14);
    const left = ends.length - most;
    if (left > 0) ends = ends.filter((_, i) => Math.floor(i * most / ends.length) !== Math.floor((i - 1) * most / ends.length));
    const wanted = ends.map(({ end }) => Math.min(bottom, Math.max(top, Y(end.y))));
    const at = spread(wanted, 14, top + 2, bottom);
    const letters = Math.floor((width - right - 12) / 6.6);
    ends.forEach(({ s, end }, i) => {
      const name = s.name.length > letters ? `${s.name.slice(0, Math.max(1, letters - 1))}…` : s.name;
      if (Math.abs(at[i] - wanted[i]) > 3 || X(end.x) < right - 12) {
        picture.append(svg('line', { x1: Math.min(X(end.x) + 3, right), y1: wanted[i], x2: right + 7, y2: at[i], stroke: s.color, opacity: 0.5 }));
      }
      picture.append(svg('text', { x: right + 9, y: at[i] + 4, style: `fill: ${s.color}` }, svg('title', {}, s.name), name));
    });
    if (left > 0) picture.append(svg('text', { x: right + 9, y: bottom + 17 }, `and ${left} more`));
  }

  /** The vertical line at the cursor, and the values there. */
  function drawCursor() {
    picture.querySelectorAll('.at').forEach(node => node.remove());
    if (!plot || state.cursor == null || state.cursor < plot.x0 || state.cursor > plot.x1) { tip.hidden = true; return; }
    const { X, Y, top, bottom, shown, useLog } = plot;
    const reach = (plot.x1 - plot.x0) / 30;
    let rows = shown.map(s => ({ s, i: nearest(s.x, state.cursor) })).map(({ s, i }) => ({ s, x: s.x[i], y: s.y[i], low: s.low?.[i], high: s.high?.[i] }))
      .filter(row => isNumber(row.y) && (Math.abs(row.x - state.cursor) <= reach || row.s.x.length < 40) && row.x >= plot.x0 && row.x <= plot.x1);
    if (!rows.length) { tip.hidden = true; return; }
    const main = rows.reduce((a, b) => Math.abs(b.x - state.cursor) < Math.abs(a.x - state.cursor) ? b : a).x;
    const away = row => state.pointerY == null ? 0 : Math.abs(Y(row.y) - state.pointerY);
    const near = state.pointerY == null ? null : rows.filter(row => !row.s.faint).reduce((a, b) => a && away(a) <= away(b) ? a : b, null);
    if (rows.length > 10) rows = [...rows].sort((a, b) => away(a) - away(b)).slice(0, 10).sort((a, b) => b.y - a.y);
    picture.append(svg('line', { class: 'cursor at', x1: X(main), x2: X(main), y1: top, y2: bottom }));
    for (const row of rows) if (!useLog || row.y > 0) {
      picture.append(svg('circle', { class: 'at', cx: X(row.x), cy: Y(row.y), r: row === near ? 5 : 3.5, fill: row.s.color }));
    }
    if (shown.length > 6) shown.forEach(s => s.line?.classList.toggle('dim', near != null && s !== near.s));
    const value = row => isNumber(row.low) && row.low !== row.high ? `${format(row.y)} (${format(row.low)} to ${format(row.high)})` : format(row.y);
    const other = row => row.x === main ? '' : ` at ${number(row.x)}`;
    tip.replaceChildren(...[el('div', { class: 'soft' }, `${xName} ${number(main)}`), note(main), el('table', {}, ...rows.map(row =>
      el('tr', { class: row === near && rows.length > 1 ? 'near' : null }, el('td', {}, el('span', { class: 'swatch', style: `background: ${row.s.color}` }), row.s.name + other(row)), el('td', { class: 'n' }, value(row)))))].filter(Boolean));
    tip.hidden = false;
    const offset = picture.offsetLeft || picture.getBoundingClientRect().left - card.getBoundingClientRect().left;
    const x = offset + X(main), wide = tip.offsetWidth;
    tip.style.left = `${x + 14 + wide < card.clientWidth ? x + 14 : Math.max(2, x - 14 - wide)}px`;
    tip.style.top = `${picture.getBoundingClientRect().top - card.getBoundingClientRect().top + 6}px`;
  }

  const place = event => {
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) * plot.width / box.width;
    const part = Math.min(1, Math.max(0, (at - plot.left) / (plot.right - plot.left)));
    return { x: plot.x0 + part * (plot.x1 - plot.x0), y: (event.clientY - box.top) * plot.height / box.height };
  };
  picture.addEventListener('pointermove', event => {
    if (!plot) return;
    const { x, y } = place(event);
    [state.cursor, state.pointerY] = [x, y];
    if (state.drag != null) {
      picture.querySelector('.selection')?.remove();
      const [a, b] = [state.drag, x].sort((a, b) => a - b);
      picture.append(svg('rect', { class: 'selection', x: plot.X(a), y: plot.top, width: plot.X(b) - plot.X(a), height: plot.bottom - plot.top }));
    }
    drawCursor();
  });
  picture.addEventListener('pointerdown', event => {
    if (!plot || event.button) return;
    if (event.pointerType === 'mouse') {
      state.drag = place(event).x;
      picture.setPointerCapture(event.pointerId);
    } else {
      [state.cursor, state.pointerY] = [place(event).x, place(event).y];
      drawCursor();
    }
  });
  picture.addEventListener('pointerup', event => {
    if (state.drag == null) return;
    const [a, b] = [state.drag, place(event).x].sort((a, b) => a - b);
    state.drag = null;
    if (plot.X(b) - plot.X(a) > 8) state.zoom = [a, b];
    draw();
  });
  const leave = () => { if (state.drag == null) { state.cursor = state.pointerY = null; plot?.shown.forEach(s => s.line?.classList.remove('dim')); drawCursor(); } };
  picture.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') leave(); });
  picture.addEventListener('blur', leave);
  picture.addEventListener('dblclick', () => { state.zoom = null; draw(); });
  picture.addEventListener('keydown', event => {
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (direction) {
      const s = plot.shown.reduce((a, b) => b.x.length > a.x.length ? b : a);
      const from = state.cursor == null ? (direction > 0 ? -1 : s.x.length) : nearest(s.x, state.cursor);
      state.cursor = s.x[Math.min(s.x.length - 1, Math.max(0, from + direction * (event.shiftKey ? 10 : 1)))];
      state.pointerY = null;
      if (state.zoom && (state.cursor < state.zoom[0] || state.cursor > state.zoom[1])) {
        const shift = state.cursor - (direction > 0 ? state.zoom[1] : state.zoom[0]);
        state.zoom = state.zoom.map(x => x + shift);
        draw();
      } else drawCursor();
    } else if (event.key === '+' || event.key === '=') zoomBy(0.5);
    else if (event.key === '-') zoomBy(2);
    else if (event.key === '0') { state.zoom = null; draw(); }
    else if (event.key === 'Escape') leave();
    else if (event.key.toLowerCase() === 'l') logButton.click();
    else return;
    event.preventDefault();
  });
  // Drawn first when it is on the page, which has set its width then.
  let known = 0;
  const resized = () => { if (card.clientWidth !== known) { known = card.clientWidth; draw(); } };
  new ResizeObserver(() => requestAnimationFrame(resized)).observe(card);
  chart.all.push(resized);
  card.update = series => { state.series = series; draw(); };
  return card;
}

/** Functions that draw the charts of the page. */
chart.all = [];
