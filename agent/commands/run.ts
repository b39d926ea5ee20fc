import { runAgent } from '../agent.ts';
import { readConfig } from '../config.ts';
import { stopKeyPressed } from '../tui/key.ts';
import { openScreen } from '../tui/screen.ts';

export interface RunCommandOptions {
  server?: string;
  stay?: boolean;
  screen: string;
}

/** `fog run`: the agent's loop, its log on standard output, its status on the machine's screen. */
export const runCommand = async ({ screen, ...flags }: RunCommandOptions): Promise<void> => {
  const config = await readConfig({ flags });
  const ending = new AbortController();
  const end = (): void => ending.abort();
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  // before blessed installs its own, which shows the screen's trouble instead of the error
  process.on('uncaughtException', (error) => {
    console.error(`fog: ${error.stack ?? error.message}`);
    process.exit(70);
  });
  const status = await openScreen(screen);
  try {
    await runAgent({
      config,
      signal: ending.signal,
      stopKeyPressed,
      toConsole: (line) => {
        console.log(line);
        status?.log(line);
      },
      ...(status ? { show: status.show } : {}),
    });
  } finally {
    status?.close();
  }
};
