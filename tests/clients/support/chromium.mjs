// A headless Chromium for tests of real pages.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import puppeteer from 'puppeteer-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

/** The browser's program: `CHROMIUM`, or else the first known name on the path; undefined if there is none. */
export const CHROMIUM = process.env.CHROMIUM ?? onPath();

/** What a test that needs a page is given as its `skip`: a reason, or false. `./test` installs what is missing. */
export const NO_CHROMIUM = CHROMIUM ? false : 'no Chromium: `apt install chromium`, or set CHROMIUM to one';

/** Milliseconds after its last test until the browser closes. */
const IDLE_MS = 1000;

/** The browser of this process, once a test has asked for one: to start one for each test takes a second or two of a core. */
let running;
let users = 0;

/** A browser with nothing in it: what is opened in it closes at the end of `t`. */
export async function launch(t) {
  users += 1;
  running ??= start();
  const browser = await running;
  const contexts = [];
  const createBrowserContext = async () => {
    const context = await browser.createBrowserContext();
    contexts.push(context);
    return context;
  };
  t.after(async () => {
    // One that a test has closed cannot be closed again.
    for (const context of contexts) await context.close().catch(() => {});
    users -= 1;
    setTimeout(() => closeUnused().catch(() => {}), IDLE_MS);
  });
  const own = await createBrowserContext();
  return { createBrowserContext, newPage: () => own.newPage() };
}

const start = () =>
  puppeteer.launch({
    executablePath: CHROMIUM,
    headless: true,
    // Its sandbox refuses to work for root, and a container's /dev/shm may be too small for it.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), '--disable-dev-shm-usage', '--disable-gpu', '--no-proxy-server'],
    timeout: 60_000,
    protocolTimeout: 60_000,
  });

async function closeUnused() {
  if (users > 0 || !running) return;
  const browser = await running;
  if (users > 0) return;
  running = undefined;
  await browser.close();
}

/** A page of its own, without the cookies and caches of others: `contents` tells what it said on its console. */
export async function openPage(browser, url) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const said = [];
  page.on('console', (message) => said.push(message.text()));
  page.on('pageerror', (error) => said.push(String(error)));
  await page.goto(url, { timeout: 30_000 });
  return { page, said };
}

function onPath() {
  const files = (process.env.PATH ?? '').split(delimiter).flatMap((directory) => NAMES.map((name) => join(directory, name)));
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
