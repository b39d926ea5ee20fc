import test from 'ava';
import { createLogUploader } from '../../../agent/client/log-uploader.ts';

const signal = new AbortController().signal;

const fakeServer = () => {
  const batches: { from: number; lines: string[] }[] = [];
  let away = false;
  return {
    batches,
    setAway: (value: boolean) => {
      away = value;
    },
    log: async (_task: string, { from, lines }: { from: number; lines: string[] }) => {
      if (away) throw new Error('away');
      batches.push({ from, lines });
      return { cancel: false };
    },
  };
};

test('lines of before the task go along, each with its number', async (t) => {
  const server = fakeServer();
  const uploader = createLogUploader(server);
  uploader.write('boot');
  uploader.attach('task', 1);
  uploader.write('begin');
  await uploader.flush(signal);
  uploader.write('end');
  await uploader.flush(signal);
  t.deepEqual(server.batches, [
    { from: 0, lines: ['boot', 'begin'] },
    { from: 2, lines: ['end'] },
  ]);
});

test('nothing is lost and nothing is sent under another number when the server was away', async (t) => {
  const server = fakeServer();
  const uploader = createLogUploader(server);
  uploader.attach('task', 1);
  uploader.write('one');
  server.setAway(true);
  await t.throwsAsync(uploader.flush(signal));
  uploader.write('two');
  server.setAway(false);
  await uploader.flush(signal);
  t.deepEqual(server.batches, [{ from: 0, lines: ['one', 'two'] }]);
});

test('more lines than one request takes go in several', async (t) => {
  const server = fakeServer();
  const uploader = createLogUploader(server);
  uploader.attach('task', 1);
  for (let line = 0; line < 2500; line++) uploader.write(String(line));
  await uploader.flush(signal);
  t.deepEqual(
    server.batches.map(({ from, lines }) => [from, lines.length]),
    [
      [0, 1000],
      [1000, 1000],
      [2000, 500],
    ],
  );
});
