import { hash } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import fetch from 'node-fetch';
import { packStream, unpack } from '../../../agent/image/pack.ts';
import { frameLimit } from '../../../agent/protocol/agent-api.ts';
import { bytesOf, chunkOf, temporaryFolder, testPool, toArray } from './helpers.ts';

const length = 300_000;

test('workers read, zero, hash, compress, check and write the same bytes', async (t) => {
  const folder = await temporaryFolder(t);
  const pool = testPool(t);
  const content = bytesOf(1, length);
  await writeFile(join(folder, 'disk'), content);
  const disk = await open(join(folder, 'disk'), 'r');
  const target = await open(join(folder, 'target'), 'w+');
  t.teardown(() => Promise.all([disk.close(), target.close()]));
  const used = [
    { offset: 1000, length: 50_000 },
    { offset: 200_000, length: 100_000 },
  ];
  const expected = new Uint8Array(length);
  for (const { offset, length: bytes } of used)
    expected.set(content.subarray(offset, offset + bytes), offset);

  const region = await pool.arena.allocate(frameLimit(length));
  region.bytes.fill(0xff);
  const place = { fd: disk.fd, position: 0, length, align: 1 };
  const { id, bytesRead } = await pool.run('hash', { ...place, used, at: region.at, lookSeconds: 0 });
  t.is(id, hash('sha256', expected));
  t.is(bytesRead, 150_000);
  t.true(Buffer.from(expected).equals(region.bytes.subarray(0, length)));
  const again = await pool.run('hash', { ...place, used, at: null, lookSeconds: 0 });
  t.is(again.id, id);

  const frame = await pool.run('compress', { at: region.at, length, level: 3 });
  const at = { at: region.at, length: frame.length };
  t.is((await pool.run('check', { frame: at, id, limit: length })).length, length);
  await pool.run('write', { frame: at, id, length, fd: target.fd, align: 1, positions: [0, length] });
  const written = Buffer.alloc(2 * length);
  await target.read(written, 0, 2 * length, 0);
  t.true(Buffer.concat([expected, expected]).equals(written));

  const other = { frame: at, id: 'a'.repeat(64), length, fd: target.fd, align: 1, positions: [0] };
  await t.throwsAsync(pool.run('write', other), { code: 'CHUNK_CORRUPT' });
  const short = { frame: at, id, length: length - 1, fd: target.fd, align: 1, positions: [0] };
  await t.throwsAsync(pool.run('write', short), { code: 'CHUNK_CORRUPT' });
});

test('frames in shared memory cross HTTP unharmed', async (t) => {
  const pool = testPool(t);
  const chunks = [1, 2, 3].map((seed) => chunkOf(bytesOf(seed, length)));
  const held = await Promise.all(
    chunks.map(async ({ id, frame }) => {
      const region = await pool.hold(frame);
      return { id, frame: region.bytes.subarray(0, frame.length) };
    }),
  );
  const server = createServer((request, response) => {
    toArray(unpack(request, { maxFrame: frameLimit(length) })).then(
      (received) => response.end(JSON.stringify(received.map(({ frame }) => hash('sha256', frame)))),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: packStream(held) });
  t.deepEqual(
    await answer.json(),
    chunks.map(({ frame }) => hash('sha256', frame)),
  );
});

test('a closed pool fails what is left and takes nothing more', async (t) => {
  const pool = testPool(t);
  const region = await pool.hold(bytesOf(1, length));
  const jobs = Array.from({ length: 20 }, () =>
    pool.run('check', { frame: { at: region.at, length: 10 }, id: 'a'.repeat(64), limit: 10 }),
  );
  const ends = Promise.allSettled(jobs);
  await pool.close();
  t.true((await ends).every(({ status }) => status === 'rejected'));
  await t.throwsAsync(pool.run('compress', { at: 0, length: 1, level: 1 }), { code: 'INTERNAL' });
});

test('idle seconds and stage seconds add up to the time of the workers', async (t) => {
  const pool = testPool(t);
  const before = pool.usage();
  const region = await pool.hold(bytesOf(1, length));
  await pool.run('compress', { at: region.at, length, level: 9 });
  const after = pool.usage();
  t.true(after.codec > before.codec);
  t.true(after.idle > before.idle);
});
