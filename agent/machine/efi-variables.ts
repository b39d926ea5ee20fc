import { run } from '../process/run.ts';

/** One entry of the firmware's boot menu. */
export interface BootEntry {
  /** four hex digits, upper case */
  number: string;
  active: boolean;
  label: string;
  /** device path as efibootmgr prints it */
  path: string;
  /** unique GUID of the GPT partition it points to, lower case; null for anything else */
  partition: string | null;
  /** `\EFI\…`, null where none is named */
  loader: string | null;
  network: boolean;
}

export interface BootMenu {
  current: string | null;
  next: string | null;
  order: string[];
  entries: BootEntry[];
}

/**
 * The firmware's boot menu as it stands in NVRAM.
 *
 * @throws ImagingError TOOL_FAILED: not started by UEFI, or efivarfs is not mounted
 */
export const readBootMenu = async (options: { signal?: AbortSignal } = {}): Promise<BootMenu> => {
  const { stdout } = await run('efibootmgr', ['--verbose'], options);
  return parseBootMenu(stdout);
};

/**
 * `efibootmgr -v`. Versions 17 (Debian 12) and 18 (Debian 13) print `HD(…)/File(\EFI\…)`, with libefivar
 * 39 also `HD(…)/\EFI\…`; optional data follows at once, as text or hex. Version 18 adds dumps of bytes on
 * lines of their own. A tab stands between label and path. Pure.
 */
export const parseBootMenu = (text: string): BootMenu => {
  const value = (name: string): string | null =>
    new RegExp(`^${name}: *([0-9A-Fa-f,]*)\\s*$`, 'm').exec(text)?.[1]?.toUpperCase() || null;
  const entries: BootEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^Boot([0-9A-Fa-f]{4})(\*?) +(.*)$/.exec(line);
    if (!match) continue;
    const [label = '', path = ''] = splitOnce(match[3] ?? '');
    entries.push({
      number: (match[1] ?? '').toUpperCase(),
      active: match[2] === '*',
      label: label.trim(),
      path: path.trim(),
      partition: /HD\(\d+,GPT,([0-9a-f-]{36})/i.exec(path)?.[1]?.toLowerCase() ?? null,
      loader: /HD\([^)]*\)\/(?:File\()?(\\.*?\.efi)/i.exec(path)?.[1] ?? null,
      network: networkPath.test(path) || networkLabel.test(label),
    });
  }
  return {
    current: value('BootCurrent'),
    next: value('BootNext'),
    order: value('BootOrder')?.split(',').filter(Boolean) ?? [],
    entries,
  };
};

const networkPath = /\bMAC\(|\bIPv[46]\(|\bUri\(|BBS\((?:Network|128)/i;
const networkLabel = /\b(?:pxe|network|ipv4|ipv6|http boot|onboard nic)\b/i;

/** A label may hold tabs of its own, a path never does. */
const splitOnce = (text: string): [string, string] => {
  const at = text.lastIndexOf('\t');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
};

/**
 * The order with a new entry: first, but behind network entries that came first before, so that a
 * machine that is imaged again still asks the network. Entries that are gone are left out. Pure.
 */
export const orderWith = (menu: BootMenu, added: string, removed: readonly string[]): string[] => {
  const rest = menu.order.filter((number) => number !== added && !removed.includes(number));
  const isNetwork = (number: string) =>
    menu.entries.some((entry) => entry.number === number && entry.network);
  const first = rest.findIndex((number) => !isNetwork(number));
  const at = first < 0 ? rest.length : first;
  return [...rest.slice(0, at), added, ...rest.slice(at)];
};

/**
 * Entries that a new one replaces: those that point to the same partition, and those of the same
 * label whose partition exists on no disk of this machine. Pure.
 */
export const replacedEntries = (
  menu: BootMenu,
  wanted: { partition: string; label: string },
  present: ReadonlySet<string>,
): BootEntry[] =>
  menu.entries.filter(
    ({ partition, label }) =>
      partition !== null &&
      (partition === wanted.partition || (label === wanted.label && !present.has(partition))),
  );
