// A real Flamenco farm: a Manager and its workers, started by the program that FLAMENCO_FARM names.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const PROGRAM = process.env.FLAMENCO_FARM;

/** What a test that needs a farm is given as its `skip`: a reason, or false. */
export const NO_FARM = PROGRAM ? false : 'no Flamenco Manager: set FLAMENCO_FARM to the program that starts one';

const farm = async (...args) => (await promisify(execFile)(PROGRAM, args)).stdout.trim();

/** A farm with one worker, which `t` stops at its end. */
export class Farm {
  static async start(t, generation) {
    const folder = await mkdtemp(join(tmpdir(), 'webupdates-farm-'));
    t.after(async () => {
      await farm('stop', folder);
      await rm(folder, { recursive: true, force: true });
    });
    return new Farm(folder, await farm('start', folder, '--generation', generation, '--workers', '1'));
  }

  constructor(folder, url) {
    this.folder = folder;
    this.url = url;
  }

  /** Submits a job to the Manager itself; its id. */
  submit(kind, ...options) {
    return farm('job', this.url, kind, ...options);
  }

  /** The Manager only; resolves when it answers again. */
  restart() {
    return farm('restart', this.folder);
  }

  /** What the Manager's API answers. */
  async api(path) {
    const answer = await fetch(`${this.url}/api/v3${path}`);
    return answer.json();
  }
}
