import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImagingError, isImagingError } from '../errors.ts';
import { ownFolder } from '../process/owner.ts';
import { run } from '../process/run.ts';
import { type Changes, noChanges } from './change.ts';
import { CLOSE_WINDOWS, openHiveFile } from './hive-file.ts';
import {
  type Hive,
  type HiveValue,
  numberOf,
  openHive,
  REG_SZ,
  readValues,
  textOf,
} from './registry-hive.ts';
import type { Tree } from './tree.ts';

export const SYSTEM_HIVE = 'Windows/System32/config/SYSTEM';
const HIVEX_MS = 5 * 60_000;

/**
 * Give an installed Windows its name (the first label of a full one): computer name and host name in every control set that its next
 * start may use. The hive is changed in a copy by hivex, compared with what it was by our own reader, and
 * only then written back where it lies, so that its access rights stay. Null: no Windows here.
 */
export const renameWindows = async (
  tree: Tree,
  hostname: string,
  signal: AbortSignal,
): Promise<Changes | null> => {
  const changes = noChanges();
  const name = hostname.split('.')[0] ?? '';
  try {
    await using hive = await openHiveFile(tree, SYSTEM_HIVE);
    if (!hive) return null;
    const { bytes, warnings, sets } = await renameInHive(hive.bytes, name, signal);
    changes.files.push(...(await hive.store(bytes)));
    changes.warnings.push(...warnings);
    if (hive.replayed) {
      changes.evidence.push({
        what: 'registry',
        proof: 'it was not closed: what waited in its log was applied, every entry whole and in order',
      });
    }
    changes.evidence.push({
      what: 'computer name',
      proof: `the registry says ${name.toUpperCase()} in ${sets.join(' and ')}`,
    });
  } catch (error) {
    // a hive that is damaged, or that hivex does not take: Windows stays as it was
    if (!isImagingError(error) || !['OPTION_REFUSED', 'TOOL_FAILED', 'TOOL_TIMEOUT'].includes(error.code)) {
      throw error;
    }
    changes.unmet.push(error.message);
  }
  return changes;
};

const refused = (reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot name Windows: ${reason}`);

interface Renamed {
  bytes: Buffer;
  warnings: string[];
  sets: string[];
}

/**
 * The SYSTEM hive with another computer name.
 *
 * @throws ImagingError OPTION_REFUSED (changes wait in its log; no such keys), TOOL_FAILED
 */
export const renameInHive = async (hive: Buffer, hostname: string, signal: AbortSignal): Promise<Renamed> => {
  const folder = await ownFolder('hive');
  try {
    const path = join(folder, 'SYSTEM');
    await writeFile(path, hive);
    const before = await withHive(path, (opened) => planEdits(opened, hostname));
    await run('hivexsh', ['-w', path], { input: scriptOf(before.edits), signal, timeoutMs: HIVEX_MS });
    await withHive(path, (opened) => assertEdited(opened, before.edits));
    return { bytes: await readFile(path), warnings: before.warnings, sets: before.sets };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

const withHive = async <T>(path: string, work: (hive: Hive) => Promise<T>): Promise<T> => {
  await using file = await open(path, 'r');
  return await work(await openHive(file));
};

/** One key with all the values it will have: hivexsh replaces them together. */
interface Edit {
  path: string[];
  values: HiveValue[];
}

const planEdits = async (
  hive: Hive,
  hostname: string,
): Promise<{ edits: Edit[]; warnings: string[]; sets: string[] }> => {
  if (!hive.clean) {
    throw refused(`its registry was not closed (changes wait in its log); ${CLOSE_WINDOWS}`);
  }
  const select = await readValues(hive, ['Select']);
  const numbers = [numberOf(select, 'Default'), numberOf(select, 'Current')];
  const sets = [...new Set(numbers)]
    .filter((number) => number !== null)
    .map((number) => `ControlSet${String(number).padStart(3, '0')}`);
  const edits: Edit[] = [];
  const warnings = new Set<string>();
  for (const set of sets) {
    const name = [set, 'Control', 'ComputerName', 'ComputerName'];
    const network = [set, 'Services', 'Tcpip', 'Parameters'];
    const nameValues = await readValues(hive, name);
    const networkValues = await readValues(hive, network);
    if (nameValues === null || networkValues === null) continue;
    edits.push(setText(name, nameValues, { ComputerName: hostname.toUpperCase() }));
    // made anew at each start, and there only where a hive was saved from a running system
    const active = [set, 'Control', 'ComputerName', 'ActiveComputerName'];
    const activeValues = await readValues(hive, active);
    if (activeValues !== null) {
      edits.push(setText(active, activeValues, { ComputerName: hostname.toUpperCase() }));
    }
    edits.push(setText(network, networkValues, { Hostname: hostname, 'NV Hostname': hostname }));
    const domain = textOf(networkValues, 'Domain') || textOf(networkValues, 'NV Domain');
    if (domain) {
      warnings.add(
        `Windows belongs to the domain ${domain.slice(0, 100)}, where its account has the former name: join it again`,
      );
    }
  }
  if (edits.length === 0) throw refused('its registry has no computer name where the next start looks');
  if ((numberOf(await readValues(hive, ['Setup']), 'SystemSetupInProgress') ?? 0) !== 0) {
    warnings.add(
      'Windows was generalised by sysprep: at its first start it takes the name of its unattend.xml, or a random one',
    );
  }
  return { edits, warnings: [...warnings], sets };
};

/** The key's values with some of them set; a value that is there keeps the case of its name. */
const setText = (path: string[], values: readonly HiveValue[], texts: Record<string, string>): Edit => {
  const result = values.map((value) => ({ ...value }));
  for (const [name, text] of Object.entries(texts)) {
    const data = Buffer.from(`${text}\0`, 'utf16le');
    const present = result.find((value) => value.name.toUpperCase() === name.toUpperCase());
    if (present) Object.assign(present, { type: REG_SZ, data });
    else result.push({ name, type: REG_SZ, data });
  }
  return { path, values: result };
};

/** hivexsh(1): one command a line; `setval` takes the number of values, then a line each for name and value. */
const scriptOf = (edits: readonly Edit[]): string => {
  const lines: string[] = [];
  for (const { path, values } of edits) {
    lines.push(`cd \\${path.join('\\')}`, `setval ${values.length}`);
    for (const { name, type, data } of values) {
      // a line that hivexsh would take for something else
      if (name === '@' || name !== name.trim() || /\p{Cc}/u.test(name)) {
        throw refused('a value has an unusual name');
      }
      const bytes = [...data].map((byte) => byte.toString(16).padStart(2, '0'));
      lines.push(name === '' ? '@' : name, `hex:${type}:${bytes.join(',')}`);
    }
  }
  return `${[...lines, 'commit'].join('\n')}\n`;
};

/** Every value of every key that was touched, by another reader than the one that wrote. */
const assertEdited = async (hive: Hive, edits: readonly Edit[]): Promise<void> => {
  const wrong: string[] = [];
  if (!hive.clean) wrong.push('it is not closed');
  for (const { path, values } of edits) {
    const found = await readValues(hive, path);
    const same =
      found?.length === values.length &&
      values.every(({ name, type, data }) =>
        found.some((one) => one.name === name && one.type === type && one.data.equals(data)),
      );
    if (!same) wrong.push(path.join('\\'));
  }
  if (wrong.length === 0) return;
  throw new ImagingError('TOOL_FAILED', 'Cannot name Windows: hivex left other values than were asked for', {
    details: { wrong },
  });
};
