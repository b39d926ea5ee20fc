import type { SurfaceDisk, TaskParams, TaskResult } from '../../agent/protocol/index.ts';
import type { TaskRow } from '../queue/task-row.ts';

/**
 * Why a surface test's success is not believed: a named disk is missing, a disk was not gone over to its end, or its verdict
 * contradicts what was found on it. A bad disk is no reason: then the test has done its work.
 */
export const whyNotTested = (task: Pick<TaskRow, 'params'>, result: TaskResult): string | undefined => {
  const { disk, disks } = task.params as TaskParams<'surface-test'>;
  const tested = result.surface?.disks.filter(({ status }) => status !== 'skipped') ?? [];
  if (tested.length === 0) return 'it names no disk that was tested';
  const named = disks ?? (disk ? [disk] : []);
  const absent = named.find(
    ({ serial }) => serial !== undefined && !tested.some(({ facts }) => facts.serial === serial.trim()),
  );
  if (absent) return `it does not name ${absent.serial}`;
  return tested.map(whyNotWhole).find(Boolean);
};

const whyNotWhole = (disk: SurfaceDisk): string | undefined => {
  const { facts, status, error, verdict, bytes, bad, smart } = disk;
  if (error || status !== 'tested') return `${facts.name} is ${status}`;
  if (verdict === null) return `${facts.name} has no verdict`;
  const isSick = bad.sectors > 0 || smart?.after.passed === false;
  if (isSick && verdict === 'good') return `${facts.name} is called good, and is not`;
  // a disk with too many bad blocks is given up, and bad
  if (bytes !== facts.size && verdict !== 'bad') return `of ${facts.name} only ${bytes} bytes were tested`;
  return undefined;
};
