import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { ImagingError } from '../../../agent/errors.ts';
import { run, type ToolEnd, toolEnds } from '../../../agent/process/run.ts';

const sh = (script: string, options: Parameters<typeof run>[2] = {}) => run('sh', ['-c', script], options);
const sleeps = async (mark: string): Promise<boolean> =>
  (await run('pgrep', ['-f', `^sleep ${mark}$`], { okExitCodes: [0, 1] })).exitCode === 0;
const code = (expected: string) => ({ instanceOf: ImagingError, code: expected });

test('a tool that answers: its output as it is, and exit codes that are answers', async (t) => {
  t.deepEqual(await sh('echo out; echo err >&2'), { stdout: 'out\n', stderr: 'err\n', exitCode: 0 });
  t.is((await sh('exit 3', { okExitCodes: [0, 3] })).exitCode, 3);
});

test('a tool that fails: the code, the command and its last words', async (t) => {
  const error = await t.throwsAsync<ImagingError>(
    sh('echo first >&2; echo why >&2; exit 3'),
    code('TOOL_FAILED'),
  );
  t.is(error?.message, 'Cannot run sh: exit code 3 (why)');
  t.is(error?.details['exitCode'], 3);
  t.is(error?.details['stderr'], 'first\nwhy\n');
  const killed = await t.throwsAsync(sh('kill -9 $$'), code('TOOL_FAILED'));
  t.regex(killed?.message ?? '', /killed by SIGKILL/);
});

test('a tool that is not there', async (t) => {
  await t.throwsAsync(run('no-such-tool-of-ours', []), code('TOOL_MISSING'));
});

test('a limit of 0 is none', async (t) => {
  t.is((await sh('sleep 0.2; echo done', { timeoutMs: 0 })).stdout, 'done\n');
});

test('a tool that hangs is ended, also when it ignores the polite signal', async (t) => {
  await t.throwsAsync(
    sh('trap "" TERM; while :; do sleep 0.1; done', { timeoutMs: 300 }),
    code('TOOL_TIMEOUT'),
  );
});

test('cancelled before the start and in the middle', async (t) => {
  await t.throwsAsync(sh('true', { signal: AbortSignal.abort() }), code('TASK_CANCELLED'));
  await t.throwsAsync(sh('sleep 20', { signal: AbortSignal.timeout(200) }), code('TASK_CANCELLED'));
});

test('what a tool started ends with it', async (t) => {
  const mark = `${1000 + process.pid}.25`;
  const cancelled = sh(`trap "" TERM; (trap "" TERM; exec sleep ${mark}) >/dev/null 2>&1 & sleep ${mark}`, {
    signal: AbortSignal.timeout(500),
  });
  await t.throwsAsync(cancelled, code('TASK_CANCELLED'));
  t.false(await sleeps(mark));
});

test('a process that is interrupted takes its tools along', async (t) => {
  const mark = `${2000 + process.pid}.25`;
  const module = new URL('../../../agent/process/run.ts', import.meta.url).href;
  const script = `const { run } = await import('${module}'); console.log('started'); await run('sleep', ['${mark}']);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  while (!(await sleeps(mark))) await sleep(50);
  child.kill('SIGINT');
  t.deepEqual(await once(child, 'exit'), [null, 'SIGINT']);
  // a killed process is listed until the kernel has taken it down
  for (let tries = 0; tries < 20 && (await sleeps(mark)); tries += 1) await sleep(100);
  t.false(await sleeps(mark));
});

test('lines come one by one, of progress bars too', async (t) => {
  const lines: string[] = [];
  await sh('printf "1%%\\r2%%\\r\\n3%%"; printf "oops\\n" >&2', {
    keepOutput: false,
    onLine: (line, from) => lines.push(`${from} ${line}`),
  });
  t.deepEqual(
    lines.toSorted((a, b) => a.localeCompare(b)),
    ['stderr oops', 'stdout 1%', 'stdout 2%', 'stdout 3%'],
  );
});

test('a tool sees the C locale and nothing of our environment; input goes to it whole', async (t) => {
  process.env['FOG_TEST_CANARY'] = 'a secret';
  const { stdout } = await sh('env; cat', { input: 'by standard input', env: { EXTRA: 'yes' } });
  delete process.env['FOG_TEST_CANARY'];
  t.notRegex(stdout, /CANARY/);
  t.regex(stdout, /^LC_ALL=C$/m);
  t.regex(stdout, /^EXTRA=yes$/m);
  t.true(stdout.endsWith('by standard input'));
});

test('a tool that fails does not carry its input along: it may be a key', async (t) => {
  const error = await t.throwsAsync<ImagingError>(
    sh('cat >/dev/null; exit 1', { input: 'canary' }),
    code('TOOL_FAILED'),
  );
  t.false(JSON.stringify([error, error?.details, String(error?.cause)]).includes('canary'));
});

test('who listens is told of each tool that has ended, and how long it took', async (t) => {
  const ends: ToolEnd[] = [];
  const listen = (end: unknown): void => void ends.push(end as ToolEnd);
  toolEnds.subscribe(listen);
  t.teardown(() => toolEnds.unsubscribe(listen));
  await run('sleep', ['0.2']);
  await t.throwsAsync(run('false', ['told']));
  const [slept] = ends.filter(({ tool }) => tool === 'sleep');
  t.true((slept?.seconds ?? 0) >= 0.2 && slept?.exitCode === 0);
  t.is(ends.find(({ args }) => args[0] === 'told')?.exitCode, 1);
});
