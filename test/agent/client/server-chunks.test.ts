import test from 'ava';
import { serverSource } from '../../../agent/client/server-chunks.ts';
import type { TaskServer } from '../../../agent/client/task-server.ts';
import { ImagingError } from '../../../agent/errors.ts';
import type { StoredChunk } from '../../../agent/image/chunk-store.ts';

const ids = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(64));
const chunkOf = (id: string): StoredChunk => ({ id, frame: new Uint8Array(10) });
const signal = new AbortController().signal;

const sourceFrom = (fetchPack: (asked: readonly string[]) => AsyncGenerator<StoredChunk>) => {
  const asked: string[][] = [];
  const traffic = { sent: 0, received: 0 };
  const server = {
    fetchPack: (_image: string, _version: number, wanted: readonly string[]) => {
      asked.push([...wanted]);
      return fetchPack(wanted);
    },
  } as unknown as TaskServer;
  return {
    asked,
    traffic,
    source: serverSource({ server, image: 'lab', version: 1, chunkSize: 1024, traffic }),
  };
};

const received = async (source: ReturnType<typeof sourceFrom>['source']): Promise<string[]> => {
  const found: string[] = [];
  for await (const { id } of source.fetch(ids, signal)) found.push(id);
  return found;
};

test('a pack that breaks off is asked for again, for what did not arrive', async (t) => {
  let round = 0;
  const { source, asked, traffic } = sourceFrom(async function* (wanted) {
    round += 1;
    for (const [index, id] of wanted.entries()) {
      if (round === 1 && index === 2) throw new Error('socket hang up');
      yield chunkOf(id);
    }
  });
  t.deepEqual(await received(source), ids);
  t.deepEqual(asked, [ids, ids.slice(2)]);
  t.is(traffic.received, 40);
});

test('a pack that ends early is asked for again', async (t) => {
  let round = 0;
  const { source, asked } = sourceFrom(async function* (wanted) {
    round += 1;
    yield* (round === 1 ? wanted.slice(0, 1) : wanted).map(chunkOf);
  });
  t.deepEqual(await received(source), ids);
  t.deepEqual(asked, [ids, ids.slice(1)]);
});

test('what the server says is final ends the deploy', async (t) => {
  const { source, asked } = sourceFrom(async function* () {
    yield chunkOf(ids[0] ?? '');
    throw new ImagingError('CHUNK_MISSING', 'Cannot send: not in the store');
  });
  const error = await t.throwsAsync(received(source));
  t.is((error as ImagingError).code, 'CHUNK_MISSING');
  t.is(asked.length, 1);
});

test('a chunk that nobody asked for is not passed on', async (t) => {
  let round = 0;
  const { source } = sourceFrom(async function* (wanted) {
    round += 1;
    if (round === 1) yield chunkOf('f'.repeat(64));
    else yield* wanted.map(chunkOf);
  });
  t.deepEqual(await received(source), ids);
});
