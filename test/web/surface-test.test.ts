import type { AddressInfo } from 'node:net';
import test from 'ava';
import { addHost, addTask, bootAgent, resultOf, testServer } from '../server-stub/support.ts';
import { surfaceDisk, surfaceOf } from '../server-stub/surface-support.ts';
import { openBrowser } from './browser.ts';

const EVIL = '<img src=x onerror="window.hit=1">';

test('the page shows what a surface test found: verdict and why, bad ranges, the latency of each part; no markup of machines', async (t) => {
  const server = await testServer(t);
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  const { mac } = await addHost(server, 'lab');
  const { id } = await addTask(server, mac, 'surface-test', {});
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  const sick = surfaceDisk({
    facts: { ...surfaceDisk().facts, model: EVIL },
    ...{ verdict: 'bad', reasons: [`2 bad sectors ${EVIL}`] },
    bad: {
      ranges: [{ lba: 1001, sectors: 2, start: 512_512, size: 1024 }],
      ...{ more: { ranges: 3, sectors: 24 }, sectors: 26, bytes: 26 * 512 },
    },
  });
  const sent = await agent.post(`tasks/${id}/result`, resultOf(1, surfaceOf(sick)));
  t.is(sent.statusCode, 200, sent.body);

  const page = await openBrowser(t);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${(server.app.server.address() as AddressInfo).port}`);
  await page.getByLabel('Token').fill(server.app.fog.adminToken);
  await page.getByRole('button', { name: 'Sign in' }).click();
  const card = page.locator('#ended article', { hasText: 'surface-test' });
  await page.getByText('live', { exact: true }).waitFor();
  // the stream's first event draws the page anew
  await page.waitForResponse((answer) => answer.url().endsWith('/api/hosts'));
  await card.getByText('bad', { exact: true }).waitFor();
  t.true(await card.getByRole('cell', { name: EVIL, exact: true }).isVisible());
  await card.getByText('Bad ranges of S1: 4').click();
  await card.getByRole('cell', { name: '1001' }).waitFor();
  t.true(await card.getByText('and 3 more').isVisible());
  await card.getByText('Latency of S1: 512 single reads').click();
  t.is(await card.getByRole('img', { name: 'slowest 80 ms' }).locator('i').count(), 2);
  t.is(await page.evaluate('window.hit'), undefined);
  t.is(await page.locator('img').count(), 0);
  t.deepEqual(errors, []);
});
