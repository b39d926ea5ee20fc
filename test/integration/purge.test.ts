import { chmod, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { claimDisk } from '../../agent/disk/claim.ts';
import { parseSmartctl } from '../../agent/disk/smart.ts';
import type { ErrorCode } from '../../agent/errors.ts';
import { run } from '../../agent/process/run.ts';
import { driveFactsOf } from '../../agent/wipe/health.ts';
import type { HiddenAreas } from '../../agent/wipe/hidden.ts';
import { parseDco, parseHpa } from '../../agent/wipe/hidden.ts';
import { type Purged, purgeDisk } from '../../agent/wipe/purge/purge.ts';
import type { FakeDrive } from './fake-drive.ts';
import { attachLoop, diskOf, hashOf, MIB } from './loop-device.ts';

const SIZE = 24 * MIB;

type Parts = { [K in keyof FakeDrive]?: FakeDrive[K] extends object ? Partial<FakeDrive[K]> : FakeDrive[K] };

const plain: Omit<FakeDrive, 'device'> = {
  ...{ content: 'erased', polls: 1, fails: [], refuses: [], sstat: 0, scsi: [], running: null },
  nvme: { sanicap: 0, oacs: 0, fna: 0, namespaces: 1 },
  ata: {
    ...{ sanitize: [], sanitizeFrozen: false, frozen: false, enhanced: false, password: null, locked: false },
    ...{ ignoresPassword: false, keepsPassword: false },
  },
};

interface Case {
  drive: Parts;
  transport: string;
  /** the method that worked, or the code of the refusal */
  expect: { method: string } | { code: ErrorCode; reason?: RegExp };
  /** how often something was sent to the drive */
  calls?: Record<string, number>;
  tried?: string[];
  hpa?: HiddenAreas['hpa'];
}

const none = { state: 'none', detail: '' } as const;

/** A drive whose content is a loop device full of text, with programs in front of the real ones on the PATH. */
const purge = async (t: ExecutionContext, { drive, transport, hpa = none }: Case) => {
  const loop = await attachLoop(t, SIZE);
  await using handle = await open(loop.path, 'r+');
  await handle.write(Buffer.alloc(SIZE, 'what the former owner left here. '));
  await handle.sync();
  const folder = await mkdtemp(join(tmpdir(), 'drive-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const state: FakeDrive = {
    ...{ ...plain, ...drive, device: loop.path },
    nvme: { ...plain.nvme, ...drive.nvme },
    ata: { ...plain.ata, ...drive.ata },
  } as FakeDrive;
  await writeFile(join(folder, 'drive.json'), JSON.stringify(state));
  await writeFile(join(folder, 'calls'), '');
  for (const tool of ['nvme', 'hdparm', 'sg_sanitize', 'sg_requests', 'sg_opcodes']) {
    const program = join(import.meta.dirname, 'fake-drive.ts');
    await writeFile(
      join(folder, tool),
      `#!/bin/sh\nexec '${process.execPath}' '${program}' '${folder}' ${tool} "$@"\n`,
    );
    await chmod(join(folder, tool), 0o755);
  }
  await run('blockdev', ['--flushbufs', loop.path]);
  const before = await hashOf(loop.file);
  await using claim = await claimDisk(await diskOf(loop.path));
  // its commands go to the programs above, by the name of a drive that takes them
  const path = transport === 'nvme' ? '/dev/nvme9n1' : claim.path;
  Object.assign(claim, { disk: { ...claim.disk, transport, path } });
  const shares: number[] = [];
  const purged = await purgeDisk(
    claim,
    { hpa, dco: none },
    {
      run: (tool, args, options) =>
        run(tool, args, { ...options, env: { PATH: `${folder}:${process.env['PATH']}` } }),
      log: () => undefined,
      onShare: (share) => shares.push(share),
      pollMs: 1,
    },
  );
  const calls = await readFile(join(folder, 'calls'), 'utf8');
  const after = JSON.parse(await readFile(join(folder, 'drive.json'), 'utf8')) as FakeDrive;
  return { ...purged, calls, after, shares, isUntouched: (await hashOf(loop.file)) === before };
};

const check = async (
  t: ExecutionContext,
  one: Case,
): Promise<Purged & { after: FakeDrive; shares: number[] }> => {
  const found = await purge(t, one);
  const { report, error, calls } = found;
  if ('method' in one.expect) {
    t.is(error, null, error?.message);
    t.is(report.method, one.expect.method);
    t.is(report.check?.survived, 0);
    t.true((report.check?.places ?? 0) > 500, 'as many places as have markers, and what was there before');
    t.regex(report.level, /Purge/);
  } else {
    t.is(error?.code, one.expect.code, error?.message);
    t.is(report.method, null);
    if (one.expect.reason) t.regex(error?.message ?? '', one.expect.reason);
    if (['PURGE_IMPOSSIBLE', 'DISK_FROZEN', 'DISK_LOCKED'].includes(one.expect.code)) {
      t.true(found.isUntouched, 'nothing was written, no marker either');
    }
  }
  for (const [text, times] of Object.entries(one.calls ?? {}))
    t.is(calls.split(text).length - 1, times, `${text}\n${calls}`);
  if (one.tried) {
    t.deepEqual(
      report.attempts.map(({ method, outcome }) => `${method} ${outcome}`),
      one.tried,
    );
  }
  return found;
};

const ALL = { sanicap: 7, oacs: 2, fna: 4 };
const enhanced = { enhanced: true };

const cases: Record<string, Case> = {
  'NVMe: sanitize by key comes first': {
    ...{ drive: { nvme: ALL }, transport: 'nvme', expect: { method: 'nvme-sanitize-crypto' } },
    calls: { '--sanact=4': 1, 'nvme format': 0 },
  },
  'NVMe: block erase where there is no key': {
    ...{ drive: { nvme: { sanicap: 6 } }, transport: 'nvme', expect: { method: 'nvme-sanitize-block' } },
  },
  'NVMe: overwrite alone': {
    ...{ drive: { nvme: { sanicap: 4 } }, transport: 'nvme', expect: { method: 'nvme-sanitize-overwrite' } },
    calls: { '--owpass=1': 1 },
  },
  'NVMe: "ok" of an earlier sanitize is no proof, what lies on the disk is': {
    ...{
      drive: { nvme: ALL, sstat: 1, polls: 0 },
      transport: 'nvme',
      expect: { method: 'nvme-sanitize-crypto' },
    },
  },
  'NVMe: "ok" of an earlier sanitize, and the content is still there': {
    drive: { nvme: { sanicap: 1 }, sstat: 1, polls: 0, content: 'kept' },
    ...{ transport: 'nvme', expect: { code: 'PURGE_FAILED', reason: /still hold what they held/ } },
  },
  'NVMe: every way says ok and erases nothing': {
    ...{ drive: { nvme: ALL, content: 'kept' }, transport: 'nvme', expect: { code: 'PURGE_FAILED' } },
    tried: [
      ...['nvme-sanitize-crypto failed', 'nvme-sanitize-block failed', 'nvme-sanitize-overwrite failed'],
      ...['nvme-format-crypto failed', 'nvme-format failed'],
    ],
  },
  'NVMe: says ok and erases half': {
    drive: { nvme: { sanicap: 2 }, content: 'half' },
    ...{ transport: 'nvme', expect: { code: 'PURGE_FAILED', reason: /places still hold/ } },
  },
  'NVMe: a failed sanitize is left, and the next way tried': {
    drive: { nvme: ALL, fails: ['nvme-sanitize-crypto'] },
    ...{ transport: 'nvme', expect: { method: 'nvme-sanitize-block' } },
    calls: { '--sanact=1': 1 },
    tried: ['nvme-sanitize-crypto failed', 'nvme-sanitize-block done'],
  },
  'NVMe: sanitize is refused, format by key works': {
    drive: { nvme: ALL, refuses: ['nvme-sanitize-crypto', 'nvme-sanitize-block', 'nvme-sanitize-overwrite'] },
    ...{ transport: 'nvme', expect: { method: 'nvme-format-crypto' }, calls: { '--ses=2': 1, '--ses=0': 0 } },
  },
  'NVMe: format alone, never without an erasure': {
    drive: { nvme: { oacs: 2 } },
    ...{ transport: 'nvme', expect: { method: 'nvme-format' }, calls: { '--ses=1': 1, '--ses=2': 0 } },
  },
  'NVMe: format says success and keeps everything': {
    ...{ drive: { nvme: { oacs: 2 }, content: 'kept' }, transport: 'nvme', expect: { code: 'PURGE_FAILED' } },
  },
  'NVMe: format is refused and there is nothing else': {
    drive: { nvme: { oacs: 2 }, refuses: ['nvme-format'] },
    ...{ transport: 'nvme', expect: { code: 'PURGE_FAILED', reason: /Invalid Format/ } },
  },
  'NVMe: a controller that offers nothing': {
    ...{
      drive: {},
      transport: 'nvme',
      expect: { code: 'PURGE_IMPOSSIBLE', reason: /neither sanitize nor format/ },
    },
  },
  'NVMe: two namespaces: the other one is nobody’s to erase': {
    drive: { nvme: { ...ALL, namespaces: 2 } },
    ...{ transport: 'nvme', expect: { code: 'PURGE_IMPOSSIBLE', reason: /2 namespaces/ } },
    calls: { 'nvme sanitize ': 0, 'nvme format': 0 },
  },
  'NVMe: the log of an older nvme-cli': {
    drive: { nvme: { sanicap: 1, flatLog: true } },
    ...{ transport: 'nvme', expect: { method: 'nvme-sanitize-crypto' } },
  },
  'NVMe: nonsense instead of an answer': {
    ...{ drive: { nvme: { garbage: true } }, transport: 'nvme', expect: { code: 'TOOL_FAILED' } },
  },
  'ATA: sanitize by key comes first': {
    drive: { ata: { sanitize: ['crypto', 'block', 'overwrite'], ...enhanced } },
    ...{ transport: 'sata', expect: { method: 'ata-sanitize-crypto' }, calls: { '--security-set-pass': 0 } },
  },
  'ATA: block erase': {
    ...{
      drive: { ata: { sanitize: ['block'] } },
      transport: 'sata',
      expect: { method: 'ata-sanitize-block' },
    },
  },
  'ATA: overwrite, of a rotating disk': {
    ...{
      drive: { ata: { sanitize: ['overwrite'] } },
      transport: 'sata',
      expect: { method: 'ata-sanitize-overwrite' },
    },
    calls: { '--sanitize-overwrite-passes 1': 1 },
  },
  'ATA: frozen security does not hinder sanitize': {
    drive: { ata: { sanitize: ['block'], frozen: true, ...enhanced } },
    ...{ transport: 'sata', expect: { method: 'ata-sanitize-block' } },
  },
  'ATA: sanitize is frozen, the security erase is not': {
    drive: { ata: { sanitize: ['crypto'], sanitizeFrozen: true, ...enhanced } },
    ...{
      transport: 'sata',
      expect: { method: 'ata-enhanced-security-erase' },
      calls: { 'crypto-scramble': 0 },
    },
  },
  'ATA: all is frozen': {
    drive: { ata: { sanitize: ['crypto'], sanitizeFrozen: true, frozen: true, ...enhanced } },
    ...{ transport: 'sata', expect: { code: 'DISK_FROZEN', reason: /sleep and wake/ } },
  },
  'ATA: frozen, and no sanitize at all': {
    drive: { ata: { frozen: true, ...enhanced } },
    ...{ transport: 'ata', expect: { code: 'DISK_FROZEN' }, calls: { '--security-set-pass': 0 } },
  },
  'ATA: a failed sanitize is followed by the security erase': {
    drive: { ata: { sanitize: ['block'], ...enhanced }, fails: ['ata-sanitize-block'] },
    ...{ transport: 'sata', expect: { method: 'ata-enhanced-security-erase' } },
    tried: ['ata-sanitize-block failed', 'ata-enhanced-security-erase done'],
  },
  'ATA: a normal security erase is weaker, and not taken': {
    ...{
      drive: {},
      transport: 'sata',
      expect: { code: 'PURGE_IMPOSSIBLE', reason: /no enhanced security erase/ },
    },
    calls: { '--security-': 0 },
  },
  'ATA: sanitize says ok and erases nothing': {
    ...{
      drive: { ata: { sanitize: ['crypto'] }, content: 'kept' },
      transport: 'sata',
      expect: { code: 'PURGE_FAILED' },
    },
  },
  'ATA: sectors behind a host protected area: not a purge': {
    drive: { ata: { sanitize: ['crypto'] } },
    hpa: { state: 'present', detail: '10 of 20 sectors visible' },
    ...{ transport: 'sata', expect: { code: 'PURGE_IMPOSSIBLE', reason: /10 of 20/ }, calls: { hdparm: 0 } },
  },
  'SCSI: sanitize by key': {
    ...{ drive: { scsi: ['crypto', 'block'] }, transport: 'sas', expect: { method: 'scsi-sanitize-crypto' } },
  },
  'SCSI: block erase': {
    ...{ drive: { scsi: ['block'] }, transport: 'sas', expect: { method: 'scsi-sanitize-block' } },
  },
  'SCSI: overwrite with zeros': {
    ...{ drive: { scsi: ['overwrite'] }, transport: 'sas', expect: { method: 'scsi-sanitize-overwrite' } },
    calls: { '--zero': 1 },
  },
  'SCSI: the drive remembers that its sanitize failed': {
    drive: { scsi: ['block'], fails: ['scsi-sanitize-block'] },
    ...{ transport: 'sas', expect: { code: 'PURGE_FAILED', reason: /Sanitize command failed/ } },
  },
  'SCSI: says nothing of a failure and erases nothing': {
    ...{ drive: { scsi: ['crypto'], content: 'kept' }, transport: 'sas', expect: { code: 'PURGE_FAILED' } },
  },
  'SCSI: not supported': {
    ...{ drive: {}, transport: 'sas', expect: { code: 'PURGE_IMPOSSIBLE' }, calls: { sg_sanitize: 0 } },
  },
  'USB: nothing is tried through its bridge': {
    drive: { ata: { sanitize: ['crypto'] } },
    ...{ transport: 'usb', expect: { code: 'PURGE_IMPOSSIBLE', reason: /bridge/ } },
  },
};

for (const [title, one] of Object.entries(cases)) {
  test.serial(title, async (t) => {
    await check(t, one);
  });
}

test.serial('NVMe: a slow drive is waited for, and tells how far it is', async (t) => {
  const one: Case = {
    drive: { nvme: ALL, polls: 5 },
    transport: 'nvme',
    expect: { method: 'nvme-sanitize-crypto' },
  };
  const { shares, report } = await check(t, one);
  t.true(shares.length >= 4);
  t.deepEqual(
    shares,
    shares.toSorted((a, b) => a - b),
  );
  t.is(report.attempts[0]?.before, '(0) NVM Subsystem has never been sanitized.');
  t.is(report.attempts[0]?.after, '(1) Most Recent Sanitize Command Completed Successfully.');
});

test.serial('an erasure that a power cut interrupted is waited for, then a new one is proved', async (t) => {
  const left = (method: string) => ({ running: { method, left: 2 } });
  const kinds: Case[] = [
    {
      drive: { nvme: { sanicap: 1 }, ...left('nvme-sanitize-crypto') },
      transport: 'nvme',
      expect: { method: 'nvme-sanitize-crypto' },
    },
    {
      drive: { ata: { sanitize: ['block'] }, ...left('ata-sanitize-block') },
      transport: 'sata',
      expect: { method: 'ata-sanitize-block' },
    },
    {
      drive: { scsi: ['block'], ...left('scsi-sanitize-block') },
      transport: 'sas',
      expect: { method: 'scsi-sanitize-block' },
    },
  ];
  for (const one of kinds) {
    const { report } = await check(t, one);
    t.is(report.attempts.length, 1);
    t.notRegex(
      report.attempts[0]?.before ?? '',
      /progress|In Process/i,
      'it was over before the new one began',
    );
  }
});

test.serial(
  'NVMe: a controller that an earlier attempt left in failure is taken out of it first',
  async (t) => {
    const one: Case = {
      drive: { nvme: { sanicap: 2 }, sstat: 3 },
      transport: 'nvme',
      expect: { method: 'nvme-sanitize-block' },
    };
    await check(t, { ...one, calls: { '--sanact=1': 1 } });
  },
);

test.serial('ATA: the enhanced security erase leaves no password behind', async (t) => {
  const one: Case = {
    drive: { ata: enhanced },
    transport: 'sata',
    expect: { method: 'ata-enhanced-security-erase' },
  };
  const { after } = await check(t, {
    ...one,
    calls: { '--security-set-pass': 1, '--security-erase-enhanced': 1 },
  });
  t.is(after.ata.password, null);
});

test.serial(
  'ATA: a drive that a power cut left locked with our password is unlocked, and erased',
  async (t) => {
    const one: Case = {
      drive: { ata: { sanitize: ['block'], password: 'fog-wipe', locked: true } },
      ...{ transport: 'sata', expect: { method: 'ata-sanitize-block' } },
    };
    const { after } = await check(t, one);
    t.is(after.ata.password, null);
    t.false(after.ata.locked);
  },
);

test.serial('ATA: a drive that is locked with somebody else’s password is named as that', async (t) => {
  const one: Case = {
    drive: { ata: { sanitize: ['block'], password: 'theirs', locked: true, ...enhanced } },
    ...{ transport: 'sata', expect: { code: 'DISK_LOCKED', reason: /not ours/ } },
  };
  const { after } = await check(t, one);
  t.is(after.ata.password, 'theirs');
});

for (const [title, ata, refuses] of [
  ['is refused', {}, ['ata-enhanced-security-erase']],
  ['says ok and leaves the password set', { keepsPassword: true }, []],
] as const) {
  test.serial(`ATA: a security erase that ${title}: failed, and the password is gone again`, async (t) => {
    const one: Case = {
      drive: { ata: { ...enhanced, ...ata }, refuses: [...refuses] },
      ...{ transport: 'sata', expect: { code: 'PURGE_FAILED' } },
    };
    const { after } = await check(t, one);
    t.is(after.ata.password, null);
  });
}

test.serial('ATA: a drive that does not take the password is not asked to erase', async (t) => {
  await check(t, {
    drive: { ata: { ...enhanced, ignoresPassword: true } },
    ...{ transport: 'sata', expect: { code: 'PURGE_FAILED', reason: /did not take the password/ } },
    calls: { '--security-erase-enhanced': 0 },
  });
});

test('hidden areas: three answers, and nonsense is none of them', (t) => {
  t.is(parseHpa(' max sectors   = 1953525168/1953525168, HPA is disabled\n').state, 'none');
  t.is(parseHpa(' max sectors   = 1000000/1953525168, HPA is enabled\n').state, 'present');
  t.is(parseHpa(' max sectors   = 1953525168/1(1?), HPA setting seems invalid\n').state, 'unknown');
  t.is(parseHpa('').state, 'unknown');
  t.is(parseDco('DCO Checksum verified.\n\tReal max sectors: 2000\n', 1000).state, 'present');
  t.is(parseDco('\tReal max sectors: 1000\n', 1000).state, 'none');
  t.is(parseDco('HDIO_DRIVE_CMD(dco_identify) failed: Input/output error', 1000).state, 'unknown');
});

test('SMART: what is there, and null for what is not', (t) => {
  const nvme = {
    smart_status: { passed: true },
    nvme_smart_health_information_log: { media_errors: 3 },
    firmware_version: 'F1',
  };
  t.deepEqual(driveFactsOf(parseSmartctl(JSON.stringify(nvme))), {
    passed: true,
    powerOnHours: null,
    defects: 3,
    firmware: 'F1',
  });
  const ata = {
    power_on_time: { hours: 12 },
    ata_smart_attributes: { table: [{ id: 5, raw: { value: 8 } }] },
  };
  t.like(driveFactsOf(parseSmartctl(JSON.stringify(ata))), { powerOnHours: 12, defects: 8, passed: null });
  t.like(driveFactsOf(parseSmartctl('garbage')), { passed: null, defects: null });
});
