import test from 'ava';
import { ImagingError } from '../../../agent/errors.ts';
import type { Manifest } from '../../../agent/protocol/index.ts';
import { damageSummary, explainReadError, noteDamage, requireSound } from '../../../agent/tasks/damage.ts';

const { signal } = new AbortController();

const partitionOf = (number: number, damaged: { start: number; size: number }[]) => ({
  name: `p${number}`,
  number,
  damaged,
});

const manifest = {
  image: 'lab',
  version: 2,
  disks: [{ partitions: [partitionOf(1, []), partitionOf(2, [{ start: 4096, size: 8192 }])] }],
} as unknown as Manifest;

const params = { allowDamaged: false, partitions: undefined, keep: undefined };

test('a damaged image is deployed only when the task allows it, and is warned about then', (t) => {
  const warnings: string[] = [];
  const warn = (text: string): void => void warnings.push(text);
  const error = t.throws(() => requireSound(manifest, params, warn), { code: 'IMAGE_DAMAGED' });
  t.regex(error?.message ?? '', /lab version 2 \(damaged: 8192 bytes of p2\)/);
  t.deepEqual(warnings, []);
  requireSound(manifest, { ...params, allowDamaged: true }, warn);
  t.is(warnings.length, 1);
  t.regex(warnings[0] ?? '', /8192 bytes of p2/);
});

test('damage counts in what the task writes only', (t) => {
  const warn = (): void => t.fail();
  t.notThrows(() => requireSound(manifest, { ...params, partitions: [1] }, warn));
  t.notThrows(() => requireSound(manifest, { ...params, keep: [2] }, warn));
  t.throws(() => requireSound(manifest, { ...params, partitions: [2] }, warn), { code: 'IMAGE_DAMAGED' });
});

const place = {
  partition: { name: 'p2', start: 1024 * 1024, size: 1024 * 1024, filesystem: null },
  path: '/dev/none',
  readFrom: 1024 * 1024,
};

test('a read error is told with its partition; other errors stay as they are', async (t) => {
  const error = new ImagingError('DISK_READ_FAILED', 'Cannot read the disk', {
    details: { lba: 2048, ranges: [{ lba: 2048, sectors: 8 }] },
  });
  const told = await explainReadError(error, place, { signal });
  t.regex(String(told), /Cannot read the disk \(partition p2; rescue: true reads around it\)/);
  t.is((told as ImagingError).details['partition'], 'p2');
  const other = new Error('other');
  t.is(await explainReadError(other, place, { signal }), other);
});

test('what was not read is a warning with sectors of the disk, and goes into the manifest', async (t) => {
  const warnings: string[] = [];
  const context = { signal, warn: (text: string) => void warnings.push(text) };
  t.deepEqual(await noteDamage([], place, context), []);
  t.deepEqual(warnings, []);
  const damaged = await noteDamage(
    [
      { offset: 0, length: 512 },
      { offset: 8192, length: 4096 },
    ],
    place,
    context,
  );
  t.deepEqual(damaged, [
    { start: 0, size: 512 },
    { start: 8192, size: 4096 },
  ]);
  t.is(
    warnings[0],
    'p2 is damaged: 4608 bytes could not be read and are zeros in the image (sectors 2048, 2064-2071)',
  );
  t.is(damageSummary([{ name: 'p2', damaged }]), ' (damaged: 4608 bytes of p2)');
});
