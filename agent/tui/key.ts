import type { ReadStream } from 'node:tty';

/** q, Q and Ctrl-C: a stray byte of a serial line, or an arrow key, is none of them. */
const STOP = new Set([0x71, 0x51, 0x03]);

/**
 * Resolves when somebody at the agent's terminal presses q or Ctrl-C; never, where there is no terminal. The terminal is
 * read only until `signal` is aborted.
 */
export const stopKeyPressed = (
  signal: AbortSignal,
  input: Pick<ReadStream, 'isTTY' | 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'> = process.stdin,
): Promise<void> =>
  new Promise((resolve) => {
    if (!input.isTTY || signal.aborted) return;
    const onData = (data: Buffer): void => {
      if (data.some((byte) => STOP.has(byte))) resolve();
    };
    // without raw mode a key comes only with Enter
    input.setRawMode(true);
    input.on('data', onData);
    input.resume();
    signal.addEventListener(
      'abort',
      () => {
        input.off('data', onData);
        input.setRawMode(false);
        // a terminal that is read keeps the process alive
        input.pause();
      },
      { once: true },
    );
  });
