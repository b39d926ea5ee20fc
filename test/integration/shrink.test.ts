import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { run } from '../../agent/process/run.ts';
import type { ImageAnswer } from '../../server-stub/api.ts';
import { addHost, addTask, testServer } from '../server-stub/support.ts';
import {
  askShrink,
  extract,
  idsOf,
  MIB,
  makeExt4,
  makeFat,
  makeNtfs,
  makeTree,
  memoryFolder,
  ntfsHashes,
  shrink,
  storeImage,
  treeHashes,
  withLoop,
} from './shrink-helpers.ts';

const MAIN = new URL('../../server-stub/main.ts', import.meta.url).pathname;

const exists = async (folder: string): Promise<boolean> =>
  readdir(folder).then(
    () => true,
    () => false,
  );

test('ext4 and NTFS are made smaller: clean by their own checks, every file equal, few chunks new; FAT stays as it is', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 60 * MIB);
  const parts = [
    await makeFat(folder, 40 * MIB),
    await makeExt4(folder, 800 * MIB, tree),
    await makeNtfs(folder, 400 * MIB, tree),
  ];
  const before = await storeImage(server.app.fog, 'lab', parts);
  const to = 500_000_000;
  const job = await shrink(t, server, 'lab', 1, { to });
  t.is(job.error, null, JSON.stringify(job.error));
  t.is(job.result, 2);
  t.true(job.total > 0 && job.done === job.total);

  const { manifest } = { manifest: (await server.admin({ url: '/api/images/lab/versions/2' })).json() };
  t.is(manifest.derivedFrom, 1);
  const [disk] = manifest.disks;
  t.true(disk.size <= to && disk.size > to * 0.99);
  const [fat, ext4, ntfs] = disk.partitions;
  t.deepEqual(fat.index, before.disks[0]?.partitions[0]?.index, 'the same index, the same chunks');
  t.true(ext4.size < 800 * MIB && ntfs.size < 400 * MIB);
  t.true(ext4.filesystem.minimumBytes <= ext4.size && ntfs.filesystem.minimumBytes <= ntfs.size);

  const smallExt4 = await extract(server.data, 'lab', 2, 'p2', join(folder, 'p2.img'));
  await run('e2fsck', ['-f', '-n', smallExt4]);
  const hashes = await withLoop(smallExt4, folder, treeHashes, 'loop,ro,noload');
  t.is(hashes, await treeHashes(tree));
  const smallNtfs = await extract(server.data, 'lab', 2, 'p3', join(folder, 'p3.img'));
  const { stdout } = await run('ntfsresize', ['--info', smallNtfs]);
  t.regex(stdout, /Space in use/);
  t.true(Number(/Current volume size:\s*(\d+)/.exec(stdout)?.[1]) <= ntfs.size);
  await run('ntfsfix', ['--no-action', smallNtfs]);
  await run('ntfs-3g.probe', ['--readwrite', smallNtfs]);
  t.deepEqual(await ntfsHashes(smallNtfs), await ntfsHashes(parts[2]?.file ?? ''));

  for (const name of ['p2', 'p3']) {
    const known = new Set(await idsOf(server.data, 'lab', 1, name));
    const now = [...new Set(await idsOf(server.data, 'lab', 2, name))];
    const fresh = now.filter((id) => !known.has(id)).length;
    t.log(`${name}: ${fresh} of ${now.length} chunks are new`);
    t.true(fresh < now.length / 2, `${name}: ${fresh} of ${now.length} chunks are new`);
  }
  const verified = await server.admin({ method: 'POST', url: '/api/images/lab/versions/2/verify' });
  t.like(verified.json(), { damaged: [], missing: [], files: [] });
  t.false(await exists(join(server.data, 'scratch')));
  t.deepEqual(await readdir(join(server.data, 'uploads')), []);

  // a deploy of "the newest" is of what a person captured
  const { mac } = await addHost(server, 'pc1');
  t.is((await addTask(server, mac, 'deploy', { image: 'lab' })).params['version'], 1);
  const { versions } = (await server.admin({ url: '/api/images/lab' })).json() as ImageAnswer;
  t.deepEqual(
    versions.map(({ version, derivedFrom }) => [version, derivedFrom]),
    [
      [2, 1],
      [1, null],
    ],
  );
});

test('what was made once is used again; what is made from a smaller version comes from the captured one', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  await storeImage(server.app.fog, 'lab', [await makeExt4(folder, 600 * MIB, tree)]);
  const to = 300_000_000;
  t.is((await shrink(t, server, 'lab', 1, { to })).result, 2);
  const chunks = await server.app.fog.db.selectFrom('chunks').select('id').execute();
  // disks of one model differ by a few sectors; a larger one takes the largest that fits
  for (const size of [to, to - 4 * 512, to + 512, 400_000_000]) {
    const asked = await askShrink(server, 'lab', 1, { to: size });
    t.like(asked.json(), { state: 'done', result: 2 }, String(size));
  }
  t.is((await askShrink(server, 'lab', 2, { to })).json().result, 2);
  t.is((await server.app.fog.db.selectFrom('chunks').select('id').execute()).length, chunks.length);

  const smaller = await shrink(t, server, 'lab', 2, { to: 200_000_000 });
  t.like(smaller, { version: 1, result: 3, error: null });
  t.is((await askShrink(server, 'lab', 1, { to: 350_000_000 })).json().result, 2, 'the largest that fits');
  t.is((await askShrink(server, 'lab', 1, { to: 250_000_000 })).json().result, 3);
  const smallest = await shrink(t, server, 'lab', 1);
  t.is(smallest.error, null);
  const { disks } = (await server.admin({ url: `/api/images/lab/versions/${smallest.result}` })).json();
  t.true(disks[0].size < 200_000_000, `the smallest sensible has ${disks[0].size} bytes`);
});

test('two that ask at once get one and the same', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  await storeImage(server.app.fog, 'lab', [await makeExt4(folder, 400 * MIB, tree)]);
  const sizes = [200_000_000, 200_000_000, 200_000_000 + 512, 220_000_000];
  const asked = await Promise.all(sizes.map((to) => askShrink(server, 'lab', 1, { to })));
  t.is(new Set(asked.map((answer) => answer.json().id)).size, 1);
  const results = await Promise.all(sizes.map((to) => shrink(t, server, 'lab', 1, { to })));
  t.deepEqual(new Set(results.map(({ result }) => result)), new Set([2]));
  t.deepEqual(await readdir(join(server.data, 'images/lab')), ['1', '2']);
});

test('what does not fit is refused at once, with what keeps its size and why, and nothing is made', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  const whole = { ...(await makeFat(folder, 100 * MIB)), role: 'data' as const, raw: true };
  await storeImage(server.app.fog, 'lab', [await makeExt4(folder, 400 * MIB, tree), whole]);
  const answer = await askShrink(server, 'lab', 1, { to: 100 * MIB });
  t.is(answer.statusCode, 422);
  const { error } = answer.json();
  t.is(error.code, 'TARGET_TOO_SMALL');
  t.regex(error.message, /p1 needs \d+ bytes; p2 \(104857600 bytes\) is kept whole/);
  const { neededBytes } = error.details;
  t.true(neededBytes > 100 * MIB && neededBytes < 400 * MIB);
  t.is((await askShrink(server, 'lab', 1, { to: 600 * MIB })).json().error.code, 'OPTION_REFUSED');
  t.is((await askShrink(server, 'lab', 1, { to: MIB, disk: 'd2' })).json().error.code, 'OPTION_REFUSED');
  t.is((await askShrink(server, 'lab', 7, { to: MIB })).json().error.code, 'IMAGE_NOT_FOUND');
  t.is((await askShrink(server, 'lab', 1, { to: 0 })).json().error.code, 'BAD_REQUEST');
  t.deepEqual(await readdir(join(server.data, 'images/lab')), ['1']);

  const said = await shrink(t, server, 'lab', 1, { to: neededBytes });
  t.is(said.error, null, 'the size that the refusal names would do');
});

test('an estimate that was too low is found by the tool itself, before it changes anything', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  const part = { ...(await makeExt4(folder, 400 * MIB, tree)), minimumBytes: 8 * MIB };
  await storeImage(server.app.fog, 'lab', [part]);
  const { error } = await shrink(t, server, 'lab', 1, { to: 16 * MIB });
  t.is(error?.code, 'TARGET_TOO_SMALL');
  t.is(error?.details['partition'], 'p1');
  const needed = Number(error?.details['neededBytes']);
  t.true(needed > 20 * MIB && needed < 100 * MIB, String(needed));
  t.deepEqual(await readdir(join(server.data, 'images/lab')), ['1']);
  t.deepEqual(await readdir(join(server.data, 'uploads')), []);
  t.is((await shrink(t, server, 'lab', 1, { to: needed })).error, null);
});

test('a damaged chunk ends it, the version it comes from is hurt, and nothing is left behind', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  await storeImage(server.app.fog, 'lab', [await makeExt4(folder, 400 * MIB, tree)]);
  const ids = await idsOf(server.data, 'lab', 1, 'p1');
  const id = ids.find((one, at) => at > 2 && ids.indexOf(one) === ids.lastIndexOf(one)) ?? '';
  const path = server.app.fog.library.store.path(id);
  await run('truncate', ['-s', '-1', path]);
  const job = await shrink(t, server, 'lab', 1, { to: 200_000_000 });
  t.is(job.error?.code, 'CHUNK_CORRUPT');
  t.deepEqual(await readdir(join(server.data, 'images/lab')), ['1']);
  t.deepEqual(await readdir(join(server.data, 'uploads')), []);
  t.false(await exists(join(server.data, 'scratch')));
  const { versions } = (await server.admin({ url: '/api/images/lab' })).json() as ImageAnswer;
  t.deepEqual(versions[0]?.hurt, [id]);
});

test('a version goes with the smaller ones that were made from it, unless a task may be writing one', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  const part = await makeExt4(folder, 400 * MIB, tree);
  await storeImage(server.app.fog, 'lab', [part]);
  await storeImage(server.app.fog, 'lab', [part]);
  t.is((await shrink(t, server, 'lab', 1, { to: 200_000_000 })).result, 3);
  const { mac } = await addHost(server, 'pc1');
  const { id } = await addTask(server, mac, 'deploy', { image: 'lab', version: 1 });
  const remove = (version: number) =>
    server.admin({ method: 'DELETE', url: `/api/images/lab/versions/${version}` });
  for (const version of [1, 3]) t.is((await remove(version)).json().error.code, 'CONFLICT', String(version));
  await server.admin({ method: 'POST', url: `/api/tasks/${id}/cancel` });
  t.is((await remove(1)).statusCode, 204);
  t.deepEqual(await readdir(join(server.data, 'images/lab')), ['2']);
  const verified = await server.admin({ method: 'POST', url: '/api/images/lab/versions/2/verify' });
  t.like(verified.json(), { damaged: [], missing: [], files: [] });
});

test('rows of smaller versions are rebuilt from their manifests', async (t) => {
  const folder = await memoryFolder(t);
  const first = await testServer(t, { data: join(folder, 'data') });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  await storeImage(first.app.fog, 'lab', [await makeExt4(folder, 400 * MIB, tree)]);
  await shrink(t, first, 'lab', 1, { to: 200_000_000 });
  await first.close();
  await run('sh', ['-c', `rm ${first.data}/fog.sqlite*`]);
  const second = await testServer(t, { data: first.data });
  const { mac } = await addHost(second, 'pc1');
  t.is((await addTask(second, mac, 'deploy', { image: 'lab' })).params['version'], 1);
  t.is((await askShrink(second, 'lab', 1, { to: 200_000_000 })).json().result, 2);
  t.is(JSON.parse(await readFile(join(first.data, 'images/lab/2/manifest.json'), 'utf8')).derivedFrom, 1);
});

test('fog-server image shrink waits, says what it made, and lists tell of it', async (t) => {
  const folder = await memoryFolder(t);
  const server = await testServer(t, { data: join(folder, 'data'), now: Date.now });
  const tree = await makeTree(join(folder, 'tree'), 20 * MIB);
  await storeImage(server.app.fog, 'lab', [await makeExt4(folder, 400 * MIB, tree)]);
  const url = await server.app.listen({ port: 0, host: '127.0.0.1' });
  const fog = (...args: string[]) =>
    execa(process.execPath, [MAIN, ...args, '--server', url, '--data', server.data], { reject: false });

  const made = await fog('image', 'shrink', 'lab@1', '--to', '200MB');
  t.is(made.exitCode, 0, made.stderr);
  t.regex(made.stdout, /^lab@2, made from lab@1, fits disks of 199\.2 MB \(199229440 bytes\)$/);
  const json = JSON.parse((await fog('image', 'shrink', 'lab@2', '--to', '190MiB', '--json')).stdout);
  t.like(json, { version: 1, result: 2, state: 'done', disks: [{ name: 'd1', size: 199_229_440 }] });
  t.regex((await fog('image', 'show', 'lab')).stdout, /lab@2 .*made from lab@1 for 199\.2 MB disks, sound/);
  t.regex((await fog('image', 'list')).stdout, /lab +1 and 1 made smaller +@1 /);

  const small = await fog('image', 'shrink', 'lab@1', '--to', '10MB');
  t.is(small.exitCode, 1);
  t.regex(small.stderr, /made as small as it can be it needs \d+.*p1 needs \d+ bytes \[TARGET_TOO_SMALL\]/);
  t.regex((await fog('image', 'shrink', 'lab')).stderr, /say which version, lab@N \[BAD_REQUEST\]/);
  t.regex((await fog('image', 'shrink', 'lab@1', '--to', '10G')).stderr, /Cannot read the size 10G/);
});
