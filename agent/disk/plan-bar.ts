/** One partition in a bar. */
export interface Segment {
  name: string;
  start: number;
  size: number;
  /** what it is drawn with, in order; sizes are bytes of its own */
  fill: readonly { size: number; mark: string }[];
}

/**
 * A disk as a bar of characters in proportion: `|p1=|p2=====+++|.....|`. Every partition gets at least the room
 * of its name, up to `most` columns in all; null where even single columns would not do. Pure.
 */
export const barOf = (
  segments: readonly Segment[],
  diskSize: number,
  columns: number,
  most: number,
): string | null => {
  const cells = withGaps(segments, diskSize);
  // the separator in front of each, and the last one
  const named = cells.reduce((sum, { name }) => sum + name.length + 1, 1);
  const isNamed = named <= most;
  const least = (cell: Segment): number => (isNamed ? Math.max(1, cell.name.length) : 1);
  const smallest = cells.reduce((sum, cell) => sum + least(cell) + 1, 1);
  if (cells.length === 0 || smallest > most) return null;
  const spare = Math.max(columns, smallest) - smallest;
  const total = cells.reduce((sum, { size }) => sum + size, 0);
  const widths = cells.map((cell) => least(cell) + Math.floor((spare * cell.size) / total));
  return `${cells.map((cell, index) => `|${draw(cell, widths[index] ?? 1, isNamed)}`).join('')}|`;
};

/** Free space counts where it would be seen: from a hundredth of the disk on. */
const withGaps = (segments: readonly Segment[], diskSize: number): Segment[] => {
  const cells: Segment[] = [];
  let position = 0;
  const free = (end: number) => {
    const size = end - position;
    if (size >= diskSize / 100) cells.push({ name: '', start: position, size, fill: [{ size, mark: '.' }] });
  };
  for (const segment of segments) {
    free(segment.start);
    cells.push(segment);
    position = segment.start + segment.size;
  }
  free(diskSize);
  return cells;
};

const draw = ({ name, size, fill }: Segment, width: number, isNamed: boolean): string => {
  let text = '';
  let covered = 0;
  for (const { size: part, mark } of fill) {
    covered += part;
    const end = Math.round((width * covered) / size);
    text += mark.repeat(Math.max(0, end - text.length));
  }
  return isNamed ? name + text.slice(name.length) : text;
};
