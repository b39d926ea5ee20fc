import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { z } from 'zod';
import { run } from '../../agent/process/run.ts';
import { imageDiskSchema } from '../../agent/protocol/index.ts';
import { growVolumes } from '../../agent/volumes/lvm/grow.ts';
import { testServer } from '../server-stub/support.ts';
import { attachLoop, hashOf, type LoopDevice } from './loop-device.ts';
import { lvm, placesOf } from './lvm.ts';
import { makeGroup, SWAP } from './shrink-group.ts';
import {
  askShrink,
  extract,
  idsOf,
  MIB,
  makeTree,
  memoryFolder,
  shrink,
  storeImage,
  treeHashes,
  withLoop,
} from './shrink-helpers.ts';

/** A file as a device of `size` bytes. */
const asDevice = async (t: ExecutionContext, file: string, size: number): Promise<LoopDevice> => {
  const loop = await attachLoop(t, size);
  await run('dd', [`if=${file}`, `of=${loop.path}`, 'bs=1M', 'conv=notrunc,sparse,fsync', 'status=none']);
  await run('blockdev', ['--flushbufs', loop.path]);
  return loop;
};

/** A logical volume by lvm2's own map, in a file. */
const takeOut = async (device: string, name: string, file: string): Promise<string> => {
  let done = 0;
  for (const { offset, length } of (await placesOf([device])).get(name) ?? []) {
    const range = [`skip=${offset / MIB}`, `seek=${done / MIB}`, `count=${length / MIB}`];
    await run('dd', [`if=${device}`, `of=${file}`, 'bs=1M', 'conv=notrunc,sparse', 'status=none', ...range]);
    done += length;
  }
  await run('truncate', ['--size', String(done), file]);
  return file;
};

/** What a MiB of a file is called as a chunk. */
const chunkIds = async (file: string): Promise<string[]> => {
  const ids: string[] = [];
  for await (const chunk of createReadStream(file, { highWaterMark: MIB })) {
    ids.push(createHash('sha256').update(chunk).digest('hex'));
  }
  return ids;
};

const rows = z.object({ report: z.array(z.object({ lv: z.array(z.record(z.string(), z.string())) })) });

const volumesOf = async (device: string): Promise<Map<string, Record<string, string>>> => {
  const fields = 'vg_name,vg_uuid,vg_seqno,lv_name,lv_uuid,lv_size,seg_count';
  const args = ['--reportformat', 'json', '--units', 'b', '--nosuffix', '-o', fields];
  const { report } = rows.parse(JSON.parse(await lvm([device], 'lvs', args)));
  return new Map((report[0]?.lv ?? []).map((lv) => [lv['lv_name'] ?? '', lv]));
};

const signal = new AbortController().signal;

for (const areas of [1, 2]) {
  test.serial(
    `LVM with ${areas === 1 ? 'one copy' : 'two copies'} of its metadata is made smaller: sound to lvm2, every volume and file as it was, and it grows again`,
    async (t) => {
      const folder = await memoryFolder(t);
      const server = await testServer(t, { data: join(folder, 'data') });
      const tree = await makeTree(join(folder, 'tree'), 60 * MIB);
      const { part, device, files } = await makeGroup(t, folder, tree, { areas });
      await storeImage(server.app.fog, 'lab', [part]);
      const before = await volumesOf(device);
      const job = await shrink(t, server, 'lab', 1, { to: 400 * MIB });
      t.is(job.error, null, JSON.stringify(job.error));
      t.is(job.result, 2);

      const { manifest } = { manifest: (await server.admin({ url: '/api/images/lab/versions/2' })).json() };
      const [made] = imageDiskSchema.parse(manifest.disks[0]).partitions;
      if (!made) throw new Error('no partition');
      t.true(made.size < 400 * MIB && made.size > 395 * MIB);
      t.true((made.filesystem?.minimumBytes ?? 0) < made.size);
      t.true((made.filesystem?.minimumBytes ?? 0) > 150 * MIB);

      // the judge is lvm2, on the partition as casync puts it together
      const image = await extract(server.data, 'lab', 2, 'p1', join(folder, 'p1.img'));
      const small = await asDevice(t, image, made.size);
      await lvm([small.path], 'vgck', ['vg']);
      const dump = await lvm([small.path], 'pvck', ['--dump', 'headers', small.path]);
      t.notRegex(dump, /\bCHECK\b|invalid|incorrect|does not match/);
      t.is(dump.match(/mda_header_\d at/g)?.length, areas);
      const fields = 'pv_uuid,dev_size,pv_size,pv_mda_count,pv_mda_used_count';
      const report = ['--noheadings', '--units', 'b', '--nosuffix', '--separator', ' ', '-o', fields];
      const [pvUuid, devSize, pvSize, ...mdas] = (await lvm([small.path], 'pvs', report)).trim().split(' ');
      t.true((await lvm([device], 'pvs', report)).includes(pvUuid ?? '-'));
      t.is(Number(devSize), made.size);
      t.true(Number(pvSize) <= made.size && Number(pvSize) > made.size - 8 * MIB);
      t.deepEqual(mdas, [String(areas), String(areas)]);

      const after = await volumesOf(small.path);
      t.deepEqual([...after.keys()].toSorted(), [...before.keys()].toSorted());
      for (const [name, lv] of after) {
        const was = before.get(name) ?? {};
        for (const field of ['vg_uuid', 'lv_uuid']) t.is(lv[field], was[field], `${name} ${field}`);
        t.is(Number(lv['vg_seqno']), Number(was['vg_seqno']) + 1);
        t.is(lv['seg_count'], '1', name);
        t.is(made.contains.find((one) => one.name === `vg/${name}`)?.size, Number(lv['lv_size']));
        const kept = name === 'swap' || name === 'noise';
        t.is(Number(lv['lv_size']) < Number(was['lv_size']), !kept, name);
      }
      for (const name of ['root', 'wide']) {
        const volume = await takeOut(small.path, name, join(folder, `${name}.small`));
        await run('e2fsck', ['-f', '-n', volume]);
        const hashes = await withLoop(volume, folder, treeHashes, 'loop,ro,noload');
        t.is(hashes, await withLoop(files[name] ?? '', folder, treeHashes, 'loop,ro,noload'));
        t.true(hashes.split('\n').length >= 40);
      }
      const noise = await takeOut(small.path, 'noise', join(folder, 'noise.small'));
      t.is(await hashOf(noise), await hashOf(files['noise'] ?? ''));
      const swap = await takeOut(small.path, 'swap', join(folder, 'swap.small'));
      t.is((await run('blkid', ['-p', '-o', 'value', '-s', 'UUID', swap])).stdout.trim(), SWAP);

      // what did not move inside its volume is no new chunk, wherever the volume lies now
      const known = new Set(await idsOf(server.data, 'lab', 1, 'p1'));
      for (const name of ['root', 'wide', 'noise']) {
        const had = new Set(await chunkIds(files[name] ?? ''));
        const same = (await chunkIds(join(folder, `${name}.small`))).filter((id) => had.has(id));
        t.true(same.length >= 12 && same.every((id) => known.has(id)), name);
      }

      // a machine with a larger disk: as a deploy does it
      const large = await asDevice(t, image, 700 * MIB);
      const deployed = { device: large.path, nodes: [large.path], contains: made.contains, signal };
      const { proofs, warning } = await growVolumes(deployed);
      t.is(warning, null);
      t.deepEqual(
        proofs.slice(0, 2).map(({ what }) => what),
        ['vg/root fills its volume group', 'volume group vg is sound'],
      );
      const root = await takeOut(large.path, 'root', join(folder, 'root.large'));
      await run('e2fsck', ['-f', '-n', root]);
      t.is(
        await withLoop(root, folder, treeHashes, 'loop,ro,noload'),
        await withLoop(files['root'] ?? '', folder, treeHashes, 'loop,ro,noload'),
      );
    },
  );
}

test.serial(
  'a volume group that does not fit is refused with the size that would do, which then does',
  async (t) => {
    const folder = await memoryFolder(t);
    const server = await testServer(t, { data: join(folder, 'data') });
    const tree = await makeTree(join(folder, 'tree'), 60 * MIB);
    const { part } = await makeGroup(t, folder, tree);
    await storeImage(server.app.fog, 'lab', [part]);
    const refused = (await askShrink(server, 'lab', 1, { to: 100 * MIB })).json().error;
    t.is(refused.code, 'TARGET_TOO_SMALL');
    t.regex(refused.message, /made as small as it can be it needs \d+: p1 needs \d+ bytes/);
    t.deepEqual(await readdir(join(server.data, 'images/lab')), ['1']);
    t.is((await shrink(t, server, 'lab', 1, { to: refused.details.neededBytes })).error, null);

    // an estimate of one volume that was too low is found by its own tool, and the group's size follows from it
    const low = part.look?.contains.map((one) => ({
      ...one,
      filesystem: one.filesystem && { ...one.filesystem, minimumBytes: 8 * MIB },
    }));
    const look = { extents: part.look?.extents ?? [], contains: low ?? [] };
    await storeImage(server.app.fog, 'low', [{ ...part, minimumBytes: 60 * MIB, look }]);
    const { error } = await shrink(t, server, 'low', 1, { to: 100 * MIB });
    t.is(error?.code, 'TARGET_TOO_SMALL');
    t.is(error?.details['partition'], 'p1');
    t.deepEqual(await readdir(join(server.data, 'images/low')), ['1']);
    t.deepEqual(await readdir(join(server.data, 'uploads')), []);
    t.is((await shrink(t, server, 'low', 1, { to: error?.details['neededBytes'] })).error, null);
  },
);
