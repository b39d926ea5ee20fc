import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

/** Without the background flags Chromium asks for hosts of its maker at every start. */
const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Debian's Chromium with an empty profile. */
export const openBrowser = async (
  t: ExecutionContext,
  colorScheme: 'light' | 'dark' = 'light',
): Promise<Page> => {
  const profile = await mkdtemp(join(tmpdir(), 'fog-chromium-'));
  const context: BrowserContext = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: flags,
    colorScheme,
    viewport: { width: 1100, height: 900 },
  });
  t.teardown(async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  return page;
};
