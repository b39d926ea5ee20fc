import test from 'ava';
import { createLogUploader } from '../../../agent/client/log-uploader.ts';
import type { TaskServer } from '../../../agent/client/task-server.ts';
import { ImagingError } from '../../../agent/errors.ts';
import { createLog } from '../../../agent/log.ts';
import { type TaskResult, taskResultSchema } from '../../../agent/protocol/index.ts';
import { type RunTaskOptions, runTask } from '../../../agent/tasks/run-task.ts';
import { createTally } from '../../../agent/tasks/tally.ts';

const stats = createTally({ sent: 7, received: 11 }).total();

const run = async (
  handler: NonNullable<RunTaskOptions['handler']>,
  answer: { cancel: boolean } | Error = { cancel: false },
) => {
  const results: TaskResult[] = [];
  const reply = async () => {
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const server = {
    progress: reply,
    heartbeat: reply,
    log: async () => ({ cancel: false }),
    result: async (_task: string, result: TaskResult) => {
      results.push(taskResultSchema.parse(result));
      return { cancel: false };
    },
  } as unknown as TaskServer;
  await runTask({
    task: {
      id: crypto.randomUUID(),
      type: 'inventory',
      params: {},
      attempt: 2,
      after: 'stay',
      durable: null,
    },
    server,
    config: { server: 'http://fog.test', token: 't', publicKey: 'k', stay: true },
    identity: { macs: ['02:00:00:00:00:01'], firmware: 'bios', secureBoot: 'unsupported' },
    hostName: 'lab-01',
    log: createLog({}),
    uploader: createLogUploader(server),
    show: () => undefined,
    signal: new AbortController().signal,
    handler,
  });
  return results;
};

test('a handler that proves something succeeds, with its evidence', async (t) => {
  const [result] = await run(async (_task, context) => {
    context.prove('it works', 'seen');
    context.warn('but slowly');
    return { summary: 'done' };
  });
  t.is(result?.outcome, 'succeeded');
  t.is(result?.attempt, 2);
  t.deepEqual(result?.evidence, [{ what: 'it works', proof: 'seen' }]);
  t.deepEqual(result?.warnings, ['but slowly']);
});

test('a handler that throws fails with its code, and keeps what was known by then', async (t) => {
  const [result] = await run(async (_task, context) => {
    context.showPlan({ partitions: [] });
    context.showDisk({ serial: 'S', wwn: '', size: 5 });
    context.showStats(stats);
    context.showImage({ name: 'lab', version: 3 });
    context.prove('the disk holds the image', 'read back');
    throw new ImagingError('TARGET_TOO_SMALL', 'Cannot deploy: too small', { details: { needed: 7 } });
  });
  t.is(result?.outcome, 'failed');
  t.is(result?.error?.code, 'TARGET_TOO_SMALL');
  t.deepEqual(result?.error?.details, { needed: 7 });
  t.deepEqual(result?.plan, { partitions: [] });
  t.deepEqual(result?.disk, { serial: 'S', wwn: '', size: 5 });
  t.deepEqual(result?.stats, stats);
  t.deepEqual(result?.image, { name: 'lab', version: 3 });
  t.deepEqual(result?.evidence, [{ what: 'the disk holds the image', proof: 'read back' }]);
});

test('a defect is reported as one', async (t) => {
  const [result] = await run(async () => {
    throw new TypeError('undefined is not a function');
  });
  t.is(result?.error?.code, 'INTERNAL');
});

test('a cancel wins over the error that it caused', async (t) => {
  const [result] = await run(
    (_task, context) =>
      new Promise((_resolve, reject) => {
        context.signal.addEventListener('abort', () => reject(new Error('a tool was killed')));
      }),
    { cancel: true },
  );
  t.is(result?.outcome, 'cancelled');
  t.is(result?.error?.code, 'TASK_CANCELLED');
});

test('a lost lease is not reported on: the task is another attempt of this machine', async (t) => {
  const error = await t.throwsAsync(
    run(
      (_task, context) =>
        new Promise((_resolve, reject) => {
          context.signal.addEventListener('abort', () => reject(new Error('stopped')));
        }),
      new ImagingError('LEASE_LOST', 'Cannot report: attempt 3 has it'),
    ),
  );
  t.is((error as ImagingError).code, 'LEASE_LOST');
});
