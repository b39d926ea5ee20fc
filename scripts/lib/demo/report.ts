import { run } from '../../../agent/process/run.ts';
import { size } from '../../../agent/tui/view.ts';
import type { EndedTask } from './tasks.ts';

export interface Report {
  transfer(name: string, task: EndedTask, diskBytes: number): void;
  prove(what: string, proof: string): void;
  /** what the server's data folder takes on disk */
  store(data: string): Promise<void>;
  finish(seconds: number): void;
  table(): string;
  json(): unknown;
}

interface Row {
  name: string;
  diskBytes: number;
  seconds: number;
  transferSeconds: number;
  bytesUsed: number;
  bytesRead: number;
  bytesSent: number;
  bytesReceived: number;
  bytesWritten: number;
  bytesReadBack: number;
  chunks: number;
  chunksReused: number;
  /** used bytes that a second of the transfer brought from disk to image or back */
  mbPerSecond: number;
  bottleneck: string;
  evidence: EndedTask['evidence'];
  warnings: string[];
}

/** The demo's figures: the same in the table and in demo.json. */
export const createReport = (firmware: string): Report => {
  const rows: Row[] = [];
  const proved: { what: string; proof: string }[] = [];
  let storedBytes = 0;
  let seconds = 0;

  return {
    transfer: (name, { seconds: taskSeconds, stats, evidence, warnings }, diskBytes) => {
      const { seconds: transferSeconds, busy: _busy, ...bytes } = stats;
      const mbPerSecond = transferSeconds > 0 ? stats.bytesUsed / 1e6 / transferSeconds : 0;
      rows.push({
        name,
        diskBytes,
        seconds: taskSeconds,
        transferSeconds,
        ...bytes,
        mbPerSecond,
        evidence,
        warnings,
      });
    },
    prove: (what, proof) => proved.push({ what, proof }),
    store: async (data) => {
      const { stdout } = await run('du', ['-sB1', `${data}/chunks`]);
      storedBytes = Number(stdout.split('\t')[0]);
    },
    finish: (value) => {
      seconds = value;
    },
    table: () => {
      const head = [
        '',
        'used',
        'read',
        'sent',
        'received',
        'written',
        'read back',
        'reused',
        'transfer',
        'MB/s',
        'task',
      ];
      const lines = rows.map((row) => [
        row.name,
        size(row.bytesUsed),
        size(row.bytesRead),
        size(row.bytesSent),
        size(row.bytesReceived),
        size(row.bytesWritten),
        size(row.bytesReadBack),
        `${row.chunksReused}/${row.chunks}`,
        `${row.transferSeconds.toFixed(1)} s`,
        row.mbPerSecond.toFixed(0),
        `${row.seconds.toFixed(0)} s`,
      ]);
      return [
        ...columns([head, ...lines]),
        '',
        `stored for both versions: ${size(storedBytes)}; firmware ${firmware}; emulated machines, so times are for comparison only; ${seconds.toFixed(0)} s in all`,
        '',
        'Proved:',
        ...proved.map(({ what, proof }) => `  ✓ ${what} (${proof})`),
      ].join('\n');
    },
    json: () => ({ firmware, seconds, storedBytes, transfers: rows, proved }),
  };
};

const columns = (table: string[][]): string[] => {
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => row[column]?.length ?? 0)),
  );
  return table.map((row) =>
    row
      .map((cell, column) =>
        cell.padStart(column === 0 ? 0 : (widths[column] ?? 0)).padEnd(widths[column] ?? 0),
      )
      .join('  '),
  );
};
