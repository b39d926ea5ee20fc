import { execFileSync } from 'node:child_process';
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  kindInside,
  listInside,
  makeFolderInside,
  openTree,
  readInside,
  removeInside,
  writeInside,
} from '../../../agent/os/tree.ts';

/** A tree to be looked into, and beside it what nobody may reach. */
const build = async (t: ExecutionContext, options = {}) => {
  const folder = await mkdtemp(join(tmpdir(), 'tree-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const root = join(folder, 'root');
  await mkdir(join(root, 'etc/deep'), { recursive: true });
  await writeFile(join(folder, 'secret'), 'outside');
  await writeFile(join(root, 'etc/hostname'), 'old\n', { mode: 0o640 });
  const tree = await openTree(root, options);
  t.teardown(() => tree[Symbol.asyncDispose]());
  const read = async (path: string): Promise<string | null> =>
    (await readInside(tree, path, 1000))?.toString() ?? null;
  return { folder, root, tree, read };
};

test('links lead inside, as they would for the system that lives there', async (t) => {
  const { root, read } = await build(t);
  await symlink('/etc/hostname', join(root, 'absolute'));
  await symlink('../../../../etc/hostname', join(root, 'etc/deep/up'));
  await symlink('/etc', join(root, 'folder'));
  await symlink('absolute', join(root, 'twice'));
  for (const path of ['absolute', 'etc/deep/up', 'folder/hostname', 'twice', '/etc/../etc/./hostname']) {
    t.is(await read(path), 'old\n', path);
  }
});

test('nothing outside is reached, whatever the links say', async (t) => {
  const { folder, root, tree, read } = await build(t);
  await symlink(join(folder, 'secret'), join(root, 'absolute'));
  await symlink('../secret', join(root, 'up'));
  await symlink(folder, join(root, 'folder'));
  await symlink('loop', join(root, 'loop'));
  await symlink('/proc/self/root', join(root, 'magic'));
  for (const path of ['absolute', 'up', 'folder/secret', '../secret', 'loop', 'magic/etc/passwd', 'none/x']) {
    t.is(await read(path), null, path);
  }
  for (const path of ['absolute', 'up', 'loop']) {
    await t.throwsAsync(writeInside(tree, path, Buffer.from('evil'), 0o644), { code: 'OPTION_REFUSED' });
    t.false(await removeInside(tree, path), path);
  }
  await t.throwsAsync(writeInside(tree, 'folder/secret', Buffer.from('evil'), 0o644), {
    code: 'OPTION_REFUSED',
  });
  t.is(await readFile(join(folder, 'secret'), 'utf8'), 'outside');
});

test('a file is written where it lies: mode and inode stay, other names of it follow', async (t) => {
  const { root, tree, read } = await build(t);
  const path = join(root, 'etc/hostname');
  await chmod(path, 0o600);
  const before = await stat(path);
  await link(path, join(root, 'other-name'));
  await writeInside(tree, 'etc/hostname', Buffer.from('n\n'), 0o644);
  const after = await stat(path);
  t.is(after.ino, before.ino);
  t.is(after.mode, before.mode);
  t.is(await read('other-name'), 'n\n');
  await writeInside(tree, 'etc/new', Buffer.from('x'), 0o640);
  t.is((await stat(join(root, 'etc/new'))).mode & 0o777, 0o640);
  t.true(await makeFolderInside(tree, 'etc/made'));
  t.false(await makeFolderInside(tree, 'etc/hostname'));
  t.true(await removeInside(tree, 'etc/new'));
  t.deepEqual(await listInside(tree, 'etc'), ['deep', 'hostname', 'made']);
});

test('fifos, devices, folders and files without end do no harm', async (t) => {
  const { root, tree, read } = await build(t);
  execFileSync('mkfifo', [join(root, 'fifo')]);
  execFileSync('mknod', [join(root, 'zero'), 'c', '1', '5']);
  await truncate(join(root, 'etc/hostname'), 1e12);
  t.is(await read('fifo'), null);
  t.is(await read('zero'), null);
  t.is(await read('etc'), null);
  t.is((await readInside(tree, 'etc/hostname', 100))?.length, 100);
  t.is(await kindInside(tree, 'fifo'), 'other');
  await t.throwsAsync(writeInside(tree, 'fifo', Buffer.alloc(1), 0o644), { code: 'OPTION_REFUSED' });
  await t.throwsAsync(writeInside(tree, 'zero', Buffer.alloc(1), 0o644), { code: 'OPTION_REFUSED' });
});

test('names without regard to case, the exact one first', async (t) => {
  const { root, tree, read } = await build(t, { ignoreCase: true });
  await writeFile(join(root, 'ETC-OTHER'), 'upper');
  t.is(await read('Etc/HOSTNAME'), 'old\n');
  t.is(await read('etc-other'), 'upper');
  await writeFile(join(root, 'etc-other'), 'lower');
  t.is(await read('etc-other'), 'lower');
  t.is(await kindInside(tree, 'ETC/Hostname'), 'file');
});
