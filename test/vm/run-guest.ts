import { type MachineExit, type MachineOptions, startMachine } from '../../scripts/lib/vm/machine.ts';

export interface GuestRun {
  exit: MachineExit;
  /** what the guest printed (guest.ts), by name */
  // biome-ignore lint/suspicious/noExplicitAny: facts are whatever the guest printed
  facts: Map<string, any>;
}

/** Start a machine with a guest program and wait until it has powered off. FOG_TEST_PRINT shows its console. */
export const runGuest = async (
  options: MachineOptions,
  { timeoutMs }: { timeoutMs: number },
): Promise<GuestRun> => {
  const machine = await startMachine(options);
  try {
    const exit = await machine.waitForExit({ timeoutMs });
    const lines = machine.console().matchAll(/FACT (\{.*\})\s*$/gm);
    const facts = [...lines].map(([, json = '']) => JSON.parse(json) as { name: string; value: unknown });
    return { exit, facts: new Map(facts.map(({ name, value }) => [name, value])) };
  } finally {
    if (process.env['FOG_TEST_PRINT']) console.log(machine.console());
  }
};
