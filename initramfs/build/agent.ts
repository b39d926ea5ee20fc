import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { z } from 'zod';
import { run } from '../../agent/process/run.ts';
import { hashFile, hashOf } from './cache.ts';
import { PROJECT } from './lists.ts';

/** where the agent lies in the initramfs; blessed looks for `../usr` from there */
export const AGENT_FOLDER = 'usr/lib/fog/agent';

export interface Bundle {
  files: { name: string; contents: Buffer }[];
  /** SHA-256 of everything that the agent's layer is made of, blessed's data and the addon included */
  key: string;
}

/** One ESM bundle per entry, `<name>.mjs`: what one asks for by `new URL('./worker.mjs', import.meta.url)` lies beside it. */
export const bundleAgent = async (entries: Readonly<Record<string, string>>): Promise<Bundle> => {
  const { version } = versionSchema.parse(JSON.parse(await readFile(join(PROJECT, 'package.json'), 'utf8')));
  const { outputFiles } = await build({
    entryPoints: { ...entries },
    absWorkingDir: PROJECT,
    outdir: join(PROJECT, 'out'),
    outExtension: { '.js': '.mjs' },
    bundle: true,
    write: false,
    minify: true,
    keepNames: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    legalComments: 'none',
    logLevel: 'silent',
    // packages written for CommonJS ask for these three
    banner: {
      js: "import {createRequire as fogRequire} from 'node:module'; const require = fogRequire(import.meta.url), __filename = import.meta.filename, __dirname = import.meta.dirname;",
    },
    external: ['term.js', 'pty.js'],
    define: { FOG_AGENT_VERSION: JSON.stringify(`${version}+${SOURCE_MARK}`) },
    plugins: [blessedWidgets, zstdAddon],
  });
  // the agent says which source it is made of: a hash of what it was bundled to
  const source = hashOf(outputFiles.map(({ text }) => text)).slice(0, 12);
  const files = outputFiles
    .map(({ path, text }) => ({
      name: basename(path),
      contents: Buffer.from(text.replaceAll(SOURCE_MARK, source)),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const beside = await Promise.all(
    [ADDON, ...(await filesOf(BLESSED_DATA))].map(
      async (path) => `${path.slice(PROJECT.length)} ${await hashFile(path)}`,
    ),
  );
  const key = hashOf([...files.map(({ name, contents }) => hashOf([name, contents.toString()])), ...beside]);
  return { files, key };
};

/** Write a bundle with its native addon and blessed's data into a root. */
export const installAgent = async (root: string, bundle: Bundle): Promise<void> => {
  const folder = join(root, AGENT_FOLDER);
  await mkdir(folder, { recursive: true });
  for (const { name, contents } of bundle.files) await writeFile(join(folder, name), contents);
  await cp(ADDON, join(folder, 'binding.node'));
  await run('strip', ['--strip-unneeded', join(folder, 'binding.node')]);
  await cp(BLESSED_DATA, join(folder, '../usr'), { recursive: true });
};

const versionSchema = z.object({ version: z.string() });
const SOURCE_MARK = '@SOURCE@';

/** zstd-napi's native part, as `npm rebuild` made it */
export const ADDON = join(PROJECT, 'node_modules/zstd-napi/build/Release/binding.node');
const BLESSED_DATA = join(PROJECT, 'node_modules/blessed/usr');

const filesOf = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();

/**
 * blessed 0.1.81 requires its widgets by computed names, which a bundler cannot follow. Left out: those that
 * need term.js or start image viewers and media players.
 */
const blessedWidgets: Plugin = {
  name: 'blessed-widgets',
  setup: ({ onLoad }) => {
    onLoad({ filter: /blessed\/lib\/widget\.js$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8');
      const names = [...(/widget\.classes = \[([^\]]*)\]/.exec(source)?.[1] ?? '').matchAll(/'(\w+)'/g)]
        .map(([, name = '']) => name)
        .filter((name) => !['Terminal', 'Image', 'OverlayImage', 'Video'].includes(name));
      const lines = names.map(
        (name) =>
          `widget.${name} = widget.${name.toLowerCase()} = require('./widgets/${name.toLowerCase()}');`,
      );
      return {
        contents: `var widget = exports; widget.classes = ${JSON.stringify(names)};\n${lines.join('\n')}\nwidget.aliases = {ListBar: 'Listbar', PNG: 'ANSIImage'};
widget.ListBar = widget.listbar = widget.Listbar; widget.PNG = widget.png = widget.ANSIImage;\n`,
        loader: 'js',
      };
    });
  },
};

/** zstd-napi's addon by its place in the initramfs: beside the bundle. */
const zstdAddon: Plugin = {
  name: 'zstd-addon',
  setup: ({ onLoad, onResolve }) => {
    onLoad({ filter: /zstd-napi\/binding\.js$/ }, () => ({
      contents: "module.exports = require('./binding.node');",
      loader: 'js',
    }));
    onResolve({ filter: /^\.\/binding\.node$/ }, () => ({ path: './binding.node', external: true }));
  },
};
