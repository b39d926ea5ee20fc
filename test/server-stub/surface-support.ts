import { parseSmartctl } from '../../agent/disk/smart.ts';
import { type SurfaceDisk, smartSchema } from '../../agent/protocol/index.ts';

/** bytes of every disk in a test's report */
export const SURFACE_SIZE = 1_000_000_512;

const smart = smartSchema.parse(parseSmartctl('{"smart_status": {"passed": true}}'));

/** A disk as a machine reports it that has read all of it and found nothing. */
export const surfaceDisk = (more: Partial<SurfaceDisk> = {}): SurfaceDisk => ({
  facts: {
    ...{ name: 'sda', model: 'Disk', serial: 'S1', size: SURFACE_SIZE, logicalSectorSize: 512 },
    ...{ physicalSectorSize: 4096, rotational: true, removable: false, readOnly: false, transport: 'sata' },
  },
  ...{ status: 'tested', reason: null, error: null, verdict: 'good', reasons: [] },
  ...{ bytes: SURFACE_SIZE, blockSize: 4096, seconds: 9, kernel: { read: SURFACE_SIZE, written: 0 } },
  bad: { ranges: [], more: { ranges: 0, sectors: 0 }, sectors: 0, bytes: 0 },
  latency: {
    ...{ cellBytes: SURFACE_SIZE / 2, readBytes: 65_536, reads: 512, meanMs: 5, maxMs: 80 },
    cells: [
      { reads: 512, meanMs: 5, maxMs: 80 },
      { reads: 0, meanMs: null, maxMs: null },
    ],
  },
  smart: { before: smart, after: smart },
  ...{ startedAt: '2026-01-02T03:00:00Z', endedAt: '2026-01-02T03:04:00Z' },
  ...more,
});

/** What a surface test's result has besides. */
export const surfaceOf = (...disks: SurfaceDisk[]) => ({ surface: { mode: 'read', disks } });
