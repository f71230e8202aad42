// A headless Chromium for tests of real pages.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import puppeteer from 'puppeteer-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

/** The browser's program: `CHROMIUM`, or else the first known name on the path; undefined if there is none. */
export const CHROMIUM = process.env.CHROMIUM ?? onPath();

/** What a test that needs a page is given as its `skip`: a reason, or false. `./test` installs what is missing. */
export const NO_CHROMIUM = CHROMIUM ? false : 'no Chromium: `apt install chromium`, or set CHROMIUM to one';

/** A browser with nothing in it, which `t` closes at its end. */
export async function launch(t) {
  const browser = await puppeteer.launch({
    executablePath: CHROMIUM,
    headless: true,
    // Its sandbox refuses to work for root, and a container's /dev/shm may be too small for it.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), '--disable-dev-shm-usage', '--disable-gpu', '--no-proxy-server'],
    timeout: 60_000,
    protocolTimeout: 60_000,
  });
  t.after(() => browser.close());
  return browser;
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
