import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../../agent/process/run.ts';
import { newcArchive, siteCpio } from '../../../server-stub/netboot/site-cpio.ts';

const site = { server: 'http://10.0.0.1:8080', token: 't'.repeat(43), publicKey: 'MCowBQ==' };

test('cpio lists the site archive and unpacks it with its modes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'fog-cpio-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const listed = await run('cpio', ['-t', '--quiet'], { input: siteCpio(site) });
  t.is(listed.stdout, 'fog\nfog/site.json\n');
  await run('cpio', ['-id', '--quiet', '-D', folder], { input: siteCpio(site) });
  t.deepEqual(JSON.parse(readFileSync(join(folder, 'fog/site.json'), 'utf8')), site);
  t.is(statSync(join(folder, 'fog/site.json')).mode & 0o7777, 0o600);
  t.is(statSync(join(folder, 'fog')).mode & 0o7777, 0o700);
});

test('names and contents of every length stay aligned', async (t) => {
  const entries = [1, 2, 3, 4, 5, 6, 7, 8].map((length) => ({
    path: 'n'.repeat(length),
    mode: 0o100644,
    content: Buffer.alloc(length, length),
  }));
  const archive = newcArchive(entries);
  t.is(archive.length % 4, 0);
  const listed = await run('cpio', ['-t', '--quiet'], { input: archive });
  t.deepEqual(
    listed.stdout.trim().split('\n'),
    entries.map(({ path }) => path),
  );
});
