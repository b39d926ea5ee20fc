// For what runs inside the initramfs in place of the agent. run-guest.ts is the other side.
import { open } from 'node:fs/promises';
import { flushDevice } from '../../agent/disk/device-io.ts';
import { type Disk, listDisks } from '../../agent/disk/disk.ts';
import { toImagingError } from '../../agent/errors.ts';
import type { Extent } from '../../agent/image/extent.ts';

const MIB = 1024 * 1024;

/** Print what was found, or the error instead, as one line of JSON; never one of these secrets. */
export const printFact = async (
  name: string,
  find: () => Promise<unknown>,
  secrets: readonly string[] = [],
): Promise<void> => {
  const began = performance.now();
  let value: unknown;
  try {
    value = await find();
  } catch (thrown) {
    const error = toImagingError(thrown);
    value = { error: error.code, message: error.message, details: error.details };
  }
  const seconds = (performance.now() - began) / 1000;
  let line = JSON.stringify({ name, value, seconds });
  for (const secret of secrets) line = line.replaceAll(secret, 'THE KEY');
  console.log(`FACT ${line}`);
};

/** The disk that the test gave this serial. */
export const diskBySerial = async (serial: string): Promise<Disk> => {
  const disk = (await listDisks()).find((one) => one.serial === serial);
  if (!disk) throw new Error(`no disk ${serial}`);
  return disk;
};

/** What a deploy would write, without chunks and a server. */
export const copyExtents = async (from: string, to: string, extents: readonly Extent[]): Promise<void> => {
  await using source = await open(from, 'r');
  await using target = await open(to, 'r+');
  const block = Buffer.alloc(4 * MIB);
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; ) {
      const part = Math.min(block.length, length - done);
      const { bytesRead } = await source.read(block, 0, part, offset + done);
      if (bytesRead === 0) throw new Error(`${from} ends early`);
      await target.write(block, 0, bytesRead, offset + done);
      done += bytesRead;
    }
  }
  await target.sync();
  await flushDevice(to);
};
