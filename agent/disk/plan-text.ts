import type { ImageDisk, Plan, PlannedPartition } from '../protocol/index.ts';
import { barOf, type Segment } from './plan-bar.ts';

const WIDTH = 80;
const BAR = WIDTH - 9;
/** a result's summary holds 4000 characters */
const ROWS = 24;
const WARNINGS = 6;

/**
 * The plan as a person would draw it: the disk in the image and the disk after the deploy in proportion, then
 * what happens to each partition, then warnings. ASCII but for labels, 80 columns, no control characters,
 * below 4000 characters. Pure.
 */
export const planText = (plan: Plan, disk: ImageDisk): string => {
  const all = [...plan.partitions, ...plan.kept].sort((a, b) => a.start - b.start);
  const serial = plan.disk.serial || plan.disk.wwn || 'without serial';
  const longest = Math.max(disk.size, plan.disk.size);
  const bars = [
    ['image', disk.size, disk.partitions.toSorted((a, b) => a.start - b.start).map(inImage)],
    ['disk', plan.disk.size, all.map((one) => onDisk(one, plan))],
  ] as const;
  const drawn = bars.flatMap(([name, size, segments]) => {
    const columns = Math.max(1, Math.round((BAR * size) / longest));
    const bar = barOf(segments, size, columns, BAR);
    return bar ? [`${name.padEnd(6)} ${bar}`] : [];
  });
  return [
    clipped(`${plan.image} version ${plan.version}, ${disk.name} (${sizeText(disk.size)})`, WIDTH),
    clipped(`to disk ${serial} (${sizeText(plan.disk.size)}), ${tableText(plan)}`, WIDTH),
    '',
    ...drawn,
    ...(drawn.length > 0 ? [legendOf(bars[1][2]), ''] : []),
    ...rowsOf(all, plan),
    ...warningLines(plan.warnings),
  ].join('\n');
};

/** Bytes in three digits: 19.6 GiB. */
export const sizeText = (bytes: number): string => {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  // 1023.5 would be printed as 1024
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits).replace(/\.0+$/, '')} ${units[unit]}`;
};

const tableText = ({ table, oldTable }: Plan): string => {
  const name = { gpt: 'GPT', dos: 'MBR', none: 'no partition table' }[table];
  if (oldTable === 'stays') return `its ${name} stays as it is`;
  return table === 'none' ? name : `new ${name}`;
};

const inImage = ({ name, start, size }: ImageDisk['partitions'][0]): Segment => ({
  ...{ name, start, size, fill: [{ size, mark: '=' }] },
});

const onDisk = ({ name, start, size, contentSize }: PlannedPartition, plan: Plan): Segment => {
  const kept = plan.kept.some((one) => one.name === name);
  const fill = [
    { size: contentSize, mark: kept ? '#' : '=' },
    { size: size - contentSize, mark: '+' },
  ];
  return { name, start, size, fill };
};

const legendOf = (segments: readonly Segment[]): string => {
  const marks = new Set(
    segments.flatMap(({ fill }) => fill.filter(({ size }) => size > 0).map(({ mark }) => mark)),
  );
  const words = [
    ['=', 'from the image'],
    ['+', 'won'],
    ['#', 'kept'],
    ['.', 'free'],
  ] as const;
  return `       ${words
    .filter(([mark]) => mark === '.' || marks.has(mark))
    .map(([mark, word]) => `${mark} ${word}`)
    .join('   ')}`;
};

const rowsOf = (all: readonly PlannedPartition[], plan: Plan): string[] => {
  const rows = all.slice(0, ROWS).map((partition) => {
    const { name, role, filesystem, size, contentSize, method, label } = partition;
    const won = size > contentSize ? ` -> ${sizeText(size)}` : '';
    return [
      name,
      role,
      clipped(filesystem || (method === 'raw' ? 'raw' : '-'), 12),
      `${sizeText(contentSize)}${won}`,
      whatHappens(partition, plan),
      clipped(label, 16),
    ];
  });
  const table = [['', 'role', 'content', 'size', 'what', 'label'], ...rows];
  const widths =
    table[0]?.map((_cell, column) => Math.max(...table.map((row) => columnsOf(row[column] ?? '')))) ?? [];
  const lines = table.map((row) =>
    clipped(
      row
        .map((cell, column) => cell + ' '.repeat(Math.max(0, (widths[column] ?? 0) - columnsOf(cell))))
        .join('  ')
        .trimEnd(),
      WIDTH,
    ),
  );
  return all.length > ROWS ? [...lines, `and ${all.length - ROWS} more`] : lines;
};

const whatHappens = (partition: PlannedPartition, plan: Plan): string => {
  if (plan.kept.some(({ name }) => name === partition.name)) return 'kept';
  const moved = plan.moved.find(({ name }) => name === partition.name);
  return [
    partition.method === 'recreate' ? 'made anew' : 'written',
    ...(partition.grow ? ['grown'] : []),
    ...(moved ? ['moved'] : []),
  ].join(', ');
};

const warningLines = (warnings: readonly string[]): string[] => {
  if (warnings.length === 0) return [];
  const more = warnings.length > WARNINGS ? [`  and ${warnings.length - WARNINGS} more warnings`] : [];
  return ['', ...warnings.slice(0, WARNINGS).flatMap((warning) => wrapped(clipped(warning, 240))), ...more];
};

const wrapped = (text: string): string[] => {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined) lines.push(`! ${word}`);
    else if (columnsOf(`${last} ${word}`) > WIDTH) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.map((line) => clipped(line, WIDTH));
};

/** Controls, invisible and direction-changing characters would let a label draw over its neighbours. */
const printable = (text: string): string => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?');

const clipped = (text: string, columns: number): string => {
  const safe = printable(text);
  if (columnsOf(safe) <= columns) return safe;
  let kept = '';
  for (const { segment } of graphemes.segment(safe)) {
    if (columnsOf(kept + segment) > columns - 1) break;
    kept += segment;
  }
  return `${kept}~`;
};

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Terminal columns, on the safe side: from Hangul on, characters may take two. */
const columnsOf = (text: string): number =>
  [...text].reduce((sum, character) => sum + ((character.codePointAt(0) ?? 0) >= 0x1100 ? 2 : 1), 0);
