import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { parseSmartctl, readSmart } from '../../../agent/disk/smart.ts';
import { run } from '../../../agent/process/run.ts';
import { smartSchema } from '../../../agent/protocol/index.ts';

const recorded = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, '../../fixtures/tools/smartctl', `${name}.json`), 'utf8');

test('ATA: reallocated, pending, uncorrectable, CRC; packed raw values as smartctl reads them', async (t) => {
  t.like(parseSmartctl(await recorded('ata-failing')), {
    ...{ unavailable: null, passed: false, powerOnHours: 65_592, celsius: 25, firmware: 'MS1OA650' },
    ...{ reallocated: 1975, pending: 8, offlineUncorrectable: 0, crcErrors: 0, mediaErrors: null },
  });
  const packed = { id: 5, raw: { value: 17_192_124_596, string: '180 (Average 187)' } };
  const drive = { smart_status: { passed: true }, ata_smart_attributes: { table: [packed] } };
  t.is(parseSmartctl(JSON.stringify(drive)).reallocated, 180);
});

test('NVMe and SAS: their own counts, and null for those of others', async (t) => {
  t.like(parseSmartctl(await recorded('nvme-media-errors')), {
    ...{ passed: true, mediaErrors: 7, spare: 99, spareThreshold: 10, percentageUsed: 3 },
    ...{ criticalWarning: 0, reallocated: null, powerOnHours: 12_798 },
  });
  t.like(parseSmartctl(await recorded('sas')), {
    ...{ passed: true, grownDefects: 0, uncorrectedErrors: 0, celsius: 26, mediaErrors: null },
  });
});

test('a USB bridge without SMART, a device without any, garbage: nothing is known, and why', async (t) => {
  t.regex(parseSmartctl(await recorded('usb-unknown-bridge')).unavailable ?? '', /Unknown USB bridge/);
  t.regex(parseSmartctl(await recorded('no-device-type')).unavailable ?? '', /Unable to detect/);
  t.is(parseSmartctl('{}').unavailable, 'the drive has no SMART');
  for (const garbage of ['', 'null', '[]', '"x"', '{"smart_status": "\\u0000"}'])
    t.truthy(parseSmartctl(garbage).unavailable, garbage);
});

test('one odd field is a field that is not there', async (t) => {
  const odd = {
    smart_status: { passed: true },
    temperature: { current: 'warm' },
    power_on_time: { hours: -3 },
    nvme_smart_health_information_log: { media_errors: 1.5, available_spare: 50 },
  };
  const facts = parseSmartctl(JSON.stringify(odd));
  t.like(facts, { passed: true, celsius: null, powerOnHours: null, mediaErrors: null, spare: 50 });
  t.true(smartSchema.safeParse(facts).success);
});

test('smartctl itself on a device that has no SMART', async (t) => {
  const facts = await readSmart('/dev/null', run);
  t.truthy(facts.unavailable);
  t.is(facts.passed, null);
});
