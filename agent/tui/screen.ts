import { createWriteStream } from 'node:fs';
import { access, constants } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import blessed from 'blessed';
import type { AgentStatus } from '../agent.ts';
import { barOf, linesOf } from './view.ts';

export interface StatusScreen {
  show(status: AgentStatus): void;
  log(line: string): void;
  close(): void;
}

/**
 * The status screen on a terminal of the machine, or null where there is none (serial console only).
 * The only importer of blessed. It shows; nobody needs to press anything.
 */
export const openScreen = async (tty: string): Promise<StatusScreen | null> => {
  try {
    await access(tty, constants.R_OK | constants.W_OK);
  } catch {
    return null;
  }
  // @types/blessed 0.1 has the types of `input` and `output` the wrong way round
  const streams = {
    // nobody needs to press anything; a read of the terminal would wait for a key, and the process with it
    input: new PassThrough(),
    // without a size blessed assumes 1x1: a Linux console has at least 80x25
    output: Object.assign(createWriteStream(tty), { columns: 80, rows: 25, isTTY: true }),
  } as object;
  const screen = blessed.screen({
    ...streams,
    terminal: 'linux',
    fullUnicode: false,
    smartCSR: false,
  });
  const head = blessed.box({
    parent: screen,
    top: 0,
    left: 0,
    width: '100%',
    height: 3,
    style: { fg: 'white', bg: 'blue' },
  });
  const body = blessed.box({
    parent: screen,
    top: 3,
    left: 0,
    width: '100%',
    height: 7,
    padding: { left: 1, right: 1, top: 1, bottom: 0 },
  });
  const log = blessed.log({
    parent: screen,
    top: 10,
    left: 0,
    width: '100%',
    bottom: 0,
    padding: { left: 1, right: 1, top: 0, bottom: 0 },
    style: { fg: 'white' },
  });
  screen.render();
  return {
    show: (status) => {
      head.setContent(linesOf(status).head.join('\n'));
      body.setContent([...linesOf(status).body, barOf(status.view, 76)].join('\n'));
      screen.render();
    },
    log: (line) => {
      log.log(line);
      screen.render();
    },
    close: () => screen.destroy(),
  };
};
