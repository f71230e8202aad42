// `watch`: the terminal's client shows what arrives.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { asReceived, heardIn, JOB_A, jobUpdate, oneOfEach, SUBSCRIPTIONS } from './support/farm.mjs';
import { RawBrowser } from './support/raw.mjs';
import { Program, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

/** A `watch` of `server` with `args` that has joined `rooms`; `t` ends it. */
async function watching(t, server, rooms, args, options) {
  const watch = new Program(['watch', server.browsers.origin, ...args], options);
  t.after(async () => {
    watch.child.kill('SIGINT');
    assert.equal((await watch.ended()).code, 0, watch.stderr);
  });
  await joined(server, rooms);
  return watch;
}

function joined(server, rooms) {
  return eventually(() => server.stats(), (stats) => rooms.every((room) => stats.rooms[room] === 1), `watch to join ${rooms}`);
}

/** The complete lines that `watch` has printed, once there are `count`. */
async function lines(watch, count) {
  const complete = () => watch.stdout.split('\n').slice(0, -1);
  await watch.printed(() => complete().length >= count, `${count} lines`);
  return complete();
}

describe('watch', () => {
  for (const [what, args, rooms] of [
    ['the rooms of its default', [], Object.keys(SUBSCRIPTIONS)],
    ['the rooms it is told', ['--room', `job-${JOB_A}`, '--room', 'Workers'], [`job-${JOB_A}`, 'Workers']],
  ]) {
    test(`--json prints one object for each event of ${what}`, async (t) => {
      const server = await Server.start();
      t.after(() => server.stop());
      const watch = await watching(t, server, rooms, ['--json', ...args]);
      const events = oneOfEach();
      await server.publish(events);
      const expected = asReceived(heardIn(['Jobs', 'Chat', ...rooms], events));
      const printed = (await lines(watch, expected.length)).map((line) => JSON.parse(line));
      assert.deepEqual(printed.map(({ event, args }) => [event, ...args]), expected);
      for (const { time } of printed) assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, time);
    });
  }

  test('comes back after a restart of the server', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    const rooms = [`job-${JOB_A}`];
    const watch = await watching(t, server, rooms, ['--json', '--room', rooms[0]]);
    await server.stop();
    await server.startAgain();
    await joined(server, rooms);
    await server.publish(jobUpdate());
    const [line] = await lines(watch, 1);
    assert.deepEqual(JSON.parse(line).args, [jobUpdate().payload]);
  });

  test('without --json tells people what happens, without colours in a pipe', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    const watch = await watching(t, server, ['Jobs'], []);
    await server.publish(jobUpdate());
    await watch.printed(({ stdout }) => /shot_010_anim 🎬.*\n/.test(stdout), 'a line about the job');
    assert.match(watch.stdout, /active/);
    assert.ok(!watch.stdout.includes('\u001b'), 'escape sequences in a pipe');
  });

  test('never passes on what a farm could do to a terminal', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    for (const args of [[], ['--json']]) {
      const watch = await watching(t, server, ['Jobs'], args);
      await server.publish(jobUpdate({ name: '\u001b]0;owned\u0007\u009b31m\r\u202e' }));
      await watch.printed(({ stdout }) => /owned.*\n/.test(stdout), 'a line about the job');
      assert.doesNotMatch(watch.stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/, args.join());
      watch.child.kill('SIGINT');
      await watch.ended();
    }
  });

  test('--chat sends the lines of stdin', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    const watch = await watching(t, server, ['Workers'], ['--chat', '--name', 'Ada', '--json'], { stdin: 'pipe' });
    watch.stdin.write('hello farm 🎬\n');
    assert.deepEqual(JSON.parse((await browser.next()).slice(2)), ['/message', { name: 'Ada', text: 'hello farm 🎬' }]);
  });

  test('waits for a server that is not there yet', async (t) => {
    const server = await Server.start();
    await server.stop();
    const watch = new Program(['watch', server.browsers.origin, '--json']);
    t.after(() => watch.child.kill('SIGKILL'));
    await watch.printed(({ stderr }) => stderr.length > 0, 'a word about it');
    await server.startAgain();
    t.after(() => server.stop());
    await joined(server, ['Workers']);
  });

  test('with an address that is none, or a room that is none, ends with code 2', async () => {
    for (const args of [['nowhere at all'], ['ftp://127.0.0.1'], ['--room', 'Kitchen']]) {
      const { code, stdout, stderr } = await new Program(['watch', ...args]).ended();
      assert.deepEqual([code, stdout], [2, ''], args.join(' '));
      assert.ok(stderr.length > 10);
    }
  });
});
