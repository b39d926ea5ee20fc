import test from 'ava';
import { power } from '../../../agent/machine/power.ts';
import type { run } from '../../../agent/process/run.ts';

for (const action of ['reboot', 'poweroff'] as const) {
  test(`${action}: everything is written back first`, async (t) => {
    const calls: string[] = [];
    const record: typeof run = async (tool, args) => {
      calls.push([tool, ...args].join(' '));
      return { stdout: '', stderr: '', exitCode: 0 };
    };
    await power(action, record);
    t.deepEqual(calls, ['sync', `${action} -f`]);
  });
}
