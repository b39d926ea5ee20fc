import test from 'ava';
import type { SurfaceDisk } from '../../agent/protocol/index.ts';
import { surfaceLines } from '../../server-stub/cli/surface.ts';
import { addHost, addTask, bootAgent, failureOf, resultOf, showTask, testServer } from './support.ts';
import { surfaceDisk as diskOf, SURFACE_SIZE as SIZE, surfaceOf } from './surface-support.ts';

test('a surface test that names no disk is of all internal ones, not of the host’s own; writing says which', async (t) => {
  const server = await testServer(t);
  await server.admin({
    ...{ method: 'POST', url: '/api/hosts' },
    payload: { name: 'lab', macs: ['02:00:00:00:78:01'], disk: { serial: 'DEFAULT' } },
  });
  const add = (params: object) =>
    server.admin({
      ...{ method: 'POST', url: '/api/tasks' },
      payload: { host: 'lab', type: 'surface-test', params },
    });
  t.deepEqual((await add({})).json().params, { allInternal: false, mode: 'read' });
  t.is((await add({ mode: 'read-write' })).statusCode, 400);
  t.is((await add({ mode: 'write' })).statusCode, 400);
  t.is((await add({ allInternal: true, disk: { serial: 'S' } })).statusCode, 400);
  t.is((await add({ mode: 'read-write', disk: { serial: 'S' } })).statusCode, 201);
});

const bad = {
  ranges: [{ lba: 1001, sectors: 2, start: 512_512, size: 1024 }],
  ...{ more: { ranges: 0, sectors: 0 }, sectors: 2, bytes: 1024 },
};
const sick = diskOf({ verdict: 'bad', reasons: ['2 bad sectors'], bad });

test('a bad disk is a success; a success that the report does not bear out is refused', async (t) => {
  const server = await testServer(t);
  const host = await addHost(server, 'lab');
  const task = await addTask(server, host.id, 'surface-test', { disks: [{ serial: 'S1' }] });
  const agent = await bootAgent(server, host.mac);
  await agent.post('next');
  const finish = (result: object) => agent.post(`tasks/${task.id}/result`, result);
  const refused: [string, object][] = [
    ['no report', {}],
    ['no disk', surfaceOf(diskOf({ status: 'skipped' }))],
    ['another disk', surfaceOf(diskOf({ facts: { ...diskOf().facts, serial: 'S2' } }))],
    ['not tested', surfaceOf(diskOf({ status: 'failed' }))],
    ['a part of it', surfaceOf(diskOf({ bytes: SIZE - 512 }))],
    ['no verdict', surfaceOf(diskOf({ verdict: null }))],
    ['bad sectors called good', surfaceOf({ ...sick, verdict: 'good' })],
    [
      'a list without an end',
      surfaceOf({ ...sick, bad: { ...bad, ranges: Array(1001).fill(bad.ranges[0]) } }),
    ],
  ];
  for (const [what, more] of refused) t.is((await finish(resultOf(1, more))).statusCode, 400, what);
  t.is((await finish(resultOf(1, surfaceOf(sick)))).statusCode, 200);
  t.is((await showTask(server, task.id)).state, 'succeeded');
});

test('a surface test that fails keeps what it found', async (t) => {
  const server = await testServer(t);
  const host = await addHost(server, 'lab');
  const task = await addTask(server, host.id, 'surface-test', {});
  const agent = await bootAgent(server, host.mac);
  await agent.post('next');
  const lost = diskOf({ status: 'failed', verdict: 'bad', bytes: 4096 });
  const sent = await agent.post(`tasks/${task.id}/result`, {
    ...failureOf(1, 'DISK_LOST'),
    ...surfaceOf(lost),
  });
  t.is(sent.statusCode, 200);
  const { state, result } = await showTask(server, task.id);
  t.is(state, 'failed');
  t.like(result, { surface: { disks: [{ verdict: 'bad', bytes: 4096 }] } });
});

test('task show names the bad ranges, and how many more there are', (t) => {
  const ranges = Array.from({ length: 30 }, (_, at) => ({
    ...{ lba: at * 100, sectors: 1, start: at * 51_200, size: 512 },
  }));
  const many: SurfaceDisk = { ...sick, bad: { ...bad, ranges, more: { ranges: 5, sectors: 40 } } };
  const lines = surfaceLines([many, diskOf({ status: 'skipped' })]);
  t.is(lines[0], 'bad       S1: LBA 0, 1 sectors of 512 bytes');
  t.is(lines[20], 'bad       S1: 15 more ranges');
  t.regex(lines.at(-1) ?? '', /latency {3}S1: mean 5 ms, slowest 80 ms of 512 reads/);
});
