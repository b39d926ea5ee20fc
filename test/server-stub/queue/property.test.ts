import test from 'ava';
import fc from 'fast-check';
import { finalStates } from '../../../agent/protocol/index.ts';
import {
  cancel,
  expire,
  finish,
  hostReturned,
  offer,
  renew,
  serverStarted,
} from '../../../server-stub/queue/queue.ts';
import { isFinal, needsSlot, type TaskRow } from '../../../server-stub/queue/task-row.ts';
import { defaultSettings } from '../../../server-stub/settings.ts';

const limits = { ...defaultSettings.queue, slots: 2 };
const HOSTS = 4;

/** what a machine believes after its last boot */
interface Machine {
  boot: number;
  /** task -> attempt that it was handed in this boot */
  holds: Map<string, number>;
}

type Event =
  | { kind: 'add'; host: number; type: 'deploy' | 'capture' | 'inventory' }
  | { kind: 'boot' | 'next'; host: number }
  | { kind: 'report' | 'finish'; host: number; boot: number }
  | { kind: 'cancel'; task: number }
  | { kind: 'time'; ms: number }
  | { kind: 'restart' };

const host = fc.nat(HOSTS - 1);
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      host,
      type: fc.constantFrom('deploy', 'capture', 'inventory'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('boot' as const), host }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('next' as const), host }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('report' as const), host, boot: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('finish' as const), host, boot: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), task: fc.nat(20) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('time' as const),
      ms: fc.constantFrom(1, 20_000, 61_000, 1_900_000),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
);

test('no sequence of events runs a task twice at a time, gives one machine two tasks, or revives an ended one', (t) => {
  fc.assert(
    fc.property(fc.array(event, { minLength: 40, maxLength: 150, size: 'max' }), (events) => {
      const rows = new Map<string, TaskRow>();
      // every boot of every machine: the old ones go on talking, as a machine behind a switch might
      const boots = Array.from({ length: HOSTS }, (): Machine[] => [{ boot: 0, holds: new Map() }]);
      let now = 1;
      let overrun = 0;
      const open = (): TaskRow[] => [...rows.values()].filter((row) => !isFinal(row));
      const apply = (changed: readonly TaskRow[]): void => {
        for (const row of changed) {
          const before = rows.get(row.id);
          if (before && isFinal(before))
            throw new Error(`${row.id} was ${before.state} and became ${row.state}`);
          if (before && row.attempt < before.attempt) throw new Error('an attempt was taken back');
          rows.set(row.id, row);
        }
      };
      /** @returns whether the queue took it from this boot of the machine */
      const taken = (machine: Machine, act: (row: TaskRow, attempt: number) => TaskRow): string[] =>
        [...machine.holds].flatMap(([id, attempt]) => {
          const row = rows.get(id);
          if (!row) return [];
          try {
            apply([act(row, attempt)]);
            return [id];
          } catch (error) {
            if (error instanceof Error && 'code' in error && error.code === 'LEASE_LOST') return [];
            throw error;
          }
        });

      for (const step of events) {
        if (step.kind === 'add') {
          const seq = rows.size + 1;
          apply([
            {
              ...{
                id: `t${seq}`,
                seq,
                hostId: `h${step.host}`,
                type: step.type,
                params: {},
                after: 'reboot' as const,
              },
              ...{
                state: 'queued' as const,
                attempt: 0,
                cancel: false,
                leaseUntil: null,
                superseded: false,
                silentSince: null,
              },
              ...{ waitingSince: null, createdAt: now, startedAt: null, endedAt: null, reason: null },
            },
          ]);
        } else if (step.kind === 'boot') {
          boots[step.host]?.push({ boot: now, holds: new Map() });
          apply(hostReturned(open(), `h${step.host}`, now));
        } else if (step.kind === 'next') {
          // only the newest session is let through by the server
          const machine = boots[step.host]?.at(-1);
          const before = open().filter((row) => row.state === 'running' && needsSlot(row)).length;
          const { offer: answer, changed } = offer(open(), `h${step.host}`, now, limits);
          apply(changed);
          const after = open().filter((row) => row.state === 'running' && needsSlot(row)).length;
          if (after > before && after > limits.slots) throw new Error('a slot was given that there is not');
          if (answer.kind === 'task') machine?.holds.set(answer.task.id, answer.task.attempt);
        } else if (step.kind === 'report' || step.kind === 'finish') {
          const machine = boots[step.host]?.at(-1 - step.boot);
          const act =
            step.kind === 'report'
              ? (row: TaskRow, attempt: number) => renew(row, attempt, now, limits)
              : (row: TaskRow, attempt: number) => finish(row, attempt, 'succeeded', now, limits);
          if (machine) taken(machine, act);
        } else if (step.kind === 'cancel') {
          const row = rows.get(`t${step.task}`);
          if (row && !isFinal(row)) apply([cancel(row, now)]);
        } else if (step.kind === 'time') {
          now += step.ms;
          apply(expire(open(), now, limits));
        } else apply(serverStarted(open(), now, limits));

        for (let number = 0; number < HOSTS; number += 1) {
          const own = open().filter((row) => row.hostId === `h${number}`);
          const atWork = own.filter((row) => row.state === 'running');
          if (atWork.length > 1) overrun += 1;
          for (const row of own.filter(({ state }) => state === 'running' || state === 'silent')) {
            const holders = (boots[number] ?? []).filter(
              (machine) => machine.holds.get(row.id) === row.attempt,
            );
            if (holders.length > 1) throw new Error(`${row.id} attempt ${row.attempt} is held by two boots`);
          }
        }
        if (overrun > 0) throw new Error('one machine runs two tasks');
        for (const row of rows.values()) {
          if (finalStates.includes(row.state) !== (row.endedAt !== null))
            throw new Error('an end without a time');
        }
      }
    }),
    { numRuns: 1000 },
  );
  t.pass();
});
