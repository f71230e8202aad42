// The types: those of the modules themselves, and what a program in TypeScript sees of them.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

const TSC = fileURLToPath(new URL('node_modules/typescript/bin/tsc', import.meta.url));
const KILOBYTE = 1000;

function check(project) {
  const { stdout, status } = spawnSync(process.execPath, [TSC, '-p', fileURLToPath(new URL(project, import.meta.url))], { encoding: 'utf8' });
  assert.deepEqual([stdout, status], ['', 0]);
}

test('the modules are what their types say', () => check('../../web/tsconfig.json'));

test('a program in TypeScript sees the types of rooms and events', () => check('types/tsconfig.json'));

test('the client module has at most 10 KB', (t) => {
  const size = gzipSync(readFileSync(new URL('../../web/client.js', import.meta.url))).length;
  t.diagnostic(`${size} bytes`);
  assert.ok(size <= 10 * KILOBYTE, `${size} bytes`);
});
