// A part of volumes-guest.ts: BitLocker needs device-mapper. volumes.test.ts says what the facts must be.
import { readAt } from '../../agent/disk/device-io.ts';
import { totalLength } from '../../agent/filesystem/extents.ts';
import { driverFor } from '../../agent/filesystem/index.ts';
import { probe } from '../../agent/filesystem/probe.ts';
import { run } from '../../agent/process/run.ts';
import { readBitLocker } from '../../agent/volumes/bitlocker/read.ts';
import { type LookOptions, lookAtVolumes, type Seen } from '../../agent/volumes/look.ts';
import type { Volume } from '../../agent/volumes/volume.ts';
import { OTHER_RECOVERY_PASSWORD, RECOVERY_PASSWORD } from '../integration/bitlocker-volume.ts';
import { hashOf, partitionOn } from '../integration/loop-device.ts';
import { copyExtents, diskBySerial, printFact } from './guest.ts';

const { signal } = new AbortController();

const lookAt = async (
  volume: Volume,
  held: AsyncDisposableStack,
  options: Partial<LookOptions> = {},
): Promise<Seen> => {
  const [look] = await lookAtVolumes([volume], { signal, keys: [], raw: false, held, ...options });
  if (!look) throw new Error('nothing was seen');
  return look;
};

const volumeOf = async (serial: string): Promise<Volume> => {
  const { path, size } = await diskBySerial(serial);
  return partitionOn(path, size, serial);
};

/** A look, and what can be read there: the whole clear side's hash. */
const clearOf = async (serial: string, options: Partial<LookOptions> = {}) => {
  await using held = new AsyncDisposableStack();
  const look = await lookAt(await volumeOf(serial), held, options);
  const { method, filesystem, extents, source, decryptedFrom, warnings } = look;
  const readOnly = (await run('blockdev', ['--getro', source])).stdout.trim();
  return {
    ...{ method, decryptedFrom, warnings, readOnly, type: filesystem?.type, label: filesystem?.label },
    used: totalLength(extents),
    hash: await hashOf(source),
  };
};

/** Where the very same BitLocker volume was before, what is used of the clear side is an NTFS and nothing else. */
const deployOver = async (serial: string, target: string, filesOf: (device: string) => Promise<string>) => {
  await using held = new AsyncDisposableStack();
  const volume = await volumeOf(serial);
  await run('blockdev', ['--setrw', target]);
  await copyExtents(volume.device, target, [{ offset: 0, length: volume.size }]);
  const metadata = await readBitLocker(target, volume.size);
  if (typeof metadata === 'string') throw new Error(metadata);
  const { source, extents } = await lookAt(volume, held);
  await copyExtents(source, target, extents);
  const { type, ambiguous } = await probe(target);
  const places = [...metadata.metadata, metadata.header.offset];
  const left = await Promise.all(places.map((place) => readAt(target, place, 8192)));
  await driverFor('ntfs')?.check(target, signal);
  const { exitCode } = await run('ntfsfix', ['--no-action', target]);
  return {
    ...{ type, ambiguous, exitCode },
    cleared: left.every((bytes) => bytes.every((byte) => byte === 0)),
    files: await filesOf(target),
  };
};

/** The same volume opened by cryptsetup. */
const byCryptsetup = async (serial: string): Promise<string> => {
  const { path } = await diskBySerial(serial);
  const args = ['open', '--type', 'bitlk', '--readonly', '--key-file', '-', path, 'judge'];
  await run('cryptsetup', args, { input: RECOVERY_PASSWORD, timeoutMs: 300_000 });
  try {
    return await hashOf('/dev/mapper/judge');
  } finally {
    await run('cryptsetup', ['close', 'judge']);
  }
};

/** Print facts of the disks BLS0, BLS2, BLS4 (suspended) and BLL4 (locked); DST3 is written to. */
export const printBitLocker = async (filesOf: (device: string) => Promise<string>): Promise<void> => {
  const fact = async (name: string, find: () => Promise<unknown>): Promise<void> =>
    await printFact(`bitlocker ${name}`, find, [RECOVERY_PASSWORD]);
  for (const serial of ['BLS0', 'BLS2', 'BLS4']) await fact(serial, async () => await clearOf(serial));
  const { path: target } = await diskBySerial('DST3');
  await fact('deployed', async () => await deployOver('BLS4', target, filesOf));
  await fact('no key', async () => await clearOf('BLL4'));
  await fact('wrong key', async () => await clearOf('BLL4', { keys: [OTHER_RECOVERY_PASSWORD] }));
  await fact('raw', async () => await clearOf('BLL4', { raw: true }));
  await fact('unlocked', async () => await clearOf('BLL4', { keys: ['wrong', RECOVERY_PASSWORD] }));
  await fact('cryptsetup', async () => await byCryptsetup('BLL4'));
};
