import { copyFile, cp, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { bundleAgent, installAgent } from './agent.ts';
import { type CacheOptions, type Layer, layer } from './cache.ts';
import { ownSource, PROJECT, SOURCE } from './lists.ts';
import { makeSquashfs } from './squashfs.ts';

/** The agent and its worker thread, which the bundle finds beside itself. */
export const AGENT_ENTRIES = {
  main: join(PROJECT, 'agent/main.ts'),
  worker: join(PROJECT, 'agent/image/worker.ts'),
};

/** `agent.squashfs`: the bundle, init, and the files of root/. */
export const agentLayer = async (
  cache: CacheOptions,
  entries: Readonly<Record<string, string>>,
): Promise<Layer> => {
  // bundling is quicker than finding out whether it is needed: its output is the input
  const bundle = await bundleAgent(entries);
  const paths = ['init', ...(await filesBelow(join(SOURCE, 'root'))).map((path) => join('root', path))];
  const own = await Promise.all(
    paths.map(async (path) => {
      const { mode } = await stat(join(SOURCE, path));
      return `${path} ${mode & 0o111} ${await readFile(join(SOURCE, path), 'utf8')}`;
    }),
  );
  const sources = ['agent.ts', 'agent-layer.ts', 'squashfs.ts'].map(ownSource);
  return layer(cache, 'agent', [bundle.key, ...own, ...sources], async (folder) => {
    const root = join(folder, 'root');
    await cp(join(SOURCE, 'root'), root, { recursive: true });
    await installAgent(root, bundle);
    await copyFile(join(SOURCE, 'init'), join(root, 'usr/lib/fog/init'));
    await makeSquashfs(root, join(folder, 'agent.squashfs'));
  });
};

const filesBelow = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
