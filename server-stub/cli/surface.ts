import type { SurfaceDisk } from '../../agent/protocol/index.ts';

/** ranges shown of each disk; `--json` has the others */
const SHOWN = 20;

/** What a surface test found on each disk, for `task show`. */
export const surfaceLines = (disks: readonly SurfaceDisk[]): string[] =>
  disks
    .filter(({ status }) => status !== 'skipped')
    .flatMap(({ facts, bad, latency }) => {
      const name = facts.serial ?? facts.name;
      const hidden = bad.ranges.length - SHOWN + bad.more.ranges;
      return [
        ...bad.ranges
          .slice(0, SHOWN)
          .map(({ lba, sectors }) => `bad       ${name}: LBA ${lba}, ${sectors} sectors of 512 bytes`),
        ...(hidden > 0 ? [`bad       ${name}: ${hidden} more ranges`] : []),
        ...(latency?.maxMs
          ? [
              `latency   ${name}: mean ${latency.meanMs} ms, slowest ${latency.maxMs} ms of ${latency.reads} reads`,
            ]
          : []),
      ];
    });
