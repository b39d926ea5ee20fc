import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ADDON, bundleAgent } from '../../../initramfs/build/agent.ts';
import { AGENT_ENTRIES } from '../../../initramfs/build/agent-layer.ts';
import { root } from '../root.ts';

// scripts/bench, compiled as the agent is: what ships has no types to strip in every thread that it starts.
const { files } = await bundleAgent({
  bench: join(root, 'scripts/bench.ts'),
  worker: AGENT_ENTRIES.worker,
});
const folder = join(root, 'out/bench');
await mkdir(folder, { recursive: true });
for (const { name, contents } of files) await writeFile(join(folder, name), contents);
await cp(ADDON, join(folder, 'binding.node'));
await import(join(folder, 'bench.mjs'));
