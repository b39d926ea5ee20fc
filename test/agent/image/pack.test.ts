import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import test from 'ava';
import fc from 'fast-check';
import tar from 'tar-stream';
import { isImagingError } from '../../../agent/errors.ts';
import type { StoredChunk } from '../../../agent/image/chunk-store.ts';
import { packStream, unpack } from '../../../agent/image/pack.ts';
import { bytesOf, chunkOf, toArray } from './helpers.ts';

const maxFrame = 1_100_000;
const chunks = [1, 2, 3].map((seed) => chunkOf(bytesOf(seed, 100_000 * seed)));

const collect = async (stream: Readable, options = {}): Promise<StoredChunk[]> =>
  toArray(unpack(stream, { maxFrame, ...options }));

test('a pack brings back its chunks in order', async (t) => {
  const received = await collect(packStream(chunks));
  t.deepEqual(
    received.map(({ id }) => id),
    chunks.map(({ id }) => id),
  );
  for (const [number, { frame }] of received.entries()) {
    t.is(Buffer.compare(frame, chunks[number]?.frame ?? Buffer.alloc(0)), 0);
  }
});

test('the same chunks make the same bytes', async (t) => {
  t.true((await buffer(packStream(chunks))).equals(await buffer(packStream(chunks))));
});

test('an empty pack is a pack', async (t) => {
  t.deepEqual(await collect(packStream([])), []);
});

test('an error of the chunks reaches the reader', async (t) => {
  async function* failing(): AsyncGenerator<StoredChunk> {
    yield* chunks.slice(0, 1);
    throw new Error('the disk went away');
  }
  await t.throwsAsync(collect(packStream(failing())), { message: 'the disk went away' });
});

const packOf = (entries: { name: string; type?: 'file' | 'symlink'; body?: string }[]): Readable => {
  const pack = tar.pack();
  for (const { name, type = 'file', body = '' } of entries) {
    if (type === 'file') pack.entry({ name, type }, body);
    else pack.entry({ name, type, linkname: '/etc/passwd' });
  }
  pack.finalize();
  return Readable.from(pack);
};

const id = 'a'.repeat(64);
const refusals: [string, { name: string; type?: 'file' | 'symlink'; body?: string }[], string][] = [
  ['a name with a folder', [{ name: `../${id}.cacnk` }], 'BAD_REQUEST'],
  ['an upper-case name', [{ name: `${id.toUpperCase()}.cacnk` }], 'BAD_REQUEST'],
  ['another file', [{ name: 'manifest.json', body: '{}' }], 'BAD_REQUEST'],
  ['a link', [{ name: `${id}.cacnk`, type: 'symlink' }], 'BAD_REQUEST'],
  ['an id twice', [{ name: `${id}.cacnk` }, { name: `${id}.cacnk` }], 'BAD_REQUEST'],
  ['a frame over the limit', [{ name: `${id}.cacnk`, body: 'x'.repeat(maxFrame + 1) }], 'CHUNK_CORRUPT'],
];
for (const [what, entries, code] of refusals) {
  test(`a pack with ${what} is refused`, async (t) => {
    await t.throwsAsync(collect(packOf(entries)), { code });
  });
}

test('more chunks than agreed are refused', async (t) => {
  await t.throwsAsync(collect(packStream(chunks), { maxChunks: 2 }), { code: 'BAD_REQUEST' });
});

test('a pack cut off inside a chunk is refused', async (t) => {
  const whole = await buffer(packStream(chunks));
  await t.throwsAsync(collect(Readable.from([whole.subarray(0, 70_000)])), { code: 'BAD_REQUEST' });
});

test('an error of the stream comes through as it is', async (t) => {
  const whole = await buffer(packStream(chunks));
  async function* torn(): AsyncGenerator<Buffer> {
    yield whole.subarray(0, 70_000);
    throw Object.assign(new Error('connection reset'), { code: 'ECONNRESET' });
  }
  await t.throwsAsync(collect(Readable.from(torn())), { code: 'ECONNRESET' });
});

test('cancelling ends the reading', async (t) => {
  const controller = new AbortController();
  const endless = new Readable({ read: () => {} });
  const reading = collect(endless, { signal: controller.signal });
  controller.abort(new Error('stop'));
  await t.throwsAsync(reading, { message: 'stop' });
  t.true(endless.destroyed);
});

test('a reader that stops early closes the stream', async (t) => {
  const stream = packStream(chunks);
  for await (const chunk of unpack(stream, { maxFrame })) {
    t.true(chunks[0]?.id === chunk.id);
    break;
  }
  t.true(stream.destroyed);
});

test('noise never brings anything but an ImagingError', async (t) => {
  const whole = await buffer(packStream(chunks.slice(0, 1)));
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 4096 }),
    fc.tuple(fc.nat(2047), fc.integer({ min: 1, max: 255 })).map(([at, flip]) => {
      const copy = Buffer.from(whole);
      copy[at] = (copy[at] ?? 0) ^ flip;
      return copy;
    }),
  );
  await fc.assert(
    fc.asyncProperty(noise, async (bytes) => {
      try {
        await collect(Readable.from([bytes]));
        return true;
      } catch (error) {
        return isImagingError(error);
      }
    }),
    { numRuns: 300 },
  );
  t.pass();
});
