import test from 'ava';
import { parseSmartctl } from '../../../agent/disk/smart.ts';
import type { LatencyMap, Smart } from '../../../agent/protocol/index.ts';
import { badSurfaceOf } from '../../../agent/surface/bad-blocks.ts';
import { type Findings, verdictOf } from '../../../agent/surface/verdict.ts';

const healthy: Smart = {
  ...parseSmartctl(JSON.stringify({ smart_status: { passed: true } })),
  ...{ reallocated: 0, pending: 0, offlineUncorrectable: 0, crcErrors: 3, mediaErrors: 0 },
};
const silent = parseSmartctl('');
const latency = (maxMs: number): LatencyMap => ({
  ...{ cellBytes: 65_536, readBytes: 65_536, reads: 2, meanMs: 4, maxMs },
  cells: [
    { reads: 1, meanMs: 4, maxMs: 4 },
    { reads: 1, meanMs: maxMs, maxMs },
  ],
});
const findings = (more: Partial<Findings> = {}): Findings => ({
  ...{ bad: badSurfaceOf([]), latency: latency(12), trouble: null },
  smart: { before: healthy, after: healthy },
  ...more,
});
/** SMART that was healthy before, and that changed to this */
const became = (after: Partial<Smart>, before: Partial<Smart> = {}): Partial<Findings> => ({
  smart: { before: { ...healthy, ...before }, after: { ...healthy, ...after } },
});
const always = (smart: Partial<Smart>): Partial<Findings> => became(smart, smart);

const cases: [string, Partial<Findings>, 'good' | 'suspect' | 'bad', RegExp | null][] = [
  ['nothing found', {}, 'good', null],
  ['old transfer errors', always({ crcErrors: 900 }), 'good', null],
  ['no SMART', { smart: { before: silent, after: silent } }, 'good', /nothing known from SMART/],
  ['SMART was lost on the way', { smart: { before: healthy, after: silent } }, 'good', /nothing known/],
  [
    'a bad sector',
    { bad: badSurfaceOf([{ offset: 5120, length: 512 }]) },
    'bad',
    /^1 bad sector in 1 range, the first at LBA 10$/,
  ],
  ['it hung', { trouble: 'no read came back' }, 'bad', /no read came back/],
  ['a slow read', { latency: latency(1500) }, 'suspect', /took 1500 ms \(slow reads in 1 of 2 parts/],
  ['no latency', { latency: null }, 'good', null],
  ['fails its own test', always({ passed: false }), 'bad', /itself that it is failing/],
  ['reallocated sectors', always({ reallocated: 4 }), 'suspect', /4 reallocated sectors/],
  ['more of them', became({ reallocated: 5 }, { reallocated: 4 }), 'bad', /1 reallocated sector more/],
  ['pending', always({ pending: 2 }), 'suspect', /2 sectors that wait for reallocation/],
  ['newly pending', became({ pending: 1 }), 'bad', /1 sector that waits for reallocation more/],
  ['a count that appears is not growth', became({ grownDefects: 7 }), 'suspect', /7 grown defects/],
  ['offline uncorrectable', always({ offlineUncorrectable: 1 }), 'suspect', /could not correct/],
  ['the cable', became({ crcErrors: 5 }), 'suspect', /2 transfer errors during the test: look at the cable/],
  ['media errors', always({ mediaErrors: 7 }), 'suspect', /7 media errors/],
  ['new media errors', became({ mediaErrors: 1 }), 'bad', /1 media error more/],
  ['no spare', always({ spare: 4, spareThreshold: 10 }), 'bad', /4 % of the spare blocks/],
  ['worn', always({ percentageUsed: 104 }), 'suspect', /104 % of the endurance/],
  ['read-only', always({ criticalWarning: 8, passed: false }), 'bad', /become read-only/],
  ['only warm', always({ criticalWarning: 2, passed: false, celsius: 88 }), 'suspect', /too warm.*88/],
];

for (const [name, found, verdict, reason] of cases) {
  test(`verdict: ${name}: ${verdict}`, (t) => {
    const got = verdictOf(findings(found));
    t.is(got.verdict, verdict, got.reasons.join('; '));
    if (reason) t.regex(got.reasons[0] ?? '', reason);
    else t.deepEqual(got.reasons, []);
  });
}
