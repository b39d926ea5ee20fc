import type { BadSurface, LatencyMap, Smart, SurfaceVerdict } from '../protocol/index.ts';

/** Everything that a verdict is made of. */
export interface Findings {
  bad: BadSurface;
  latency: LatencyMap | null;
  smart: { before: Smart; after: Smart } | null;
  /** why the disk could not be tested to its end, where that is its own fault */
  trouble: string | null;
}

/** a single read of 64 KiB: above it the drive tried again and again inside (error recovery takes up to 7 s in RAID drives) */
export const SLOW_READ_MS = 1000;

/** a remark changes no verdict */
type Finding = [SurfaceVerdict | 'remark', string];

/**
 * Good, suspect or bad, and why. Bad: the disk failed here, or says itself that it fails. Suspect: it works, and what it went
 * through makes it the first to be replaced. Pure.
 */
export const verdictOf = (findings: Findings): { verdict: SurfaceVerdict; reasons: string[] } => {
  const found = [...surface(findings), ...smartFindings(findings.smart)];
  const isAny = (wanted: SurfaceVerdict): boolean => found.some(([what]) => what === wanted);
  const order = ['bad', 'suspect', 'remark'];
  const reasons = found.toSorted(([a], [b]) => order.indexOf(a) - order.indexOf(b)).map(([, why]) => why);
  return {
    verdict: isAny('bad') ? 'bad' : isAny('suspect') ? 'suspect' : 'good',
    reasons: reasons.map((why) => why.slice(0, 400)).slice(0, 32),
  };
};

const surface = ({ bad, latency, trouble }: Findings): Finding[] => {
  const found: Finding[] = [];
  if (trouble) found.push(['bad', trouble]);
  if (bad.sectors > 0) {
    const ranges = bad.ranges.length + bad.more.ranges;
    const first = bad.ranges[0] ? `, the first at LBA ${bad.ranges[0].lba}` : '';
    found.push(['bad', `${counted(bad.sectors, 'bad sector')} in ${counted(ranges, 'range')}${first}`]);
  }
  const slowest = latency?.maxMs ?? 0;
  if (slowest > SLOW_READ_MS) {
    const cells = latency?.cells.filter(({ maxMs }) => (maxMs ?? 0) > SLOW_READ_MS).length ?? 0;
    const where = `${cells} of ${latency?.cells.length ?? 0} parts of the disk`;
    found.push(['suspect', `a single read took ${Math.round(slowest)} ms (slow reads in ${where})`]);
  }
  return found;
};

type CountName =
  | 'reallocated'
  | 'pending'
  | 'offlineUncorrectable'
  | 'mediaErrors'
  | 'grownDefects'
  | 'uncorrectedErrors';

/** counts that a healthy drive has at zero */
const counts: Record<CountName, string> = {
  reallocated: 'reallocated sector',
  pending: 'sector that waits for reallocation',
  offlineUncorrectable: 'sector that the drive itself could not correct',
  mediaErrors: 'media error',
  grownDefects: 'grown defect',
  uncorrectedErrors: 'error that the drive could not correct',
};

/** bits of NVMe's critical warning (NVM Express 2.0, SMART / Health Information) that say more than that it is warm */
const criticalBits: readonly [number, string][] = [
  [0x01, 'its spare blocks are used up'],
  [0x04, 'it is no longer reliable'],
  [0x08, 'it has become read-only'],
  [0x10, 'its volatile memory backup failed'],
];
const TOO_WARM = 0x02;

const smartFindings = (smart: Findings['smart']): Finding[] => {
  if (!smart) return [['remark', 'SMART was not asked']];
  const { before, after } = smart;
  if (after.unavailable !== null) return [['remark', `nothing known from SMART: ${after.unavailable}`]];
  const found: Finding[] = [];
  for (const [name, words] of Object.entries(counts) as [CountName, string][]) {
    const now = after[name] ?? 0;
    const grown = now - (before[name] ?? now);
    if (grown > 0) found.push(['bad', `SMART: ${counted(grown, words)} more during the test (${now} now)`]);
    else if (now > 0) found.push(['suspect', `SMART: ${counted(now, words)}`]);
  }
  const crc = (after.crcErrors ?? 0) - (before.crcErrors ?? after.crcErrors ?? 0);
  if (crc > 0)
    found.push(['suspect', `SMART: ${counted(crc, 'transfer error')} during the test: look at the cable`]);
  const { spare, spareThreshold, percentageUsed, passed } = after;
  if (spare !== null && spareThreshold !== null && spare < spareThreshold)
    found.push([
      'bad',
      `SMART: ${spare} % of the spare blocks are left, under the drive's threshold of ${spareThreshold} %`,
    ]);
  if (percentageUsed !== null && percentageUsed >= 100)
    found.push(['suspect', `SMART: ${percentageUsed} % of the endurance the maker gives it are used`]);
  const critical = after.criticalWarning ?? 0;
  for (const [bit, words] of criticalBits) if (critical & bit) found.push(['bad', `SMART: ${words}`]);
  if (critical & TOO_WARM)
    found.push(['suspect', `SMART: too warm or too cold (${after.celsius ?? '?'} \u00b0C)`]);
  // an NVMe drive does not pass for any of the bits above; that it is warm is not the end of it
  if (passed === false && critical === 0)
    found.push(['bad', 'SMART: the drive says itself that it is failing']);
  return found;
};

const counted = (count: number, what: string): string => {
  if (count === 1) return `1 ${what}`;
  const [, noun = '', rest = ''] = /^(sector|error)( that .*)$/.exec(what) ?? [];
  return noun ? `${count} ${noun}s${rest.replace('waits', 'wait')}` : `${count} ${what}s`;
};
