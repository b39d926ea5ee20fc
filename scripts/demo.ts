import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { toImagingError } from '../agent/errors.ts';
import { buildInitramfs } from '../initramfs/build.ts';
import { startServer } from '../server-stub/serve.ts';
import { createReport } from './lib/demo/report.ts';
import { runScenario } from './lib/demo/scenario.ts';
import { screenshotOfPage } from './lib/demo/screenshot.ts';
import { root } from './lib/root.ts';
import { machineFirmwares } from './lib/vm/firmware.ts';

const options = await yargs(hideBin(process.argv))
  .scriptName('scripts/demo')
  .usage(
    '$0\n\nThe main job, end to end, on emulated machines: a PXE-booted machine captures a real Debian, another is\ndeployed from it and boots. Then again after a small change. Prints what it proved.',
  )
  .option('firmware', {
    choices: machineFirmwares,
    default: 'bios' as const,
    describe: 'how the machines boot',
  })
  .option('rounds', {
    choices: [1, 2] as const,
    default: 2 as const,
    describe: '1: capture and deploy; 2: then use the deployed machine, change the source, and both again',
  })
  .option('out', {
    type: 'string',
    default: 'out/demo',
    describe: 'folder of results, consoles and screenshot',
  })
  .option('keep', {
    type: 'boolean',
    default: false,
    describe: "keep the server's data and the disks under --out",
  })
  .strict()
  .parseAsync();

const out = resolve(root, options.out);
const work = join(out, 'work');
await rm(out, { recursive: true, force: true });
await mkdir(work, { recursive: true });

const began = performance.now();
const say = (line: string): void => {
  const seconds = ((performance.now() - began) / 1000).toFixed(0).padStart(4);
  console.log(`${seconds} s  ${line}`);
};
const ending = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => ending.abort(new Error(`Cannot finish the demo: ${name}`)));
}

try {
  say('building kernel, initramfs and agent (cached by content)');
  await buildInitramfs({ log: say });
  const server = await startServer({
    data: join(out, 'data'),
    host: '127.0.0.1',
    port: 0,
    artefacts: join(root, 'out/initramfs'),
  });
  try {
    const report = createReport(options.firmware);
    await runScenario({
      server: server.url,
      token: server.adminToken,
      data: join(out, 'data'),
      firmware: options.firmware,
      rounds: options.rounds,
      out,
      work,
      say,
      report,
      signal: ending.signal,
    });
    await screenshotOfPage({ url: server.url, token: server.adminToken, file: join(out, 'page.png') });
    report.finish((performance.now() - began) / 1000);
    await writeFile(join(out, 'demo.json'), `${JSON.stringify(report.json(), null, 2)}\n`);
    console.log(`\n${report.table()}\n`);
    console.log(`Consoles, demo.json and page.png: ${options.out}`);
  } finally {
    await server.close();
    if (!options.keep) {
      await rm(work, { recursive: true, force: true });
      await rm(join(out, 'data'), { recursive: true, force: true });
    }
  }
} catch (error) {
  const { code, message, details } = toImagingError(ending.signal.aborted ? ending.signal.reason : error);
  console.error(`\nThe demo FAILED: ${message} [${code}]`);
  if (Object.keys(details).length > 0) console.error(JSON.stringify(details, null, 2));
  console.error(`Consoles of the machines: ${options.out}/*.console`);
  process.exitCode = 1;
}
