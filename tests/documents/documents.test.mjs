// The documents that describe both ports: what public validators say of them, and whether the server keeps to them.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { Parser } from '@asyncapi/parser';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import Ajv from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import openapiTS, { astToString } from 'openapi-typescript';
import { Browser } from '../clients/support/browsers.mjs';
import { recordedFarm } from '../clients/support/farm.mjs';
import { EVERY_EVENT, request, Server } from '../clients/support/server.mjs';
import { within } from '../clients/support/wait.mjs';

const io = createRequire(new URL('../clients/', import.meta.url))('socket.io-client-2.5.0');
const TOKEN = 'a-token-of-the-manager';
const HERE = new URL('.', import.meta.url);

let server, texts, openapi, asyncapi;

before(async () => {
  const tokens = fileURLToPath(new URL('node_modules/.token', HERE));
  writeFileSync(tokens, TOKEN, { mode: 0o600 });
  server = await Server.start({ args: [...EVERY_EVENT, '--manager-token-file', tokens, '--max-body', '100000'], token: TOKEN });
  // Without the token.
  const get = async (name) => (await request(new URL(`/api/${name}.json`, server.manager))).text;
  texts = { openapi: await get('openapi'), asyncapi: await get('asyncapi') };
  openapi = JSON.parse(texts.openapi);
  asyncapi = JSON.parse(texts.asyncapi);
});
after(() => server.stop());

/** Asks the Manager's port, with the token unless `headers` say otherwise. */
const ask = (path, { headers, ...more } = {}) =>
  request(new URL(path, server.manager), { headers: { authorization: `Bearer ${TOKEN}`, ...headers }, ...more });

/** A validator of the JSON Schemas in `document`: `check(pointer, value)`. */
function checker(document) {
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats(ajv);
  ajv.addSchema(document, 'doc:');
  return (pointer, value) => {
    const validate = ajv.getSchema(`doc:#${pointer}`) ?? ajv.compile({ $ref: `doc:#${pointer}` });
    assert.ok(validate(value), `${pointer}: ${JSON.stringify(value).slice(0, 500)}: ${ajv.errorsText(validate.errors)}`);
  };
}

const pointer = (...steps) => steps.map((step) => `/${step.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');

function brokenJobs() {
  const job = recordedFarm().find(({ type }) => type === 'job-update').payload;
  return [{ ...job, id: 7 }, { ...job, priority: 'high' }, { ...job, updated: undefined }];
}

test('a validator of OpenAPI finds no fault', async () => {
  const rules = ['struct', 'no-unresolved-refs', 'no-invalid-media-type-examples', 'no-invalid-schema-examples', 'no-unused-components',
    'operation-operationId-unique', 'operation-summary', 'operation-2xx-response', 'path-params-defined', 'security-defined'];
  const config = await createConfig({ extends: [], rules: Object.fromEntries(rules.map((rule) => [rule, 'error'])) });
  const lint = async (source) => (await lintFromString({ source, config })).map(({ message, location: [{ pointer }] }) => `${pointer}: ${message}`);
  // Labels of the other document are of no use in this one.
  const unused = (problem) => !/^#\/components\/schemas\/\w+: .*never used/.test(problem);
  assert.deepEqual((await lint(texts.openapi)).filter(unused), []);
  assert.notDeepEqual(await lint(texts.openapi.replace('"responses"', '"answers"')), [], 'it finds a fault');
});

test('a validator of AsyncAPI finds no fault', async () => {
  const validate = async (text) => (await new Parser().validate(text)).filter(({ severity }) => severity === 0).map(({ path, message }) => `${path.join('/')}: ${message}`);
  assert.deepEqual(await validate(texts.asyncapi), []);
  assert.notDeepEqual(await validate(texts.asyncapi.replace('"action":"send"', '"action":"shout"')), [], 'it finds a fault');
});

test('what a Manager published is as described', () => {
  const check = checker(openapi);
  const events = recordedFarm();
  assert.ok(events.length > 400);
  for (const { type, payload } of events) check('/components/schemas/Event', { type, payload });
  for (const payload of brokenJobs()) {
    assert.throws(() => check('/components/schemas/Event', { type: 'job-update', payload }), /components\/schemas\/Event/);
  }
  for (const [name, { examples = [] }] of Object.entries(openapi.components.schemas)) {
    for (const example of examples) check(pointer('components', 'schemas', name), example);
  }
});

test('browsers receive, send and are answered what is described', async (t) => {
  const check = checker(asyncapi);
  const messages = Object.entries(asyncapi.components.messages);
  for (const [name, { examples }] of messages) {
    for (const { payload } of examples) check(pointer('components', 'messages', name, 'payload'), payload);
  }
  const browser = new Browser(io(server.browsers.origin, { transports: ['websocket'], forceNew: true }), []);
  t.after(() => browser.close());
  await browser.connected();
  const events = recordedFarm();
  const ids = (of) => [...new Set(events.flatMap(({ payload }) => payload[of] ?? []))];
  const rooms = [
    ...asyncapi.components.schemas.Subscription.properties.type.enum.filter((type) => type.startsWith('all')).map((type) => ({ type })),
    ...ids('job_id').map((uuid) => ({ type: 'job', uuid })), ...ids('task_id').map((uuid) => ({ type: 'tasklog', uuid })),
  ];
  const answers = [];
  for (const room of rooms) {
    const argument = { op: 'subscribe', ...room };
    check('/components/messages/subscription/payload', argument);
    answers.push(...(await browser.ask('/subscription', argument)));
  }
  assert.deepEqual(new Set(answers), new Set(['ok']));
  check('/components/messages/subscriptionAnswer/payload', answers[0]);
  check('/components/messages/chatAnswer/payload', (await browser.ask('/chat', { name: 'Ada', text: 'hello' }))[0]);
  for (const { type, payload } of events) await server.publish({ type, payload });
  await server.settle(browser);
  const heard = browser.take();
  for (const [event, payload] of heard) {
    const [name] = messages.find(([, message]) => message.name === event) ?? [];
    assert.ok(name, `${event} is described`);
    check(pointer('components', 'messages', name, 'payload'), payload);
  }
  assert.equal(new Set(heard.map(([event]) => event)).size, 9, 'every event came');
});

test('an answer to /resume is as described', async (t) => {
  const check = checker(asyncapi);
  const resume = async (argument) => {
    const browser = new Browser(io(server.browsers.origin, { transports: ['websocket'], forceNew: true, query: { resume: '1' } }), []);
    t.after(() => browser.close());
    await browser.connected();
    const [answer] = await browser.ask('/resume', argument);
    check('/components/messages/resumeAnswer/payload', answer);
    return answer;
  };
  const argument = asyncapi.components.messages.resume.examples[0].payload;
  check('/components/messages/resume/payload', argument);
  const { token, recovered } = await resume(argument);
  assert.equal(recovered, false);
  assert.equal((await resume({ ...argument, token })).recovered, true);
  assert.equal((await resume({ ...argument, token: 'nonsense' })).reason, 'invalid');
  assert.equal(typeof (await resume({ rooms: ['Kitchen'] })), 'string');
});

/** Requests with the status that each gets. Paths are as in the document, with what stands for their parameters. */
const json = (body, headers) => ({ method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });
const STATUS = { type: 'farm-status', payload: { status: 'idle' } };
const REQUESTS = [
  ['/api/events', 200, json(STATUS)],
  ['/api/events', 200, json([STATUS, STATUS])],
  ['/api/events', 200, json(`${JSON.stringify(STATUS)}\n`, { 'content-type': 'application/x-ndjson' })],
  ['/api/events', 400, json('{')],
  ['/api/events', 401, json(STATUS, { authorization: '' })],
  ['/api/events', 403, json(STATUS, { authorization: 'Bearer something-else-entirely' })],
  ['/api/events', 413, json(' '.repeat(200_000))],
  ['/api/events', 415, json('x', { 'content-type': 'text/plain' })],
  ['/api/events', 415, json('x', { 'content-encoding': 'gzip' })],
  ['/api/events', 422, json([STATUS, { type: 'farm-status', payload: {} }])],
  ['/api/events', 422, json(`${JSON.stringify(STATUS)}\n{}\n`, { 'content-type': 'application/x-ndjson' })],
  ['/api/events', 400, {}, '?since=yesterday'],
  ['/api/events', 400, {}, '?until=tomorrow'],
  ['/api/events', 410, {}, '?since=00000000000000aa-1-1'],
  ['/api/stats', 200],
  ['/api/stats', 200, {}, '?rooms=false'],
  ['/api/stats', 400, {}, '?rooms=some'],
  ['/api/stats', 401, { headers: { authorization: '' } }],
  ['/api/sessions', 200],
  ['/api/sessions', 200, {}, '?sort=waiting&order=ascending&offset=0&limit=5&address=127.0.0.1'],
  ['/api/sessions', 400, {}, '?sort=colour'],
  ['/api/sessions/{id}', 404, { method: 'DELETE' }, '', { id: '999999999' }],
  ['/api/sessions/{id}', 404, { method: 'DELETE' }, '', { id: 'x' }],
  ['/api/rooms', 200],
  ['/api/rooms', 400, {}, '?limit=-1'],
  ['/api/history', 200],
  ['/api/history', 400, {}, '?since=noon'],
  ['/api/drain', 400, json('{}')],
  ['/api/drain', 422, json({ confirm: false })],
  ['/metrics', 200],
  ['/healthz', 200],
  ['/api/openapi.json', 200],
  ['/api/openapi.json', 304, { headers: { 'if-none-match': '*' } }],
  ['/api/asyncapi.json', 200],
  ['/', 200],
  ['/console/{name}', 200, {}, '', { name: 'console.js' }],
  ['/console/{name}', 404, {}, '', { name: 'secrets.txt' }],
];

test('the server answers as described', async (t) => {
  const browser = new Browser(io(server.browsers.origin, { transports: ['websocket'], forceNew: true }), []);
  t.after(() => browser.close());
  await browser.connected();
  const check = checker(openapi);
  const seen = new Set();
  for (const [path, status, options = {}, query = '', parameters = {}] of REQUESTS) {
    const method = (options.method ?? 'GET').toLowerCase();
    const answer = await ask(path.replace(/{(\w+)}/g, (_, name) => parameters[name]) + query, options);
    assert.equal(answer.status, status, `${method} ${path}${query}: ${answer.text.slice(0, 300)}`);
    seen.add(`${method} ${path}`);
    const operation = openapi.paths[path][method];
    const described = operation.responses[status];
    assert.ok(described, `${method} ${path} has ${status}`);
    for (const name of new URLSearchParams(query).keys()) {
      const isParameter = operation.parameters?.some((parameter) => parameter.name === name);
      assert.equal(isParameter ?? false, name !== 'until', `${path}?${name}`);
    }
    const at = described.$ref ? described.$ref.slice(1) : pointer('paths', path, method, 'responses', String(status));
    const { content } = at.split('/').slice(1).reduce((value, step) => value[step.replaceAll('~1', '/').replaceAll('~0', '~')], openapi);
    if (status === 304) continue;
    const [type] = answer.headers['content-type'].split(';');
    assert.ok(content[type], `${method} ${path} ${status} has ${type}`);
    if (type === 'application/json') check(`${at}${pointer('content', type, 'schema')}`, answer.json);
  }
  const described = Object.entries(openapi.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
  assert.deepEqual(described.filter((operation) => !seen.has(operation)), [], 'every operation was tried');
});

test('what is read from the history is as described', async () => {
  const check = checker(openapi);
  await server.publish(STATUS);
  const line = await within(new Promise((resolve, reject) => {
    const socket = net.connect(server.manager.port, server.manager.hostname).setEncoding('utf8').on('error', reject);
    let text = '';
    socket.on('data', (more) => {
      text += more;
      const found = /^{"id".*$/m.exec(text);
      if (found && text.includes('\n', found.index)) socket.destroy(), resolve(found[0]);
    });
    socket.write(`GET /api/events?since=oldest HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${TOKEN}\r\n\r\n`);
  }), 'an event of the history');
  check('/components/schemas/RecordedEvent', JSON.parse(line));
  check('/components/schemas/Event', JSON.parse(line));
});

test('a client that is generated from the document posts what a browser hears', async (t) => {
  const folder = mkdtempSync(fileURLToPath(new URL('node_modules/.client-', HERE)));
  t.after(() => rmSync(folder, { recursive: true }));
  cpSync(new URL('client', HERE), folder, { recursive: true });
  writeFileSync(`${folder}/package.json`, '{"type": "module"}');
  writeFileSync(`${folder}/api.ts`, astToString(await openapiTS(openapi)));
  const run = (...args) => {
    const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: folder, timeout: 120_000 });
    assert.equal(status, 0, stdout + stderr);
    return stdout;
  };
  run(fileURLToPath(new URL('node_modules/typescript/bin/tsc', HERE)), '-p', folder);
  const browser = new Browser(io(server.browsers.origin, { transports: ['websocket'], forceNew: true }), []);
  t.after(() => browser.close());
  await browser.connected();
  const { events: counted } = await server.stats();
  const events = [STATUS, { type: 'job-update', payload: openapi.components.schemas.JobUpdate.examples[0] }];
  const { accepted, field, statuses } = JSON.parse(run('post.js', server.manager.origin, TOKEN, JSON.stringify(events)));
  assert.deepEqual([accepted, field, statuses], [2, 'type', counted['farm-status'] + 1]);
  await server.settle(browser);
  assert.deepEqual(browser.take(), [['/status', STATUS.payload], ['/jobs', events[1].payload]]);
});
