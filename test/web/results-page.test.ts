import { truncate } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import {
  addHost,
  addTask,
  bootAgent,
  capture,
  failureOf,
  makeImage,
  progressOf,
  resultOf,
  testServer,
  wipedDisk,
  wipeOf,
} from '../server-stub/support.ts';
import { openBrowser } from './browser.ts';

const EVIL = '<img src=x onerror="window.hit=1">';

test('the page asks for the token, shows live progress, images, results with evidence, and no markup of machines', async (t) => {
  const server = await testServer(t);
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  const url = `http://127.0.0.1:${(server.app.server.address() as AddressInfo).port}`;
  const { mac } = await addHost(server, EVIL);
  const content = makeImage(3);
  const captured = await capture(server, mac, 'lab', content);
  const failing = await addTask(server, mac, 'inventory');
  const first = await bootAgent(server, mac);
  await first.post('next');
  await first.post(`tasks/${failing.id}/log`, { attempt: 1, from: 0, lines: ['line one', EVIL] });
  await first.post(`tasks/${failing.id}/result`, failureOf(1, 'DISK_AMBIGUOUS'));
  const wipe = await addTask(server, mac, 'wipe-normal', { allInternal: true });
  const second = await bootAgent(server, mac);
  await second.post('next');
  const wiped = wipeOf(wipedDisk({ facts: { ...wipedDisk().facts, model: EVIL } }));
  await second.post(`tasks/${wipe.id}/result`, resultOf(1, wiped));
  const failedWipe = await addTask(server, mac, 'wipe-full', { allInternal: true });
  const third = await bootAgent(server, mac);
  await third.post('next');
  const notWiped = wipedDisk({ status: 'failed', reason: EVIL, verification: null });
  await third.post(`tasks/${failedWipe.id}/result`, {
    ...failureOf(1, 'WIPE_INCOMPLETE'),
    ...wipeOf(notWiped),
  });
  const deploy = await addTask(server, mac, 'deploy', { image: 'lab' });
  const agent = await bootAgent(server, mac);
  await agent.post('next');
  await agent.post(`tasks/${deploy.id}/progress`, progressOf(1, { message: EVIL }));

  const page = await openBrowser(t);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(url);

  await page.getByLabel('Token').fill('wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').filter({ hasText: 'the token is wrong' }).waitFor();
  t.true(await page.getByRole('heading', { name: 'Images' }).isHidden());
  await page.getByLabel('Token').fill(server.app.fog.adminToken);
  await page.getByRole('button', { name: 'Sign in' }).click();

  const card = page.locator(`[data-task="${deploy.id}"]`);
  await card.getByText('10 % of 100 B').waitFor();
  await page.getByText('live', { exact: true }).waitFor();
  await page.getByRole('cell', { name: 'lab@1' }).waitFor();
  await page.getByText('DISK_AMBIGUOUS: Cannot go on').waitFor();
  t.true(await page.locator('#hosts').getByText(EVIL).isVisible());

  // pushed, not fetched again
  await agent.post(`tasks/${deploy.id}/progress`, progressOf(1, { done: 75, message: EVIL }));
  await card.getByText('75 % of 100 B').waitFor();

  const evidence = page.locator('#ended .evidence').first();
  await evidence.locator('summary').click();
  await evidence.getByText('bytes: read back').waitFor();
  const log = await page.request.get(`${url}/api/tasks/${failing.id}/log?format=text`);
  t.is(await log.text(), `line one\n${EVIL}\n`);
  t.is(log.headers()['content-type'], 'text/plain; charset=utf-8');

  const erased = page.locator('#ended article', { hasText: 'wipe-normal' });
  await erased.getByText('cleared-verified').waitFor();
  t.true(await erased.getByRole('cell', { name: EVIL }).isVisible());
  const certificate = await erased.getByRole('link', { name: 'Certificate (PDF)' }).getAttribute('href');
  t.is((await page.request.get(url + certificate)).headers()['content-type'], 'application/pdf');

  const left = page.locator('#ended article', { hasText: 'wipe-full' });
  await left.getByText('NOT ERASED: failed').waitFor();
  t.is(await left.getByRole('link', { name: 'Certificate' }).count(), 0);
  const record = await left
    .getByRole('link', { name: 'Signed record: NOT ERASED (JSON)' })
    .getAttribute('href');
  t.false((await (await page.request.get(url + record)).json()).certificate.erased);

  // a damaged chunk is seen by the server, and by the page without a reload
  const damaged = content.chunks[0]?.id ?? '';
  await truncate(server.app.fog.library.store.path(damaged), 10);
  await agent.post('packs/fetch', { image: 'lab', version: captured.version, ids: [damaged] });
  await page.getByText('1 damaged chunk').waitFor();

  t.is(await page.evaluate('window.hit'), undefined);
  t.is(await page.locator('img').count(), 0);
  t.deepEqual(errors, []);
  const folder = process.env['FOG_TEST_SCREENSHOTS'];
  if (folder) {
    await page.screenshot({ path: `${folder}/results-page-light.png`, fullPage: true });
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.screenshot({ path: `${folder}/results-page-dark.png`, fullPage: true });
  }

  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Token').waitFor();
  t.is((await page.request.get(`${url}/api/tasks`)).status(), 401);
});
