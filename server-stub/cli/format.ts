/** Rows under headings, columns aligned; for people. */
export const table = (headings: readonly string[], rows: readonly (readonly string[])[]): string => {
  const all = [headings, ...rows].map((row) => row.map(printable));
  const widths = headings.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
};

/** What came from a machine must not move the cursor of the administrator's terminal. */
export const printable = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, '\ufffd');

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1536 -> "1.5 KiB" */
export const bytes = (count: number): string => {
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 2 ** (10 * power);
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
};

/** 10000000000 -> "10.0 GB": as disks are sold */
export const decimal = (count: number): string => {
  const [unit, size] = count >= 1e12 ? ['TB', 1e12] : count >= 1e9 ? ['GB', 1e9] : ['MB', 1e6];
  return `${(count / Number(size)).toFixed(1)} ${unit}`;
};

/** 95 -> "1 min 35 s" */
export const seconds = (count: number): string => {
  const whole = Math.round(count);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
};

/** ISO 8601 in local time to the second */
export const when = (iso: string | null): string =>
  iso === null ? '-' : new Date(iso).toLocaleString('sv-SE');
