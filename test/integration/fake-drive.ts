import { appendFileSync, closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';

/**
 * A drive that is asked to erase itself, run as `nvme`, `hdparm`, `sg_sanitize`, `sg_requests` or `sg_opcodes`. It answers in these
 * programs' own words (hdparm 9.65, whose sanitize states are in its source; nvme-cli 2.x; sg3_utils 1.46); what it does to its
 * content, a loop device, and whether it says the truth about it is in `drive.json` beside it.
 */
export interface FakeDrive {
  device: string;
  /** what an erasure does to the content; `half`: only to the first half of it */
  content: 'erased' | 'kept' | 'half';
  /** answers "in progress" before the end */
  polls: number;
  /** methods that the drive says have failed, or refuses to begin */
  fails: string[];
  refuses: string[];
  nvme: {
    sanicap: number;
    oacs: number;
    fna: number;
    namespaces: number;
    flatLog?: boolean;
    garbage?: boolean;
  };
  /** SSTAT before anything was done */
  sstat: number;
  ata: {
    sanitize: string[];
    sanitizeFrozen: boolean;
    frozen: boolean;
    enhanced: boolean;
    /** set when the password is; a foreign one cannot be removed with ours */
    password: string | null;
    locked: boolean;
    /** the drive ignores a new password, or keeps it after an erasure */
    ignoresPassword: boolean;
    keepsPassword: boolean;
  };
  scsi: string[];
  running: { method: string; left: number } | null;
}

const folder = process.argv[2] ?? '';
const [tool = '', ...args] = process.argv.slice(3);
const file = join(folder, 'drive.json');
const drive = JSON.parse(readFileSync(file, 'utf8')) as FakeDrive;
appendFileSync(join(folder, 'calls'), `${tool} ${args.join(' ')}\n`);

const say = (text: string): void => console.log(text);
const save = (): void => writeFileSync(file, JSON.stringify(drive));
const has = (option: string): boolean => args.some((arg) => arg === option || arg.startsWith(`${option}=`));

const erase = (): void => {
  if (drive.content === 'kept') return;
  const fd = openSync(drive.device, 'r+');
  const zeros = Buffer.alloc(1024 * 1024);
  const size = Number(readFileSync(`/sys/class/block/${basename(drive.device)}/size`, 'utf8')) * 512;
  const end = drive.content === 'half' ? size / 2 : size;
  for (let at = 0; at < end; at += zeros.length)
    writeSync(fd, zeros, 0, Math.min(zeros.length, end - at), at);
  closeSync(fd);
};

const begin = (method: string): void => {
  if (drive.refuses.includes(method)) refuse(`${method}: command aborted`);
  drive.running = { method, left: drive.polls };
  save();
};

const refuse = (words: string): never => {
  console.error(words);
  process.exit(5);
};

/** One look at a running erasure: 0..1 while it runs, then how it ended. */
const look = (): { share: number } | 'done' | 'failed' | 'idle' => {
  const { running } = drive;
  if (!running) return drive.sstat === 1 ? 'done' : drive.sstat === 3 ? 'failed' : 'idle';
  if (running.left > 0) {
    running.left -= 1;
    save();
    return { share: 1 - (running.left + 1) / (drive.polls + 1) };
  }
  const failed = drive.fails.includes(running.method);
  if (!failed) erase();
  drive.running = null;
  drive.sstat = failed ? 3 : 1;
  save();
  return failed ? 'failed' : 'done';
};

const nvme = () => {
  const [command = ''] = args;
  if (drive.nvme.garbage) return say('no JSON here');
  if (command === 'id-ctrl') return say(JSON.stringify({ vid: 1, ...drive.nvme }));
  if (command === 'list-ns') {
    const nsids = Array.from({ length: drive.nvme.namespaces }, (_, at) => ({ nsid: at + 1 }));
    return say(JSON.stringify({ nsid_list: nsids }));
  }
  if (command === 'sanitize') {
    const action = /--sanact=(\d)/.exec(args.join(' '))?.[1];
    if (action === '1') {
      drive.sstat = 0;
      return save();
    }
    return begin(`nvme-sanitize-${{ 2: 'block', 3: 'overwrite', 4: 'crypto' }[action ?? '']}`);
  }
  if (command === 'format') {
    const method = has('--ses=2') ? 'nvme-format-crypto' : 'nvme-format';
    if (drive.refuses.includes(method)) refuse('NVMe status: Invalid Format(0x10a)');
    erase();
    return say('Success formatting namespace:1');
  }
  const state = look();
  const [status, words] =
    typeof state === 'object'
      ? ([2, 'Sanitize in Progress.'] as const)
      : ({
          idle: [0, 'NVM Subsystem has never been sanitized.'],
          done: [1, 'Most Recent Sanitize Command Completed Successfully.'],
          failed: [3, 'Most Recent Sanitize Command Failed.'],
        }[state] as [number, string]);
  const sprog = typeof state === 'object' ? Math.round(state.share * 65_536) : 65_535;
  if (drive.nvme.flatLog) return say(JSON.stringify({ sprog, sstat: status }));
  say(
    JSON.stringify({
      nvme9: { sprog, sstat: { global_erased: 1, no_cmplted_passes: 0, status: `(${status}) ${words}` } },
    }),
  );
};

const ataNames: Record<string, string> = {
  crypto: 'CRYPTO_SCRAMBLE_EXT',
  block: 'BLOCK_ERASE_EXT',
  overwrite: 'OVERWRITE_EXT',
};

const hdparm = () => {
  const { ata } = drive;
  const not = (yes: boolean): string => (yes ? '' : 'not');
  if (has('-I')) {
    const text = readFileSync(
      join(import.meta.dirname, '../fixtures/tools/hdparm/identify-9.65.txt'),
      'utf8',
    );
    const lines =
      ata.sanitize.length > 0
        ? ['SANITIZE feature set', ...ata.sanitize.map((way) => `${ataNames[way]} command`)]
        : [];
    const filled = text
      .replace('@SANITIZE@', lines.map((line) => `\t   *\t${line}\n`).join(''))
      .replace('@ENABLED@', not(ata.password !== null))
      .replace('@LOCKED@', not(ata.locked))
      .replace('@FROZEN@', not(ata.frozen))
      .replace('@ENHANCED@', not(ata.enhanced));
    return say(filled);
  }
  if (has('--sanitize-status')) {
    say('\n/dev/sda:\nIssuing SANITIZE_STATUS command\nSanitize status:');
    if (ata.sanitizeFrozen) return say('    State:    SD1 Sanitize Frozen');
    const state = look();
    if (typeof state === 'object') {
      say('    State:    SD2 Sanitize operation In Process');
      const progress = Math.round(state.share * 65_536);
      return say(`    Progress: 0x${progress.toString(16)} (${Math.round(state.share * 100)}%)`);
    }
    if (state === 'failed')
      return say(
        '    State:    SD3 Sanitize Operation Failed\nLast Sanitize Command completed unsuccessfully',
      );
    say('    State:    SD0 Sanitize Idle');
    if (state === 'done') say('    Last Sanitize Operation Completed Without Error');
    return;
  }
  const way = [
    ['crypto', '--sanitize-crypto-scramble'],
    ['block', '--sanitize-block-erase'],
    ['overwrite', '--sanitize-overwrite'],
  ].find(([, option]) => has(option ?? ''))?.[0];
  if (way) return begin(`ata-sanitize-${way}`);
  const password = args.at(-2) ?? '';
  const fits = ata.password === password;
  if (has('--security-set-pass')) {
    if (!ata.ignoresPassword) ata.password = password;
  } else if (has('--security-unlock')) {
    if (!fits) refuse('SECURITY_UNLOCK: Input/output error');
    ata.locked = false;
  } else if (has('--security-disable')) {
    if (!fits || ata.locked) refuse('SECURITY_DISABLE: Input/output error');
    ata.password = null;
  } else if (has('--security-erase-enhanced')) {
    if (!fits || drive.refuses.includes('ata-enhanced-security-erase'))
      refuse('SECURITY_ERASE: Input/output error');
    erase();
    if (!ata.keepsPassword) ata.password = null;
  }
  save();
};

const scsi = () => {
  if (tool === 'sg_opcodes') {
    const way = { '0x3': 'crypto', '0x2': 'block', '0x1': 'overwrite' }[args[0]?.split(',')[1] ?? ''] ?? '';
    const supported = drive.scsi.includes(way) ? 'supported [conforming to SCSI standard]' : 'not supported';
    return say(
      `  FAKE      DISK              0001\n  Peripheral device type: disk\n\n  Opcode=0x48\n  Command is ${supported}`,
    );
  }
  if (tool === 'sg_sanitize')
    return begin(`scsi-sanitize-${args.find((arg) => /^--(crypto|block|overwrite)/.test(arg))?.slice(2)}`);
  if (has('--progress')) {
    const left = drive.running ? 1 - (drive.running.left + 1) / (drive.polls + 1) : null;
    return say(
      left === null
        ? 'No progress indication found, iteration 1'
        : `Progress indication: ${Math.round(left * 100)}.00% done`,
    );
  }
  const state = look();
  if (typeof state === 'object')
    return say(
      'Fixed format, current; Sense key: Not Ready\nAdditional sense: Logical unit not ready, sanitize in progress',
    );
  say(
    state === 'failed'
      ? 'Fixed format, current; Sense key: Medium Error\nAdditional sense: Sanitize command failed'
      : 'Fixed format, current; Sense key: No Sense\nAdditional sense: No additional sense information',
  );
};

if (tool === 'nvme') nvme();
else if (tool === 'hdparm') hdparm();
else scsi();
