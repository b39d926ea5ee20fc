import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { hasCode } from '../../../agent/errors.ts';
import { run } from '../../../agent/process/run.ts';
import type { WipedDisk } from '../../../agent/protocol/index.ts';
import type { CertificateBody } from '../../../server-stub/certificate/certificate.ts';
import { verifyCertificate } from '../../../server-stub/certificate/verify.ts';
import { openSigningKey } from '../../../server-stub/store/keys.ts';
import { attachForgetful, type Bench, createBench, createCleanups, MIB } from '../imaging/bench.ts';

const MAC = '52:54:00:00:40:01';
const CUT = '52:54:00:00:40:02';
const WAIT = { timeoutMs: 400_000 };
const PLANTED = Buffer.from('what the former owner left here');
const SIZE = 100 * MIB;
/** bytes a second of disks whose wipe does not come to its end */
const RATE = 4 * MIB;

const cleanups = createCleanups();
let bench: Bench;

test.before(async () => {
  bench = await createBench(cleanups);
  await bench.addHost('lab', MAC);
  await bench.addHost('cut', CUT);
});
test.after.always(cleanups.run);

/** A GPT with an ext4, and a line to search for in every MiB. */
const makeDisk = async (name: string, size: number): Promise<string> => {
  const file = join(bench.folder, name);
  await run('truncate', ['-s', String(size), file]);
  await run('sfdisk', ['--quiet', file], { input: 'label: gpt\nstart=2048, size=16MiB\n' });
  await run('mke2fs', ['-q', '-t', 'ext4', '-E', `offset=${MIB}`, file, '16M']);
  await using handle = await open(file, 'r+');
  for (let at = 20 * MIB; at < size; at += MIB) await handle.write(PLANTED, 0, PLANTED.length, at + 4000);
  await handle.write(PLANTED, 0, PLANTED.length, 3000);
  return file;
};

/** Where the planted line still is, in MiB. */
const leftIn = async (file: string): Promise<number[]> => {
  const bytes = await readFile(file);
  const found: number[] = [];
  for (let at = bytes.indexOf(PLANTED); at >= 0; at = bytes.indexOf(PLANTED, at + 1))
    found.push(Math.floor(at / MIB));
  return found;
};

const certificateOf = async (id: string): Promise<CertificateBody> =>
  verifyCertificate(
    await bench.api.text(`/api/tasks/${id}/certificate`),
    openSigningKey(bench.data).publicKey,
  );

const statusesOf = (disks: readonly WipedDisk[]) =>
  Object.fromEntries(disks.map(({ facts, status, reason }) => [facts.serial, [status, reason]]));

const verdictsOf = ({ verdicts }: CertificateBody) =>
  Object.fromEntries(verdicts.map(({ serial, verdict }) => [serial, verdict]));

test.serial(
  'wipe-fast of all internal disks, then a purge of one: tables gone, USB and read-only disks untouched, each with its certificate',
  async (t) => {
    const files = {
      virtio: await makeDisk('virtio.img', SIZE),
      nvme: await makeDisk('nvme.img', SIZE),
      usb: await makeDisk('usb.img', 48 * MIB),
      readOnly: await makeDisk('readonly.img', 48 * MIB),
    };
    const untouched = await Promise.all([readFile(files.usb), readFile(files.readOnly)]);
    const params = { allInternal: true, countdownSeconds: 2, operator: 'Eve' };
    const fast = await bench.addTask('lab', 'wipe-fast', params, 'stay');
    const purge = await bench.addTask('lab', 'wipe-fast', {
      disk: { serial: 'NVME' },
      purge: true,
      countdownSeconds: 0,
    });
    const machine = await bench.startAgent(MAC, {
      disks: [
        { file: files.virtio, serial: 'VIRTIO' },
        { file: files.nvme, serial: 'NVME', bus: 'nvme' },
        { file: files.usb, serial: 'USB', bus: 'usb' },
        { file: files.readOnly, serial: 'READONLY', readOnly: true },
      ],
    });
    const { disks } = await machine.waitForExit(WAIT);
    const ended = await bench.ended(fast);
    t.is(ended.result.outcome, 'succeeded', JSON.stringify(ended.result.error));
    const { report, operator, machine: whose, ...record } = await certificateOf(fast);
    t.is(operator, 'Eve');
    t.false(record.erased, 'what lies between the ends is still there');
    t.deepEqual(whose?.macs, [MAC]);
    t.deepEqual(statusesOf(report.disks), {
      VIRTIO: ['signatures-removed', null],
      NVME: ['signatures-removed', null],
      USB: ['skipped', 'USB: only when named by serial number or WWN'],
      READONLY: ['skipped', 'read-only hardware'],
    });
    t.deepEqual(
      await leftIn(files.virtio),
      Array.from({ length: 20 }, (_, at) => 40 + at),
      'only between the ends',
    );
    t.deepEqual([disks[2]?.writes, disks[3]?.writes], [0, 0]);
    t.true(untouched[0]?.equals(await readFile(files.usb)));
    t.true(untouched[1]?.equals(await readFile(files.readOnly)));

    const purged = await bench.ended(purge);
    t.is(purged.result.outcome, 'succeeded', JSON.stringify(purged.result));
    const certificate = await certificateOf(purge);
    t.true(certificate.erased);
    const [disk] = certificate.report.disks.filter(({ facts }) => facts.serial === 'NVME');
    t.is(disk?.status, 'purged-verified');
    t.is(disk?.purge?.method, 'nvme-format');
    t.is(disk?.purge?.check?.survived, 0);
    t.true((disk?.purge?.check?.places ?? 0) > 500);
    t.deepEqual(await leftIn(files.nvme), [], 'QEMU’s drive did erase itself');
  },
);

test.serial(
  'a disk pulled out, a cancel and a power cut in a wipe: a signed record of what is not erased, or nothing; the next boot does all of it again',
  async (t) => {
    const fine = await makeDisk('fine.img', 48 * MIB);
    const cut = await makeDisk('cut.img', 64 * MIB);
    const pulled = await attachForgetful(t, await makeDisk('pulled.img', 64 * MIB), RATE);
    const slow = await attachForgetful(t, cut, RATE);
    const countdownSeconds = 0;
    const both = { disks: [{ serial: 'FINE' }, { serial: 'PULLED' }], countdownSeconds };
    const one = { disk: { serial: 'CUT' }, countdownSeconds };
    const losing = await bench.addTask('cut', 'wipe-normal', both, 'stay');
    const cancelled = await bench.addTask('cut', 'wipe-full', one, 'stay');
    const dying = await bench.addTask('cut', 'wipe-normal', one);
    const machine = await bench.startAgent(CUT, {
      disks: [
        { file: fine, serial: 'FINE' },
        { file: pulled.file, serial: 'PULLED', bus: 'usb' },
        { file: slow.file, serial: 'CUT' },
      ],
    });

    await bench.reached(losing, 'overwrite', 0.2);
    await machine.qmp('device_del', { id: 'disk1' });
    const { result: lost } = await bench.ended(losing);
    t.is(lost.error?.code, 'WIPE_INCOMPLETE', JSON.stringify(lost));
    t.regex(lost.error?.message ?? '', /partially erased, \d+ sectors .* it is gone/);
    const record = await certificateOf(losing);
    t.deepEqual([record.outcome, record.erased], ['failed', false]);
    t.deepEqual(verdictsOf(record), { FINE: 'ERASED', PULLED: 'NOT ERASED', CUT: 'LEFT ALONE' });
    t.deepEqual(await leftIn(fine), []);

    await bench.reached(cancelled, 'overwrite', 0.05);
    const asked = performance.now();
    await bench.api.post(`/api/tasks/${cancelled}/cancel`);
    const { result: stopped } = await bench.ended(cancelled);
    t.true(performance.now() - asked < 20_000, 'within seconds, of an emulated machine');
    t.is(stopped.outcome, 'cancelled');
    const given = await certificateOf(cancelled);
    t.deepEqual([given.outcome, given.erased], ['cancelled', false]);
    t.deepEqual(verdictsOf(given), { FINE: 'LEFT ALONE', CUT: 'NOT ERASED' });
    t.is(given.report.disks.find(({ facts }) => facts.serial === 'CUT')?.status, 'interrupted');

    await bench.reached(dying, 'overwrite', 0.3);
    await machine.kill();
    await slow.cutPower();
    t.true(['running', 'silent'].includes((await bench.task(dying)).state));
    const refused = await t.throwsAsync(certificateOf(dying));
    t.true(hasCode(refused, 'NOT_FOUND'));

    const again = await bench.startAgent(CUT, { disks: [{ file: cut, serial: 'CUT' }] });
    await again.waitForExit(WAIT);
    const { result } = await bench.ended(dying);
    t.is(result.outcome, 'succeeded', JSON.stringify(result.error));
    t.regex(result.warnings.join(), /an earlier attempt was cut off/);
    const { report, task, erased } = await certificateOf(dying);
    t.deepEqual([erased, task.attempt], [true, 2]);
    t.deepEqual(statusesOf(report.disks), { CUT: ['cleared-verified', null] });
    t.is(report.disks[0]?.verification?.bytes, 64 * MIB);
    t.deepEqual(await leftIn(cut), []);
  },
);
