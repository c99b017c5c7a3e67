// Compiles WGSL files with Dawn, Chromium's WebGPU implementation.
//
//   node scripts/dawn.mjs [--null] FILE.wgsl...
//
// Needs the npm package `webgpu` (run this where it is installed) and an adapter that Dawn can open;
// `--null` uses Dawn's null backend, which validates (types, uniformity) but generates no code. Prints
// every refusal, and exits 1 if there is one.
//
// naga accepts subgroup and f16 shaders without `enable`; the standard and Dawn require it, so it is
// added here. A Dawn process crashes after some dozens of pipelines, so each process gets twelve files.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const BATCH = 12;
const args = process.argv.slice(2);
const isNull = args.includes('--null');
const child = args.includes('--child');
const files = args.filter((arg) => !arg.startsWith('--'));

function withEnables(text) {
  const code = text.replace(/\/\/.*$/gm, '');
  const needs = [];
  if (/\bsubgroup[A-Z_]|\bsubgroup_(size|id|invocation_id)\b/.test(code) && !/\benable\s+subgroups\b/.test(code)) needs.push('subgroups');
  if (/\bf16\b/.test(code) && !/\benable\s+f16\b/.test(code)) needs.push('f16');
  return { text: needs.map((name) => `enable ${name};\n`).join('') + text, needs };
}

async function loadDawn() {
  const require = createRequire(join(process.cwd(), 'here.js'));
  const { create, globals } = await import(pathToFileURL(require.resolve('webgpu')).href);
  Object.assign(globalThis, globals);
  return create(isNull ? ['backend=null'] : []);
}

// Compiles the files in this process and prints a JSON line for each.
async function compileAll() {
  const gpu = await loadDawn();
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error('Dawn opens no adapter here');
  const features = ['subgroups', 'shader-f16'].filter((name) => adapter.features.has(name));
  const limits = {};
  for (const name of ['maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX'])
    limits[name] = adapter.limits[name];
  const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits });
  console.log(JSON.stringify({ adapter: `${adapter.info.vendor} ${adapter.info.architecture} ${adapter.info.description}`.trim() }));
  for (const file of files) {
    const { text, needs } = withEnables(readFileSync(file, 'utf8'));
    const lacking = needs.filter((name) => !features.includes(name === 'f16' ? 'shader-f16' : name));
    if (lacking.length) {
      console.log(JSON.stringify({ file, lacking }));
      continue;
    }
    const why = [];
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code: text });
    for (const m of (await module.getCompilationInfo()).messages)
      if (m.type !== 'info') why.push(`${m.type} ${m.lineNum}:${m.linePos} ${m.message}`);
    const scope = await device.popErrorScope();
    if (scope && !why.length) why.push(scope.message);
    // A workgroup may be larger than this adapter supports; that is not an error in the shader.
    if (!why.length) {
      try {
        await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
      } catch (error) {
        why.push(String(error.message ?? error));
      }
    }
    console.log(JSON.stringify({ file, why }));
  }
}

// Whether the error is about a device limit, not the shader.
const isLimit = (text) => /exceeds the maximum|exceeds the limit|larger than the maximum|maxStorageBuffersPerShaderStage/i.test(text);

function parent() {
  const self = fileURLToPath(import.meta.url);
  let adapter = '', accepted = 0;
  const refused = [], lacking = new Map(), limited = [];
  const refuse = (text) => {
    refused.push(text);
    console.log(`REFUSED ${text}`);
  };
  for (let at = 0; at < files.length; at += BATCH) {
    let left = files.slice(at, at + BATCH);
    while (left.length) {
      const run = spawnSync(process.execPath, [self, '--child', ...(isNull ? ['--null'] : []), ...left], { encoding: 'utf8', timeout: 300_000 });
      const lines = run.stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
      const done = lines.filter((line) => line.file);
      adapter = lines.find((line) => line.adapter)?.adapter ?? adapter;
      for (const { file, lacking: names, why } of done) {
        if (names) names.forEach((name) => lacking.set(name, (lacking.get(name) ?? 0) + 1));
        else if (!why.length) accepted += 1;
        else if (why.every(isLimit)) limited.push(`${basename(file)}: ${why[0].split('\n')[0]}`);
        else refuse(`${basename(file)}:\n    ${why.join('\n    ')}`);
      }
      if (!lines.length) {
        console.error(`dawn: ${run.stderr.trim().split('\n').slice(-5).join('\n')}`);
        process.exit(2);
      }
      if (done.length >= left.length) break;
      if (done.length === 0) refuse(`${basename(left[0])}: Dawn ended with ${run.signal ?? run.status}`);
      left = left.slice(Math.max(done.length, 1));
    }
  }
  for (const line of limited) console.log(`beyond this adapter's limits: ${line}`);
  const missing = [...lacking].map(([name, count]) => `, ${count} not tried (the adapter lacks ${name})`).join('');
  console.log(`dawn (${adapter}): ${accepted} accepted, ${refused.length} refused, ${limited.length} beyond the adapter's limits${missing}, of ${files.length}`);
  process.exit(refused.length ? 1 : 0);
}

if (!files.length) {
  console.error('usage: node scripts/dawn.mjs [--null] FILE.wgsl...');
  process.exit(2);
} else if (child) {
  await compileAll();
  process.exit(0);
} else {
  parent();
}
