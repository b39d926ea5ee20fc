import { type ApiClient, createApiClient } from './api-client.ts';

/** Options that every command but `serve` takes. */
export interface ApiOptions {
  server: string;
  token?: string | undefined;
  data: string;
  json: boolean;
}

export interface CommandContext {
  api: ApiClient;
  /** `people` is printed, or `machine` as JSON with --json */
  print(machine: unknown, people: () => string): void;
}

/** Where commands write; tests bring their own. */
export type Print = (text: string) => void;

export const commandContext = (options: ApiOptions, out: Print = console.log): CommandContext => ({
  api: createApiClient(options),
  print: (machine, people) => out(options.json ? JSON.stringify(machine, null, 2) : people()),
});
