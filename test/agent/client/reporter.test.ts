import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { startReporter } from '../../../agent/client/reporter.ts';
import { ImagingError } from '../../../agent/errors.ts';
import { createLog } from '../../../agent/log.ts';
import type { Progress } from '../../../agent/protocol/index.ts';

const reading = () => ({
  step: 'transfer',
  message: '',
  done: 1,
  total: 2,
  rate: 0,
  etaSeconds: null,
  stalledSeconds: 0,
});

const start = (answer: () => Promise<{ cancel: boolean }>) => {
  const posts: Progress[] = [];
  const aborted = Promise.withResolvers<ImagingError>();
  const reporter = startReporter({
    server: {
      heartbeat: answer,
      progress: (_task, progress) => {
        posts.push(progress);
        return answer();
      },
    },
    taskId: 'task',
    attempt: 3,
    reading,
    abort: aborted.resolve,
    log: createLog({}),
    progressMs: 5,
  });
  return { posts, reporter, aborted: aborted.promise };
};

test('a cancel in any answer aborts the task', async (t) => {
  const { reporter, aborted } = start(async () => ({ cancel: true }));
  t.is((await aborted).code, 'TASK_CANCELLED');
  await reporter.stop();
});

test('a lease that another attempt holds aborts the task', async (t) => {
  const { reporter, aborted } = start(async () => {
    throw new ImagingError('LEASE_LOST', 'Cannot report: attempt 4 has it');
  });
  t.is((await aborted).code, 'LEASE_LOST');
  await reporter.stop();
});

test('a server that is away aborts nothing, and is asked on', async (t) => {
  let calls = 0;
  const { reporter, posts } = start(async () => {
    calls += 1;
    if (calls < 4) throw new ImagingError('SERVER_UNREACHABLE', 'Cannot reach it');
    return { cancel: false };
  });
  while (posts.length < 4) await sleep(5);
  await reporter.stop();
  t.true(posts.every(({ attempt }) => attempt === 3));
});

test('what is durable is posted at once and stays in later posts', async (t) => {
  const { reporter, posts } = start(async () => ({ cancel: false }));
  const durable = { binding: 'b'.repeat(64), ranges: { p1: [[0, 9] as [number, number]] } };
  reporter.setDurable(durable);
  await reporter.now();
  t.deepEqual(posts.at(-1)?.durable, durable);
  await reporter.now();
  t.deepEqual(posts.at(-1)?.durable, durable);
  await reporter.stop();
});
