import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../agent/process/run.ts';

/** Values by name; keys by path with backslashes. A number is a REG_DWORD. */
export type HiveContent = Record<string, Record<string, string | number>>;

const BINS = 4096;

/** A registry hive with nothing but its root: enough for hivex to go on with. */
const emptyHive = (): Buffer => {
  const hive = Buffer.alloc(2 * BINS);
  hive.write('regf', 0, 'latin1');
  hive.writeUInt32LE(1, 4);
  hive.writeUInt32LE(1, 8);
  hive.writeUInt32LE(1, 20);
  hive.writeUInt32LE(5, 24);
  hive.writeUInt32LE(1, 32);
  hive.writeUInt32LE(32, 36);
  hive.writeUInt32LE(BINS, 40);
  hive.writeUInt32LE(1, 44);
  let sum = 0;
  for (let offset = 0; offset < 508; offset += 4) sum = (sum ^ hive.readUInt32LE(offset)) >>> 0;
  hive.writeUInt32LE(sum, 508);

  hive.write('hbin', BINS, 'latin1');
  hive.writeUInt32LE(BINS, BINS + 8);
  // the root key at 32, its security descriptor behind it, then a free cell
  const root = BINS + 32;
  const rootSize = 88;
  const security = 32 + rootSize;
  const securitySize = 48;
  hive.writeInt32LE(-rootSize, root);
  hive.write('nk', root + 4, 'latin1');
  hive.writeUInt16LE(0x2c, root + 6);
  for (const field of [28, 32, 40, 48]) hive.writeUInt32LE(0xffffffff, root + 4 + field);
  hive.writeUInt32LE(security, root + 4 + 44);
  hive.writeUInt16LE(4, root + 4 + 72);
  hive.write('ROOT', root + 4 + 76, 'latin1');
  const at = BINS + security;
  hive.writeInt32LE(-securitySize, at);
  hive.write('sk', at + 4, 'latin1');
  hive.writeUInt32LE(security, at + 8);
  hive.writeUInt32LE(security, at + 12);
  hive.writeUInt32LE(1, at + 16);
  hive.writeUInt32LE(20, at + 20);
  // a self-relative descriptor of revision 1 that has nothing
  hive.writeUInt8(1, at + 24);
  hive.writeUInt16LE(0x8000, at + 26);
  hive.writeInt32LE(BINS - 32 - rootSize - securitySize, at + securitySize);
  return hive;
};

/** A registry hive, written by hivex. */
export const makeHive = async (path: string, content: HiveContent): Promise<void> => {
  await writeFile(path, emptyHive());
  const made = new Set<string>();
  const lines: string[] = [];
  for (const [key, values] of Object.entries(content)) {
    let parent = '';
    for (const name of key.split('\\')) {
      const child = `${parent}\\${name}`;
      if (!made.has(child)) lines.push(`cd ${parent || '\\ '}`, `add ${name}`);
      made.add(child);
      parent = child;
    }
    lines.push(`cd ${parent}`, `setval ${Object.keys(values).length}`);
    for (const [name, value] of Object.entries(values)) {
      lines.push(name || '@');
      lines.push(typeof value === 'number' ? `dword:${value}` : `string:${value}`);
    }
  }
  await run('hivexsh', ['-w', path], { input: `${lines.join('\n')}\ncommit\n` });
};

/** A SYSTEM hive as Windows leaves it, as far as names go. */
export const windowsSystem = (name: string, more: HiveContent = {}): HiveContent => ({
  Select: { Current: 1, Default: 1, Failed: 0, LastKnownGood: 1 },
  'ControlSet001\\Control\\ComputerName\\ComputerName': { '': 'mnmsrvc', ComputerName: name },
  'ControlSet001\\Services\\Tcpip\\Parameters': {
    DataBasePath: 'C:\\Windows\\System32\\drivers\\etc',
    Domain: '',
    HostName: name,
    'NV HostName': name,
    IPEnableRouter: 0,
  },
  Setup: { SystemSetupInProgress: 0 },
  ...more,
});

/** What hivexget says of one value. */
export const valueIn = async (path: string, key: string, value: string): Promise<string> =>
  (await run('hivexget', [path, key, value])).stdout.trim();

/** Real hives are not part of the project: where they lie beside it they are judged too. */
export const hiveFixtures = join(process.env['FOG_TEST_FIXTURES'] ?? '../shared/fixtures', 'hives');

export const unpackHive = async (name: string, folder: string): Promise<string> => {
  const path = join(folder, name);
  await run('sh', ['-c', 'xz -dkc "$1" > "$2"', 'sh', join(hiveFixtures, `${name}.xz`), path]);
  return path;
};
