import { spawn } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { createInterface } from 'node:readline';

interface Stage {
  name: string;
  files: string;
  folder: string;
  /** test files at a time where they share loop devices and namespaces; 0: as AVA likes, and tests of a file too */
  lanes: number;
  /** what takes longest, to begin with: nothing is left to run beside the last ones otherwise */
  first?: readonly string[];
  timeout: string;
  /** in --quick too; the files, where it is not all of them */
  quick: boolean | string;
}

const stages: Stage[] = [
  { name: 'agent', folder: 'test/agent', files: 'test/agent/**', lanes: 0, timeout: '2m', quick: true },
  {
    name: 'server',
    folder: 'test/server-stub',
    files: 'test/server-stub/**',
    lanes: 0,
    timeout: '2m',
    quick: true,
  },
  {
    name: 'scripts',
    folder: 'test/scripts',
    files: 'test/scripts/**',
    lanes: 0,
    timeout: '2m',
    quick: true,
  },
  {
    name: 'initramfs',
    folder: 'test/initramfs',
    files: 'test/initramfs/**',
    lanes: 1,
    timeout: '10m',
    quick: false,
  },
  {
    name: 'integration',
    folder: 'test/integration',
    files: 'test/integration/**',
    lanes: 2,
    timeout: '5m',
    // the others take half a minute each
    quick: 'test/integration/{filesystem,image,image-casync,server-full}.test.ts',
  },
  // a machine has one emulated processor, so that two of them keep two cores busy
  {
    name: 'vm',
    folder: 'test/vm',
    files: 'test/vm/**',
    lanes: 2,
    first: ['imaging/roots', 'demo/demo', 'imaging/matrix', 'vm/netboot'],
    timeout: '15m',
    quick: false,
  },
  { name: 'web', folder: 'test/web', files: 'test/web/**', lanes: 1, timeout: '5m', quick: false },
];

const totals = { passed: 0, failed: 0, skipped: 0 };
const passedTitles: string[] = [];
const args = process.argv.slice(2);
const flags = new Set(args.filter((arg) => arg.startsWith('--')));
const only = args.filter((arg) => !arg.startsWith('--'));
const unknown = [...flags].filter((flag) => !['--quick', '--matrix'].includes(flag));
if (unknown.length > 0) {
  console.error(
    `Cannot run tests: unknown option ${unknown.join(' ')} (--quick, --matrix, or paths of test files)`,
  );
  process.exit(2);
}
if (flags.has('--matrix')) process.env['FOG_TEST_MATRIX'] = '1';

if (only.length > 0) {
  for (const path of only) {
    const stage = stages.find(({ folder }) => path.startsWith(folder));
    if (!stage)
      throw new Error(`Cannot run ${path}: not under ${stages.map(({ folder }) => folder).join(', ')}`);
    await runStage({ ...stage, name: path, files: path });
  }
} else {
  await runCheck('types', 'tsc', ['--noEmit']);
  await runCheck('style', 'biome', ['check', '--error-on-warnings']);
  for (const stage of stages) {
    if (!flags.has('--quick')) await runStage(stage);
    else if (stage.quick) await runStage(stage.quick === true ? stage : { ...stage, files: stage.quick });
  }
  if (!flags.has('--quick')) checkCoverage();
}

console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 || totals.passed === 0 ? 1 : 0);

async function runCheck(name: string, command: string, commandArgs: string[]): Promise<void> {
  const { code, output, seconds } = await capture(command, commandArgs);
  console.log(`${code === 0 ? 'ok' : 'FAILED'} ${name} (${seconds} s)`);
  if (code === 0) totals.passed += 1;
  else {
    totals.failed += 1;
    console.log(output.slice(-8000));
  }
}

/** Every promise of test/COVERAGE.md names a test; it must be there and must have passed just now. */
function checkCoverage(): void {
  const named = [
    ...readFileSync('test/COVERAGE.md', 'utf8').matchAll(/`(test\/[^`]+\.test\.ts)`: (.+?)(?:<br>| \|$)/gm),
  ];
  const absent = named.filter(
    ([, file = '', title = '']) =>
      !existsSync(file) || !passedTitles.some((passed) => passed.endsWith(title)),
  );
  for (const [, file, title] of absent) console.log(`    not passed, or not there: ${file}: ${title}`);
  if (absent.length === 0 && named.length > 0) totals.passed += 1;
  else totals.failed += 1;
  console.log(
    `${absent.length === 0 ? 'ok' : 'FAILED'} coverage: ${named.length} tests named in test/COVERAGE.md`,
  );
}

async function runStage(stage: Stage): Promise<void> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const began = performance.now();
  if (stage.lanes < 2) await runAva(stage, stage.files, counts, began);
  else {
    // AVA's --serial means one file at a time as well: a process for each file, so many at a time
    const queue = testFilesOf(stage);
    const lane = async (): Promise<void> => {
      for (let file = queue.shift(); file; file = queue.shift()) await runAva(stage, file, counts, began);
    };
    await Promise.all(Array.from({ length: stage.lanes }, lane));
  }
  totals.passed += counts.passed;
  totals.failed += counts.failed;
  totals.skipped += counts.skipped;
  const seconds = secondsSince(began).toFixed(1);
  console.log(
    `${counts.failed === 0 ? 'ok' : 'FAILED'} ${stage.name}: ${counts.passed} passed (${seconds} s)`,
  );
}

function testFilesOf({ files, first = [] }: Stage): string[] {
  const rank = (file: string): number => {
    const at = first.findIndex((part) => file.includes(part));
    return at < 0 ? first.length : at;
  };
  return globSync(files)
    .filter((file) => file.endsWith('.test.ts'))
    .toSorted((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

/** One AVA over these files; its tests are added to `counts`. */
async function runAva(stage: Stage, files: string, counts: typeof totals, began: number): Promise<void> {
  let failing = false;
  let failed = 0;
  // of one file AVA leaves the file's name out
  const prefix = existsSync(files) ? `${basename(files, '.test.ts')} › ` : '';
  const { code, output } = await capture(
    'ava',
    ['--tap', `--timeout=${stage.timeout}`, ...(stage.lanes > 0 ? ['--serial'] : []), files],
    (line) => {
      // AVA prints each test once, with its file in front: "ok 3 - agent › image › title # SKIP"
      const test = /^(ok|not ok) \d+ - (.*?)( # (SKIP|TODO).*)?$/.exec(line);
      if (test) {
        failing = test[1] === 'not ok';
        if (test[3]) counts.skipped += 1;
        else if (failing) failed += 1;
        else {
          counts.passed += 1;
          passedTitles.push(test[2] ?? '');
        }
        // TAP has no times; where tests take long, how far the stage has come tells them
        const at = stage.lanes > 0 ? ` (at ${secondsSince(began).toFixed(0)} s)` : '';
        console.log(`  ${failing ? 'FAILED' : test[3] ? 'skipped' : 'ok'} ${prefix}${test[2]}${at}`);
      } else if (failing && !/^\d+\.\.\d+$/.test(line)) console.log(`    ${line}`);
    },
  );
  // a file that crashes before its first test fails no test of its own
  if (code !== 0 && failed === 0) {
    failed += 1;
    console.log(output.slice(-4000));
  }
  counts.failed += failed;
}

function secondsSince(began: number): number {
  return (performance.now() - began) / 1000;
}

async function capture(
  command: string,
  commandArgs: string[],
  onLine?: (line: string) => void,
): Promise<{ code: number; output: string; seconds: string }> {
  const started = performance.now();
  const child = spawn(command, commandArgs, { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      if (lines.length > 5000) lines.shift();
      onLine?.(line);
    });
  }
  const code = await new Promise<number>((resolve) => {
    child.on('close', (exit) => resolve(exit ?? 1));
  });
  return { code, output: lines.join('\n'), seconds: secondsSince(started).toFixed(1) };
}
