import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { decodeMap } from '../../../agent/image/used-map.ts';
import { run } from '../../../agent/process/run.ts';
import { manifestSchema } from '../../../agent/protocol/index.ts';
import { root } from '../../../scripts/lib/root.ts';

/** BIOS and Secure Boot are furthest apart; a second round differs from the first in nothing that firmware sees. */
const runs =
  process.env['FOG_TEST_MATRIX'] === '1'
    ? [
        ['bios', 2],
        ['uefi', 2],
        ['secureboot', 2],
      ]
    : [
        ['bios', 2],
        ['secureboot', 1],
      ];

for (const [firmware, rounds] of runs) {
  test(`the demo passes with --firmware ${firmware}`, async (t) => {
    const out = await mkdtemp(join(tmpdir(), 'fog-demo-'));
    t.teardown(() => rm(out, { recursive: true, force: true }));
    const { stdout } = await run(
      join(root, 'scripts/demo'),
      ['--firmware', String(firmware), '--rounds', String(rounds), '--out', out, '--keep'],
      {
        timeoutMs: 40 * 60_000,
      },
    );
    const { proved, transfers } = JSON.parse(await readFile(join(out, 'demo.json'), 'utf8')) as {
      proved: unknown[];
      transfers: { name: string; evidence: unknown[] }[];
    };
    t.regex(stdout, /Proved:/);
    t.true(proved.length >= (rounds === 2 ? 8 : 4), JSON.stringify(proved));
    t.deepEqual(
      transfers.map(({ name }) => name),
      ['capture', 'deploy', ...(rounds === 2 ? ['capture again', 'deploy again'] : [])],
    );
    t.true(transfers.every(({ evidence }) => evidence.length > 0));
    if (firmware === 'bios') await casyncAgrees(t, out);
  });
}

/** Debian's casync, not our code, brings back every partition that was captured in chunks; the root is mounted. */
const casyncAgrees = async (t: ExecutionContext, out: string): Promise<void> => {
  const version = join(out, 'data/images/golden/2');
  const manifest = manifestSchema.parse(JSON.parse(await readFile(join(version, 'manifest.json'), 'utf8')));
  for (const { name, start, size, index, map } of manifest.disks[0]?.partitions ?? []) {
    if (!index || !map) continue;
    const file = join(out, `${name}.img`);
    await run('casync', ['extract', `--store=${join(out, 'data/chunks')}`, join(version, index.name), file], {
      timeoutMs: 300_000,
    });
    const { extents, size: mapped } = decodeMap(await readFile(join(version, map.name)));
    t.is(mapped, size);
    t.is(await firstDifference(join(out, 'work/source.img'), start, file, extents), null, name);
  }
  const mount = join(out, 'mnt');
  await run('mkdir', [mount]);
  await run('mount', ['-o', 'ro,loop', join(out, 'p5.img'), mount]);
  try {
    t.is(await readFile(join(mount, 'srv/change'), 'utf8'), 'version-2\n');
  } finally {
    await run('umount', [mount]);
  }
};

/** Offset within the partition where a used block differs, or null. */
const firstDifference = async (
  disk: string,
  start: number,
  file: string,
  extents: readonly { offset: number; length: number }[],
): Promise<number | null> => {
  await using source = await open(disk, 'r');
  await using extracted = await open(file, 'r');
  const [a, b] = [Buffer.alloc(2 ** 20), Buffer.alloc(2 ** 20)];
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; done += a.length) {
      const part = Math.min(a.length, length - done);
      await source.read(a, 0, part, start + offset + done);
      await extracted.read(b, 0, part, offset + done);
      if (!a.subarray(0, part).equals(b.subarray(0, part))) return offset + done;
    }
  }
  return null;
};
