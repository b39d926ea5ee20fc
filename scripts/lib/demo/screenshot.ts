import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** The results page as an administrator sees it, in a real browser. */
export const screenshotOfPage = async ({
  url,
  token,
  file,
}: {
  url: string;
  token: string;
  file: string;
}): Promise<void> => {
  const profile = await mkdtemp(join(tmpdir(), 'fog-demo-page-'));
  const flags = [
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ];
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    args: flags,
    viewport: { width: 1200, height: 1000 },
  });
  try {
    const page = await context.newPage();
    await page.goto(url);
    await page.getByLabel(/token/i).fill(token);
    await page.keyboard.press('Enter');
    await page.getByText('succeeded').first().waitFor();
    await page.screenshot({ path: file, fullPage: true });
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  }
};
