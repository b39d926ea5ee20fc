import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { root } from '../root.ts';

/** One line of a bench; `ratio` is ours / peer. Rows without a peer have null for both. */
export interface Row {
  name: string;
  ours: number;
  peer: number | null;
  unit: string;
  ratio: number | null;
  /** least and greatest ratio of the runs; of `ours` where there is no peer */
  spread: [number, number];
  runs: number;
}

/** A row from runs of ours and the peer's side by side: medians, and the median of the ratios. */
export const pairedRow = (
  name: string,
  unit: string,
  pairs: readonly { ours: number; peer: number }[],
): Row => {
  const ratios = pairs.map(({ ours, peer }) => ours / peer);
  return {
    name,
    unit,
    ours: median(pairs.map(({ ours }) => ours)),
    peer: median(pairs.map(({ peer }) => peer)),
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
    runs: pairs.length,
  };
};

/** A row that has no peer. */
export const soloRow = (name: string, unit: string, values: readonly number[]): Row => ({
  name,
  unit,
  ours: median(values),
  peer: null,
  ratio: null,
  spread: [Math.min(...values), Math.max(...values)],
  runs: values.length,
});

/** Write `out/bench/<name>.json`; returns its path. */
export const writeReport = async (name: string, rows: readonly Row[]): Promise<string> => {
  const folder = join(root, 'out', 'bench');
  await mkdir(folder, { recursive: true });
  const path = join(folder, `${name}.json`);
  const machine = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryMiB: Math.round(totalmem() / 1024 / 1024),
    kernel: release(),
    node: process.version,
    at: new Date().toISOString(),
  };
  await writeFile(path, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
  return path;
};

export const printRows = (rows: readonly Row[]): void => {
  console.log(['row', 'ours', 'peer', 'unit', 'ratio', 'spread'].map(cell).join(''));
  for (const { name, ours, peer, unit, ratio, spread } of rows) {
    const range = `${round(spread[0])} .. ${round(spread[1])}`;
    console.log([name, round(ours), round(peer), unit, round(ratio), range].map(cell).join(''));
  }
};

const cell = (text: string, column: number): string => text.padEnd(column === 0 ? 22 : 12);
const round = (value: number | null): string => (value === null ? '-' : String(Number(value.toPrecision(4))));

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
};
