import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { parseCmdline, readConfig } from '../../agent/config.ts';
import { ImagingError } from '../../agent/errors.ts';

const site = { server: 'http://10.0.0.1:8080', token: 't'.repeat(32), publicKey: 'key' };

const sources = async (t: ExecutionContext, cmdline: string, siteJson: unknown = site) => {
  const folder = await mkdtemp(join(tmpdir(), 'fog-config-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const paths = { cmdlinePath: join(folder, 'cmdline'), sitePath: join(folder, 'site.json') };
  await writeFile(paths.cmdlinePath, cmdline);
  if (siteJson !== null) await writeFile(paths.sitePath, JSON.stringify(siteJson));
  return { ...paths, env: {} };
};

test('site.json alone is enough', async (t) => {
  const config = await readConfig(await sources(t, 'quiet console=ttyS0'));
  t.is(config.server, site.server);
  t.false(config.stay);
});

test('a flag goes before the kernel command line, that before the environment, that before site.json', async (t) => {
  const base = await sources(t, 'fog.server=http://cmdline:1');
  const env = { FOG_SERVER: 'http://env:1' };
  t.is((await readConfig({ ...base, env, flags: { server: 'http://flag:1' } })).server, 'http://flag:1');
  t.is((await readConfig({ ...base, env })).server, 'http://cmdline:1');
  const quiet = await sources(t, '');
  t.is((await readConfig({ ...quiet, env })).server, 'http://env:1');
});

test('without site.json the error says that the server did not start this machine', async (t) => {
  const error = await t.throwsAsync(readConfig(await sources(t, '', null)));
  t.is((error as ImagingError).code, 'CONFIG_INVALID');
});

test('an unknown key in site.json is refused', async (t) => {
  const error = await t.throwsAsync(readConfig(await sources(t, '', { ...site, insecure: true })));
  t.is((error as ImagingError).code, 'CONFIG_INVALID');
});

test('BOOTIF names the interface in any spelling', (t) => {
  t.is(parseCmdline('BOOTIF=01-52-54-00-AB-CD-EF').bootMac, '52:54:00:ab:cd:ef');
  t.is(parseCmdline('BOOTIF=52:54:00:ab:cd:ef').bootMac, '52:54:00:ab:cd:ef');
});

test('an unknown fog. word is an error, not ignored', (t) => {
  t.throws(() => parseCmdline('fog.sever=http://x'), { instanceOf: ImagingError });
});
