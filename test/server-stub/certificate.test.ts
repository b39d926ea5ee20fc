import { generateKeyPairSync } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { run } from '../../agent/process/run.ts';
import { canonicalJson } from '../../server-stub/certificate/canonical.ts';
import { verifyCertificate } from '../../server-stub/certificate/verify.ts';
import { main } from '../../server-stub/main.ts';
import {
  addHost,
  addTask,
  bootAgent,
  failureOf,
  progressOf,
  resultOf,
  showTask,
  type TestServer,
  tempFolder,
  testServer,
  WIPED_SIZE,
  wipedDisk,
  wipeOf,
} from './support.ts';

const SIZE = WIPED_SIZE;
const diskOf = wipedDisk;

const skipped = diskOf({
  ...{ status: 'skipped', reason: 'USB: only when named', passes: [], verification: null },
  facts: { ...diskOf().facts, name: 'sdb', serial: 'USB1' },
});

/** A machine that has taken up a wipe. */
const started = async (server: TestServer, type = 'wipe-normal', params: object = { allInternal: true }) => {
  const host = await addHost(server, `lab-${Math.random()}`);
  const task = await addTask(server, host.id, type, params);
  const agent = await bootAgent(server, host.mac);
  await agent.post('next');
  const finish = (result: object) => agent.post(`tasks/${task.id}/result`, result);
  return { host, task, agent, finish };
};

const certificateOf = (server: TestServer, id: string, kind = '') =>
  server.admin({ url: `/api/tasks/${id}/certificate${kind}` });

test('a wipe says which disks, in one way: not the host’s default, not nothing, not both', async (t) => {
  const server = await testServer(t);
  await server.admin({
    ...{ method: 'POST', url: '/api/hosts' },
    payload: { name: 'lab', macs: ['02:00:00:00:77:01'], disk: { serial: 'DEFAULT' } },
  });
  const add = (params: object, more: object = {}) =>
    server.admin({
      method: 'POST',
      url: '/api/tasks',
      payload: { host: 'lab', type: 'wipe-full', params, ...more },
    });
  for (const params of [
    {},
    { allInternal: true, disk: { serial: 'S' } },
    { allInternal: true, passes: 1 },
    { allInternal: true, orOverwrite: true },
  ]) {
    t.is((await add(params)).statusCode, 400, JSON.stringify(params));
  }
  const added = await add({ disks: [{ serial: 'S' }], passes: 5 });
  t.is(added.statusCode, 201);
  t.like(added.json().params, {
    passes: 5,
    verify: 'full',
    purge: false,
    countdownSeconds: 10,
    disks: [{ serial: 'S' }],
  });
  t.is((await add({ allInternal: true }, { confirmHosts: 12 })).statusCode, 400);
  t.is((await add({ allInternal: true }, { confirmHosts: 1 })).statusCode, 201);
});

test('a wipe that was read back ends with a certificate of every disk, signed by the server’s key, as JSON and PDF', async (t) => {
  const server = await testServer(t);
  const { task, finish, agent } = await started(server, 'wipe-normal', {
    allInternal: true,
    operator: 'Eve',
    destination: 'sold',
  });
  t.is((await certificateOf(server, task.id)).statusCode, 404, 'none before');
  const result = resultOf(1, wipeOf(diskOf(), skipped));
  t.is((await finish(result)).statusCode, 200);
  const first = await certificateOf(server, task.id);
  t.is(first.statusCode, 200);
  const body = verifyCertificate(first.body, server.app.fog.key.publicKey);
  t.like(body, { operator: 'Eve', destination: 'sold', title: 'Certificate of erasure', erased: true });
  t.regex(body.conclusion, /^ERASED and read back: all of 1 disk that the task was for \(sda, S1\)$/);
  t.like(body.machine, { manufacturer: 'ACME', product: 'Box' });
  t.deepEqual(
    body.report.disks.map(({ facts, status }) => [facts.serial, status]),
    [
      ['S1', 'cleared-verified'],
      ['USB1', 'skipped'],
    ],
  );
  t.is((await certificateOf(server, task.id, '.json')).body, first.body);
  const pdf = await certificateOf(server, task.id, '.pdf');
  t.is(pdf.headers['content-type'], 'application/pdf');
  t.true(pdf.rawPayload.subarray(0, 5).equals(Buffer.from('%PDF-')));
  t.true((await certificateOf(server, task.id, '.pdf')).rawPayload.length > 2000);
  t.regex(String(pdf.headers['content-disposition']), /"erased-/);
  // the answer was lost: the same result again changes nothing
  server.clock.now += 60_000;
  t.is((await agent.post(`tasks/${task.id}/result`, result)).statusCode, 200);
  t.is((await certificateOf(server, task.id)).body, first.body);
});

test('a success that the report does not bear out is refused, and there is no certificate', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  const whole = diskOf().verification;
  const missed = { sectors: 1, ranges: [{ lba: 5, sectors: 1 }] };
  const lies: [string, object][] = [
    ['no report', {}],
    ['no disk', wipeOf(skipped)],
    ['a failed disk among them', wipeOf(diskOf(), diskOf({ status: 'failed' }))],
    ['an interrupted one', wipeOf(diskOf({ status: 'interrupted' }))],
    ['not read back', wipeOf(diskOf({ verification: null }))],
    ['a part read back', wipeOf(diskOf({ verification: whole && { ...whole, bytes: SIZE - 512 } }))],
    ['other bytes found', wipeOf(diskOf({ verification: whole && { ...whole, wrong: missed } }))],
    [
      'sectors missed',
      wipeOf(diskOf({ passes: [{ number: 1, pattern: 'random', bytes: SIZE, seconds: 1, missed }] })),
    ],
    ['only the ends', wipeOf(diskOf({ status: 'signatures-removed' }))],
    ['purged without a method', wipeOf(diskOf({ status: 'purged-verified' }))],
  ];
  for (const [why, more] of lies) {
    t.is((await finish(resultOf(1, more))).statusCode, 400, why);
    t.is((await certificateOf(server, task.id)).statusCode, 404, why);
  }
  t.is((await showTask(server, task.id)).state, 'running');
});

test('purge: a wipe that asked for it is no success without it', async (t) => {
  const server = await testServer(t);
  const { finish } = await started(server, 'wipe-fast', { allInternal: true, purge: true });
  t.is((await finish(resultOf(1, wipeOf(diskOf())))).statusCode, 400);
  const purge = {
    ...{ method: 'nvme-sanitize-crypto', level: 'Purge', attempts: [], reasons: [] },
    check: { places: 500, bytes: 2_048_000, survived: 0 },
  };
  t.is((await finish(resultOf(1, wipeOf(diskOf({ status: 'purged-verified', purge }))))).statusCode, 200);
});

test('the disks that the task names must be there; and where overwriting stands in for a purge, the two ends do not', async (t) => {
  const server = await testServer(t);
  const named = await started(server, 'wipe-normal', { disks: [{ serial: 'S1' }, { serial: 'S9' }] });
  t.is((await named.finish(resultOf(1, wipeOf(diskOf())))).statusCode, 400);
  const instead = await started(server, 'wipe-fast', { allInternal: true, purge: true, orOverwrite: true });
  const ends = diskOf({ status: 'signatures-removed' });
  t.is((await instead.finish(resultOf(1, wipeOf(ends)))).statusCode, 400);
  t.is((await instead.finish(resultOf(1, wipeOf(diskOf())))).statusCode, 200);
});

const wholeDisk = diskOf();
const failedDisk = diskOf({
  ...{ status: 'failed', reason: 'Cannot erase all of /dev/sdc: partially erased', verification: null },
  error: { code: 'WIPE_INCOMPLETE', message: 'Cannot erase all of it', details: {}, retryable: false },
  facts: { ...wholeDisk.facts, name: 'sdc', serial: 'S3' },
  passes: [
    {
      ...{ number: 1, pattern: 'random', bytes: SIZE - 512, seconds: 3 },
      missed: { sectors: 1, ranges: [{ lba: 4711, sectors: 1 }] },
    },
  ],
});

test('a wipe of which a disk failed leaves a signed record of every disk, and no reader takes it for a certificate', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  const report = wipeOf(wholeDisk, skipped, failedDisk);
  t.is((await finish({ ...failureOf(1, 'WIPE_INCOMPLETE'), ...report })).statusCode, 200);
  t.is((await showTask(server, task.id)).state, 'failed');

  const text = (await certificateOf(server, task.id)).body;
  const body = verifyCertificate(text, server.app.fog.key.publicKey);
  t.like(body, { erased: false, outcome: 'failed', error: { code: 'WIPE_INCOMPLETE' } });
  t.is(body.title, 'Record of a failed wipe: no certificate of erasure');
  t.is(body.conclusion, 'NOT ERASED: 1 of 2 disks that the task was for (sdc, S3)');
  t.deepEqual(
    body.verdicts.map(({ serial, verdict }) => [serial, verdict]),
    [
      ['S1', 'ERASED'],
      ['USB1', 'LEFT ALONE'],
      ['S3', 'NOT ERASED'],
    ],
  );
  const pdf = await certificateOf(server, task.id, '.pdf');
  t.regex(String(pdf.headers['content-disposition']), /"not-erased-/);
  const pages = await textOf(t, pdf.rawPayload);
  t.regex(pages, /NOT ERASED: 1 of 2 disks that the task was for/);
  t.regex(pages, /NOT ERASED: sdc, serial S3 \(failed\)/);
  t.regex(pages, /ERASED: sda, serial S1 \(cleared-verified\)/);
  t.regex(pages, /LEFT ALONE: sdb, serial USB1/);
  t.regex(pages, /1 sectors; LBA \(sectors\): 4711 \(1\)/);
  t.notRegex(pages, /^Certificate of erasure/m);
  const footers = pages.split('\f').slice(0, -1);
  t.true(footers.every((page) => /no certificate of erasure, task .*, page \d+ of \d+/.test(page)));

  const paper = join(server.data, 'record.pdf');
  const url = await server.app.listen({ port: 0, host: '127.0.0.1' });
  const access = ['--server', url, '--data', server.data];
  t.is(await main(['task', 'certificate', task.id, '--pdf', paper, ...access]), 0);
  t.true((await readFile(paper)).equals(pdf.rawPayload));
  t.is(await main(['task', 'show', task.id, ...access]), 0);

  const file = join(server.data, 'record.json');
  await writeFile(file, text);
  t.is(await main(['certificate', 'verify', file, '--data', server.data]), 3);
  for (const [from, to] of [
    ['"erased": false', '"erased": true'],
    ['"NOT ERASED"', '"ERASED"'],
    ['"outcome": "failed"', '"outcome": "succeeded"'],
  ] as const) {
    t.true(text.includes(from), from);
    await writeFile(file, text.replace(from, to));
    t.is(await main(['certificate', 'verify', file, '--data', server.data]), 1, from);
  }
});

test('what a machine claims of a disk in a failed wipe counts only where its numbers bear it out', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  const boasting = diskOf({ verification: null });
  await finish({ ...failureOf(1, 'WIPE_INCOMPLETE'), ...wipeOf(boasting, failedDisk) });
  const body = verifyCertificate((await certificateOf(server, task.id)).body, server.app.fog.key.publicKey);
  t.deepEqual(
    body.verdicts.map(({ verdict, why }) => [verdict, why]),
    [
      ['NOT ERASED', 'sda was not read back'],
      ['NOT ERASED', failedDisk.reason],
    ],
  );
});

test('a cancelled wipe, one whose disks are all fine but which failed, and a fast one: each with a record, none is erased', async (t) => {
  const server = await testServer(t);
  const error = (code: string) => failureOf(1, code);
  const interrupted = diskOf({ status: 'interrupted', verification: null, passes: [] });
  const ends = diskOf({ status: 'signatures-removed' });
  const cases: [type: string, result: object, title: RegExp, conclusion: RegExp][] = [
    [
      'wipe-normal',
      { ...error('TASK_CANCELLED'), outcome: 'cancelled', ...wipeOf(interrupted) },
      /^Record of a cancelled wipe/,
      /^NOT ERASED: 1 of 1 disk /,
    ],
    [
      'wipe-normal',
      { ...error('INTERNAL'), ...wipeOf(diskOf()) },
      /^Record of a failed wipe/,
      /^NOT ERASED as a whole: the task did not succeed \(INTERNAL\)/,
    ],
    [
      'wipe-fast',
      resultOf(1, wipeOf(ends)),
      /^Record of a fast wipe: no certificate/,
      /^NOT ERASED, tables removed only: 1 of 1 disk /,
    ],
  ];
  for (const [type, result, title, conclusion] of cases) {
    const { task, finish } = await started(server, type);
    t.is((await finish(result)).statusCode, 200, type);
    const text = (await certificateOf(server, task.id)).body;
    const body = verifyCertificate(text, server.app.fog.key.publicKey);
    t.false(body.erased);
    t.regex(body.title, title);
    t.regex(body.conclusion, conclusion);
  }
});

test('a wipe that never touched a disk has nothing that could be signed, and says so', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  await finish(failureOf(1, 'DISK_NOT_FOUND'));
  const answer = await certificateOf(server, task.id);
  t.is(answer.statusCode, 404);
  t.regex(answer.json().error.message, /the wipe-normal task is failed, and reported on no disk/);
});

/** What a reader of the PDF sees, by poppler; pages end with a form feed. */
const textOf = async (t: ExecutionContext, pdf: Buffer): Promise<string> => {
  const file = join(await tempFolder(t), 'pages.pdf');
  await writeFile(file, pdf);
  return (await run('pdftotext', ['-layout', file, '-'])).stdout;
};

test('a machine that fell silent in a wipe is waited for for a day, then it is lost: not wiped', async (t) => {
  const server = await testServer(t);
  const { task, agent } = await started(server);
  await agent.post(`tasks/${task.id}/progress`, progressOf(1));
  const hours = async (count: number): Promise<string> => {
    server.clock.now += count * 3600_000;
    await server.app.fog.board.sweep();
    return (await showTask(server, task.id)).state;
  };
  t.is(await hours(1), 'silent');
  t.is(await hours(23), 'silent');
  t.is(await hours(2), 'lost');
  t.regex(String((await showTask(server, task.id))['reason']), /not wiped/);
  t.is((await certificateOf(server, task.id)).statusCode, 404);
});

test('certificates survive a restart, and a certificate of which anything was changed is refused', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  await finish(resultOf(1, wipeOf(diskOf())));
  const text = (await certificateOf(server, task.id)).body;
  await server.close();
  const again = await testServer(t, { data: server.data });
  t.is((await certificateOf(again, task.id)).body, text);

  const key = again.app.fog.key.publicKey;
  t.notThrows(() => verifyCertificate(JSON.stringify(JSON.parse(text)), key), 'another spelling of the same');
  const refused = (changed: string, trusted = key): void => {
    t.throws(() => verifyCertificate(changed, trusted), { code: 'CERTIFICATE_INVALID' });
  };
  for (const [from, to] of [
    ['"S1"', '"S2"'],
    [String(SIZE), String(SIZE * 2)],
    ['"cleared-verified"', '"purged-verified"'],
    ['"format": 1', '"format": 1, "note": "and more"'],
    ['2026-01-02T03:04:00Z', '2026-01-03T03:04:00Z'],
  ] as const) {
    t.true(text.includes(from), from);
    refused(text.replace(from, to));
  }
  refused(text.slice(0, -10));
  refused('{}');
  const other = generateKeyPairSync('ed25519')
    .publicKey.export({ type: 'spki', format: 'der' })
    .toString('base64');
  refused(text, other);
  refused(text.replaceAll(key, other), key);
  refused(text.replaceAll(key, other), other);
});

test('fog-server certificate verify and key need the data folder or a key, and no server', async (t) => {
  const server = await testServer(t);
  const { task, finish } = await started(server);
  await finish(resultOf(1, wipeOf(diskOf())));
  const file = join(server.data, 'certificate.json');
  await writeFile(file, (await certificateOf(server, task.id)).body);
  const key = server.app.fog.key.publicKey;
  await server.close();
  t.is(await main(['certificate', 'key', '--data', server.data]), 0);
  t.is(await main(['certificate', 'verify', file, '--data', server.data]), 0);
  t.is(await main(['certificate', 'verify', file, '--data', '/nowhere', '--key', key]), 0);
  t.is(await main(['certificate', 'verify', file, '--data', '/nowhere']), 1);
  await writeFile(file, (await readFile(file, 'utf8')).replace('"S1"', '"S2"'));
  t.is(await main(['certificate', 'verify', file, '--data', server.data]), 1);
  t.is((await stat(join(server.data, 'server.key'))).mode & 0o777, 0o600);
});

test('canonical JSON: keys in order, no space, arrays as they are', (t) => {
  t.is(
    canonicalJson({ b: [3, { z: 1, a: 'é"' }], a: null, c: undefined }),
    '{"a":null,"b":[3,{"a":"é\\"","z":1}]}',
  );
});
