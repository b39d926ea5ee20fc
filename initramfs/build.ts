import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AGENT_ENTRIES, agentLayer } from './build/agent-layer.ts';
import type { Artefacts } from './build/artefacts.ts';
import { baseLayer, debianPackages, debianParts } from './build/base.ts';
import type { CacheOptions, Log } from './build/cache.ts';
import { firstStage } from './build/first-stage.ts';
import { PROJECT } from './build/lists.ts';
import { nodeLayer } from './build/node.ts';
import { assemble, place } from './build/output.ts';
import { buildPacks } from './build/packs.ts';

export { type Artefacts, readArtefacts } from './build/artefacts.ts';

/** where everybody looks for what this builds */
export const OUTPUT = join(PROJECT, 'out/initramfs');

export interface BuildOptions {
  /** default out/initramfs */
  out?: string;
  /** default out/cache: layers, named by what went into them */
  cache?: string;
  log?: Log;
  /** make every layer anew: newer Debian packages */
  fresh?: boolean;
  /** the agent's bundles by name, each an entry module; default the agent and its worker thread */
  entries?: Readonly<Record<string, string>>;
}

/**
 * Build kernel, initramfs, boot loaders and tool packs into `out`, only what changed since the last time.
 *
 * @throws ImagingError TOOL_FAILED, TOOL_MISSING; Error for a list that names what does not exist
 */
export const buildInitramfs = async (options: BuildOptions = {}): Promise<Artefacts> => {
  const { out = OUTPUT, log = () => {}, fresh = false, entries = AGENT_ENTRIES } = options;
  const cache: CacheOptions = { root: options.cache ?? join(PROJECT, 'out/cache'), log, fresh };
  await mkdir(cache.root, { recursive: true });
  const debian = await debianPackages(cache);
  const parts = await debianParts(cache);
  const base = await baseLayer(cache, debian, parts);
  const layers = [
    { name: 'base', layer: base },
    { name: 'node', layer: await nodeLayer(cache) },
    { name: 'agent', layer: await agentLayer(cache, entries) },
  ];
  const packs = await buildPacks(cache, base);
  const assembled = await assemble(cache, {
    debian,
    parts,
    firstStage: await firstStage(cache, parts),
    layers,
    packs,
  });
  return place(assembled, out);
};

if (import.meta.main) {
  const { values } = parseArgs({
    options: { out: { type: 'string' }, fresh: { type: 'boolean', default: false } },
  });
  const { kernel, files, layers, packs } = await buildInitramfs({
    fresh: values.fresh,
    log: (line) => console.log(line),
    ...(values.out === undefined ? {} : { out: values.out }),
  });
  const line = (name: string, size: number): void =>
    console.log(`${(size / 1e6).toFixed(1).padStart(8)} MB  ${name}`);
  console.log(`kernel ${kernel}`);
  for (const [name, { size }] of Object.entries(files)) line(name, size);
  for (const { name, size } of layers) line(`layer ${name}`, size);
  for (const [name, { size }] of Object.entries(packs)) line(`pack ${name}`, size);
}
