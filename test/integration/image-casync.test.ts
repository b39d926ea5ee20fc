import { createReadStream } from 'node:fs';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import test from 'ava';
import { type Captured, captureRange } from '../../agent/image/capture.ts';
import type { Extent } from '../../agent/image/extent.ts';
import { openLocalStore } from '../../agent/image/local-store.ts';
import { normaliseExtents } from '../../agent/image/used-map.ts';
import { run } from '../../agent/process/run.ts';
import {
  fileHashes,
  folderOf,
  fsck,
  loopDevice,
  MIB,
  makeExt4,
  poolOf,
  usedExtents,
} from './image-helpers.ts';

// the Debian package: a judge of the format that is not ours
const size = 96 * MIB + 20 * 1024;

interface Case {
  captured: Captured;
  folder: string;
  source: string;
  extents: Extent[];
}

const captureExt4 = async (t: Parameters<typeof folderOf>[0]): Promise<Case> => {
  const folder = await folderOf(t);
  const pool = poolOf(t);
  const source = await loopDevice(t, join(folder, 'source'), size);
  await makeExt4(source, folder);
  const extents = await usedExtents(source, folder);
  const sink = openLocalStore(join(folder, 'chunks'), pool);
  const common = { start: 0, size, chunkSize: MIB, level: 3, sink, pool };
  const captured = await captureRange({ ...common, device: source, extents });
  await writeFile(join(folder, 'p1.caibx'), captured.index);
  return { captured, folder, source, extents };
};

const checkExtracted = async (t: Parameters<typeof folderOf>[0], name: string, made: Case): Promise<void> => {
  const { folder, source, extents } = made;
  const extracted = join(folder, name);
  t.is((await stat(extracted)).size, size);
  const [ours, theirs] = [await readFile(join(folder, 'source')), await readFile(extracted)];
  for (const { offset, length } of normaliseExtents(extents, size)) {
    const end = offset + length;
    t.is(
      Buffer.compare(ours.subarray(offset, end), theirs.subarray(offset, end)),
      0,
      `used bytes at ${offset}`,
    );
  }
  const device = await loopDevice(t, extracted, size);
  await fsck(device);
  t.is(await fileHashes(device, folder), await fileHashes(source, folder));
};

test('casync extracts a captured partition from the store', async (t) => {
  const made = await captureExt4(t);
  const { folder } = made;
  await run('casync', ['extract', `--store=${folder}/chunks`, `${folder}/p1.caibx`, `${folder}/out.img`]);
  await checkExtracted(t, 'out.img', made);
});

test('casync reads the store over HTTP from a plain file server', async (t) => {
  const made = await captureExt4(t);
  const { folder } = made;
  const server = createServer((request, response) => {
    createReadStream(join(folder, normalize(new URL(request.url ?? '/', 'http://x').pathname)))
      .on('error', () => response.writeHead(404).end())
      .pipe(response);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  await run('casync', ['extract', `--store=${url}/chunks`, `${url}/p1.caibx`, `${folder}/out.img`]);
  await checkExtracted(t, 'out.img', made);
});

test('an index of one short chunk extracts too', async (t) => {
  const folder = await folderOf(t);
  const pool = poolOf(t);
  const file = await open(join(folder, 'small'), 'w');
  await file.write(Buffer.alloc(5 * 1024, 7));
  await file.close();
  const sink = openLocalStore(join(folder, 'chunks'), pool);
  const extents = [{ offset: 0, length: 5120 }];
  const common = { start: 0, size: 5120, extents, chunkSize: MIB, level: 3, sink, pool };
  const captured = await captureRange({ ...common, device: join(folder, 'small') });
  await writeFile(join(folder, 'p1.caibx'), captured.index);
  await run('casync', ['extract', `--store=${folder}/chunks`, `${folder}/p1.caibx`, `${folder}/out.img`]);
  t.true((await readFile(join(folder, 'out.img'))).equals(await readFile(join(folder, 'small'))));
});
