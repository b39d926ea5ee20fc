import { hasCode } from '../errors.ts';
import { type Changes, noChanges, sha256Of } from './change.ts';
import { readInside, type Tree, writeInside } from './tree.ts';

/** What became of a Windows disk's places and names in a deploy. */
export interface Relocation {
  /** where each partition of the image began and begins, bytes on its disk; also those that stay */
  moves: readonly { from: number; to: number }[];
  /** GUIDs that are new, of the disk and of partitions: lower case, without braces */
  guids: ReadonlyMap<string, string>;
  /** the places at capture are not known: the image is a smaller copy */
  unsure?: boolean;
}

export const isRelocated = ({ moves, guids, unsure }: Relocation): boolean =>
  unsure === true || guids.size > 0 || moves.some(({ from, to }) => from !== to);

const MAX_REAGENT = 256 * 1024;

/** Of Windows itself, and of a recovery partition. */
const places = ['Windows/System32/Recovery/ReAgent.xml', 'Recovery/WindowsRE/ReAgent.xml'];

/**
 * Tell Windows where its recovery environment lies now: ReAgent.xml names it by the disk and the byte
 * where its partition begins.
 */
export const relocateRecovery = async (tree: Tree, relocation: Relocation): Promise<Changes> => {
  const changes = noChanges();
  for (const path of places) {
    const bytes = await readInside(tree, path, MAX_REAGENT);
    if (bytes === null || bytes.length >= MAX_REAGENT) continue;
    const fixed = relocateReAgent(bytes, relocation);
    if (fixed === 'unknown') {
      changes.warnings.push(
        `${path} names places that this image does not have: if Windows’ recovery does not start, run reagentc /disable, then reagentc /enable`,
      );
    }
    if (typeof fixed === 'string') continue;
    try {
      await writeInside(tree, path, fixed, 0o644);
    } catch (error) {
      if (!hasCode(error, 'OPTION_REFUSED') || !(error instanceof Error)) throw error;
      changes.warnings.push(`${error.message}; run in Windows: reagentc /disable, then reagentc /enable`);
      continue;
    }
    changes.files.push({ path, sha256: sha256Of(fixed) });
    changes.evidence.push({
      what: 'Windows recovery',
      proof: `${path} names the place where its partition lies now`,
    });
  }
  return changes;
};

/** Attributes of every `…Location` element that say where: not documented by Microsoft, but the same since Windows 8. */
const location = /<(\w*Location)\b[^<>]*>/g;
const NOWHERE = '00000000-0000-0000-0000-000000000000';

/**
 * ReAgent.xml for the disk as it is now; `same` where nothing in it refers to what changed, `unknown`
 * where it names an offset that no partition of the image begins at. On GPT `guid` is the disk's, and
 * `offset` the partition's first byte. UTF-8 or UTF-16 with its mark, kept as it was. Pure.
 */
export const relocateReAgent = (bytes: Buffer, { moves, guids }: Relocation): Buffer | 'same' | 'unknown' => {
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf16le' : 'latin1';
  const text = bytes.toString(encoding);
  let unknown = false;
  const fixed = text.replaceAll(location, (element) => {
    const offset = /\boffset="(\d{1,19})"/.exec(element)?.[1] ?? '0';
    const guid = /\bguid="\{([0-9a-f-]{36})\}"/i.exec(element)?.[1]?.toLowerCase() ?? NOWHERE;
    if (offset === '0') return element;
    const place = moves.find(({ from }) => String(from) === offset);
    if (!place) {
      unknown = true;
      return element;
    }
    const renamed = guids.get(guid);
    return element
      .replace(/\boffset="\d+"/, `offset="${place.to}"`)
      .replace(/\bguid="\{[^}]*\}"/i, (whole) => (renamed ? `guid="{${renamed}}"` : whole));
  });
  if (fixed !== text) return Buffer.from(fixed, encoding);
  return unknown ? 'unknown' : 'same';
};
