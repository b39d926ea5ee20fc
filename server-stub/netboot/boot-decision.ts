/** What a machine that asks over the network boots. */
export type BootDecision =
  /** nothing to do: its own disk. `efiLoader` is the loader's path on the ESP, known from inventory */
  | { kind: 'disk'; efiLoader?: string }
  /** a task: the agent, with this single-use token */
  | { kind: 'agent'; token: string };
