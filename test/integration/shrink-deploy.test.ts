import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createTaskServer } from '../../agent/client/task-server.ts';
import { hasCode, ImagingError } from '../../agent/errors.ts';
import { createLog } from '../../agent/log.ts';
import type { Manifest } from '../../agent/protocol/index.ts';
import type { TaskContext, TaskOf } from '../../agent/tasks/context.ts';
import { fetchImage } from '../../agent/tasks/deploy-fetch.ts';
import { fittingVersion } from '../../agent/tasks/deploy-fit.ts';
import { toArray } from '../agent/image/helpers.ts';
import {
  addHost,
  addTask,
  bootAgent,
  bootToken,
  checkInBody,
  failureOf,
  newMac,
  testServer,
} from '../server-stub/support.ts';
import {
  askShrink,
  idsOf,
  MIB,
  makeExt4,
  makeTree,
  memoryFolder,
  shrink,
  storeImage,
} from './shrink-helpers.ts';

const TARGET = 200_000_000;

const serverWithImage = async (t: ExecutionContext) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data'), now: Date.now });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  const part = await makeExt4(folder, 400 * MIB, tree);
  await storeImage(server.app.fog, 'lab', [part]);
  return { server, folder, part };
};

/** What a deploy has in hand when it plans: its task, the image, and a planner that looks at sizes only. */
const deployTo = async (t: ExecutionContext, size: number, params: object = {}) => {
  const { server } = await serverWithImage(t);
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = server.app.server.address() as AddressInfo;
  const client = createTaskServer({ server: `http://127.0.0.1:${port}` });
  t.teardown(() => client.close());
  const stop = new AbortController();
  const { signal } = stop;
  const steps: string[] = [];
  const context = {
    server: client,
    config: { publicKey: server.app.fog.key.publicKey },
    log: createLog({}),
    signal,
    step: (name: string) => {
      steps.push(name);
      return { add: () => undefined, say: () => undefined };
    },
  } as unknown as TaskContext;

  const start = async (mac: string) => {
    const body = checkInBody(await bootToken(server, mac), mac);
    await client.checkIn(
      { ...body, identity: { ...body.identity, firmware: 'bios', secureBoot: 'off' } },
      signal,
    );
    const next = await client.next(signal);
    if (next.kind !== 'task' || next.task.type !== 'deploy') throw new Error('no deploy');
    const task: TaskOf<'deploy'> = next.task;
    const image = await fetchImage('lab', task.params.version, context);
    const judge = ({ disks, version }: Manifest) => {
      const [disk] = disks;
      if (disk && disk.size <= size) return version;
      throw new ImagingError('TARGET_TOO_SMALL', 'Cannot deploy: too small', {
        details: { neededBytes: disk?.size },
      });
    };
    return { task, plan: () => fittingVersion({ task, image, targets: { d1: size }, plan: judge, context }) };
  };
  const mac = newMac();
  await addHost(server, `pc-${mac}`, mac);
  await addTask(server, mac, 'deploy', { image: 'lab', ...params });
  return { server, steps, stop, mac, client, start };
};

test('a deploy waits for the smaller version, and its next attempt goes on with the same', async (t) => {
  const { server, steps, mac, start, client } = await deployTo(t, TARGET);
  const first = await start(mac);
  const fitting = await first.plan();
  t.is(fitting.plan, 2);
  t.is(fitting.image.manifest.derivedFrom, 1);
  t.true(steps.includes('wait-for-smaller-version'));

  // the machine boots again; meanwhile somebody made another one that would fit as well
  t.is((await shrink(t, server, 'lab', 1, { to: 120_000_000 })).result, 3);
  steps.length = 0;
  const second = await start(mac);
  t.is(second.task.attempt, 2);
  t.is((await second.plan()).plan, 2);
  t.deepEqual(steps, [], 'at once');

  // of the store this machine reads what it deploys and nothing else
  const [id = ''] = await idsOf(server.data, 'lab', 2, 'p1');
  const pack = client.fetchPack('lab', 2, [id], 2 * MIB, new AbortController().signal);
  t.is((await toArray(pack)).length, 1);
});

test('a disk that fits needs nothing; one that never will is refused with the size that would do', async (t) => {
  const roomy = await deployTo(t, 10_000_000_000);
  t.is((await (await roomy.start(roomy.mac)).plan()).plan, 1);
  t.deepEqual(roomy.steps, []);

  const tiny = await deployTo(t, 10_000_000);
  const { plan } = await tiny.start(tiny.mac);
  const error = await t.throwsAsync(plan, { instanceOf: ImagingError });
  t.is(error.code, 'TARGET_TOO_SMALL');
  const needed = Number(error.details['neededBytes']);
  t.true(needed > 20 * MIB && needed < 400 * MIB, String(needed));
});

test('a dry run makes nothing, and uses what is there', async (t) => {
  const { server, mac, start } = await deployTo(t, TARGET, { dryRun: true });
  const { plan } = await start(mac);
  const error = await t.throwsAsync(plan, { instanceOf: ImagingError });
  t.is(error.code, 'TARGET_TOO_SMALL');
  t.regex(error.message, /would have the server make a smaller version/);
  t.false(server.app.fog.shrinks.isSource('lab', 1));
  await shrink(t, server, 'lab', 1, { to: TARGET });
  t.is((await plan()).plan, 2);
});

test('a cancel ends the waiting', async (t) => {
  const { stop, mac, start } = await deployTo(t, TARGET);
  const { plan } = await start(mac);
  const waiting = plan();
  stop.abort(new ImagingError('TASK_CANCELLED', 'Cannot go on: cancelled'));
  const error = await t.throwsAsync(waiting);
  t.true(hasCode(error, 'TASK_CANCELLED'));
});

test('a machine asks for its own deploy only, and reads only versions made from its image', async (t) => {
  const { server, part } = await serverWithImage(t);
  await storeImage(server.app.fog, 'lab', [part]);
  t.is((await shrink(t, server, 'lab', 2, { to: TARGET })).result, 3);
  const { mac } = await addHost(server, 'pc1');
  const other = await addHost(server, 'pc2');
  const task = await addTask(server, mac, 'deploy', { image: 'lab', version: 1 });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  const manifestOf = (version: number) =>
    agent.call({ url: `/agent/v1/images/lab/versions/${version}` }).then(({ statusCode }) => statusCode);
  t.is(await manifestOf(1), 200);
  t.is(await manifestOf(2), 404);
  t.is(await manifestOf(3), 404, 'made from another version');

  const body = { attempt: 1, disks: [{ name: 'd1', size: TARGET }] };
  const asked = await agent.post(`tasks/${task.id}/derive`, body);
  t.like(asked.json(), { state: 'making', cancel: false });
  const { job } = asked.json();
  t.like(await shrink(t, server, 'lab', 1, { to: TARGET }), { result: 4 });
  t.like((await agent.post(`tasks/${task.id}/derive`, { ...body, job })).json(), {
    state: 'ready',
    version: 4,
  });
  t.is(await manifestOf(4), 200);
  t.is(
    (await agent.post(`tasks/${task.id}/derive`, { ...body, attempt: 7 })).json().error.code,
    'LEASE_LOST',
  );
  t.is(
    (await agent.post(`tasks/${task.id}/derive`, { ...body, disks: [] })).json().error.code,
    'BAD_REQUEST',
  );

  await addTask(server, other.mac, 'inventory');
  const stranger = await bootAgent(server, other.mac);
  const theirs = (await stranger.post('next')).json().task.id;
  t.is((await stranger.post(`tasks/${task.id}/derive`, body)).statusCode, 404);
  t.is((await stranger.post(`tasks/${theirs}/derive`, body)).json().error.code, 'BAD_REQUEST');
  await agent.post(`tasks/${task.id}/result`, failureOf(1, 'TASK_CANCELLED'));
  t.is(await manifestOf(4), 404, 'with its task the right ends');
  t.is((await askShrink(server, 'lab', 1, { to: TARGET })).json().result, 4);
});
