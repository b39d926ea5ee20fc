import test from 'ava';
import { waitOut } from '../../../agent/client/backoff.ts';
import { ImagingError } from '../../../agent/errors.ts';

const unreachable = () => new ImagingError('SERVER_UNREACHABLE', 'Cannot reach the server: refused');

test('a call that fails twice for the network works the third time', async (t) => {
  let calls = 0;
  const waits: number[] = [];
  const result = await waitOut(
    async () => {
      calls += 1;
      if (calls < 3) throw unreachable();
      return 'answer';
    },
    {
      signal: new AbortController().signal,
      random: () => 0,
      onWait: (_error, seconds) => waits.push(seconds),
    },
  );
  t.is(result, 'answer');
  t.deepEqual(waits, [0.25, 0.5]);
});

test('an error that waiting cannot mend is thrown at once', async (t) => {
  let calls = 0;
  await t.throwsAsync(
    waitOut(
      async () => {
        calls += 1;
        throw new ImagingError('STORE_FULL', 'Cannot store: full');
      },
      { signal: new AbortController().signal },
    ),
    { message: /full/ },
  );
  t.is(calls, 1);
});

test('an outage longer than the patience is final', async (t) => {
  let at = 0;
  const error = await t.throwsAsync(
    waitOut(
      async () => {
        at += 1_000_000;
        throw unreachable();
      },
      { signal: new AbortController().signal, patienceSeconds: 1800, now: () => at, random: () => 0 },
    ),
  );
  t.is((error as ImagingError).code, 'SERVER_UNREACHABLE');
  t.is(at, 2_000_000);
});

test('a cancel ends the waiting', async (t) => {
  const controller = new AbortController();
  await t.throwsAsync(
    waitOut(
      async () => {
        setTimeout(() => controller.abort(), 10);
        throw unreachable();
      },
      { signal: controller.signal, random: () => 1 },
    ),
  );
});
