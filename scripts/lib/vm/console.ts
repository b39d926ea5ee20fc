import { closeSync, openSync, readSync } from 'node:fs';
import { isErrno } from '../../../agent/errors.ts';

/** What a machine prints on its serial port, read from the file that QEMU writes. */
export interface ConsoleReader {
  /** everything so far, as printed */
  raw(): string;
  /** everything so far without terminal escape sequences: firmware and boot loaders move the cursor */
  text(): string;
}

const PART = 64 * 1024;

/** Read a growing console file; a file that is not there yet is empty. */
export const readConsole = (path: string): ConsoleReader => {
  const part = Buffer.alloc(PART);
  const decoder = new TextDecoder('utf-8');
  let offset = 0;
  let text = '';
  const raw = (): string => {
    let file: number;
    try {
      file = openSync(path, 'r');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return text;
      throw error;
    }
    try {
      for (;;) {
        const length = readSync(file, part, 0, PART, offset);
        if (length === 0) return text;
        offset += length;
        text += decoder.decode(part.subarray(0, length), { stream: true });
      }
    } finally {
      closeSync(file);
    }
  };
  return { raw, text: () => withoutEscapes(raw()) };
};

/** ECMA-48 control sequences, OSC strings and two-byte escapes removed; carriage returns dropped. */
export const withoutEscapes = (text: string): string =>
  text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed
    .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>78c]|[()][A-Z0-9])/g, '')
    .replaceAll('\r', '');
