import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { ImagingError } from '../../../agent/errors.ts';
import { type Child, startChild } from './child.ts';
import { readConsole } from './console.ts';
import { acceleratorArguments, firmwareArguments, type MachineFirmware } from './firmware.ts';
import { type DiskOptions, diskArguments, type NicOptions, nicArguments } from './hardware.ts';
import { connectQmp, type QmpEvent } from './qmp.ts';

export interface MachineOptions {
  disks?: readonly DiskOptions[] | undefined;
  /** default: one virtio card on QEMU's NAT */
  nics?: readonly NicOptions[] | undefined;
  firmware?: MachineFirmware | undefined;
  /** MiB, default 1024 */
  memory?: number | undefined;
  /**
   * default 1: QEMU's emulation of several (7.2) now and then runs an instruction that the kernel has just patched, and
   * the guest panics with "Oops: int3" about 2 s after its start
   */
  processors?: number | undefined;
  /** what the firmware tries first: the network, the disks, or what its own variables say */
  boot?: 'net' | 'disk' | 'firmware' | undefined;
  /** start this kernel directly, without firmware's choice of boot device */
  kernel?: { image: string; initrd?: string | undefined; commandLine?: string | undefined } | undefined;
  /** SMBIOS system UUID */
  uuid?: string | undefined;
  /** serial console, appended to; default a file in the machine's own folder */
  console?: string | undefined;
  /** UEFI variables to keep between boots; made if missing */
  vars?: string | undefined;
  /** one more QMP socket, for the caller's own tools */
  qmp?: string | undefined;
  /** network namespace that QEMU runs in, for its taps */
  namespace?: string | undefined;
  /** further QEMU arguments */
  arguments?: readonly string[] | undefined;
  signal?: AbortSignal | undefined;
}

export interface DiskStatistics {
  reads: number;
  writes: number;
  flushes: number;
  readBytes: number;
  writtenBytes: number;
}

export interface MachineExit {
  /** `guest-shutdown` (power off), `guest-reset` (reboot), `guest-panic`, or `killed`: not by itself */
  reason: string;
  /** what the machine did to each of its disks, in the order given; empty after `killed` */
  disks: DiskStatistics[];
}

/** A running machine. It never outlives the thread that started it. */
export interface Machine {
  /** folder of this machine's own files, removed when it has ended */
  readonly folder: string;
  readonly consoleFile: string;
  readonly pid: number;
  /** resolves when the guest has powered off or rebooted, or QEMU is gone. TOOL_TIMEOUT after timeoutMs */
  waitForExit(options?: { timeoutMs?: number }): Promise<MachineExit>;
  /** resolves with the match in the console's text; TOOL_TIMEOUT, or TOOL_FAILED if the machine ends first */
  waitForConsole(pattern: RegExp, options?: { timeoutMs?: number }): Promise<RegExpExecArray>;
  /** everything printed so far, without terminal escapes */
  console(): string;
  /** type on the serial console */
  type(text: string): Promise<void>;
  /** the screen as PNG */
  screenshot(path: string): Promise<void>;
  blockstats(): Promise<DiskStatistics[]>;
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /** power cut: SIGKILL */
  kill(): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 120_000;

/**
 * Start an emulated PC. The guest's own power-off or reboot ends it (`waitForExit`); whatever happens
 * to this process, QEMU is gone with it.
 *
 * @throws ImagingError TOOL_MISSING, TOOL_FAILED (QEMU's own words), CONFIG_INVALID, TASK_CANCELLED
 */
export const startMachine = async (options: MachineOptions = {}): Promise<Machine> => {
  options.signal?.throwIfAborted();
  const folder = mkdtempSync(join(tmpdir(), 'fog-vm-'));
  const onExit = (): void => rmSync(folder, { recursive: true, force: true });
  process.once('exit', onExit);
  const consoleFile = resolve(options.console ?? join(folder, 'console.log'));
  mkdirSync(join(consoleFile, '..'), { recursive: true });
  let child: Child | undefined;
  try {
    child = startChild('qemu-system-x86_64', machineArguments(options, folder, consoleFile), {
      namespace: options.namespace,
    });
    const machine = await controlMachine(child, folder, consoleFile);
    const onAbort = (): void => void machine.kill();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    void child.ended.then(() => {
      options.signal?.removeEventListener('abort', onAbort);
      process.removeListener('exit', onExit);
      // reads what is left of the console before its file goes
      machine.console();
      onExit();
    });
    if (options.signal?.aborted) onAbort();
    return machine;
  } catch (error) {
    await child?.kill();
    process.removeListener('exit', onExit);
    onExit();
    throw error;
  }
};

/** QEMU's arguments for these options. Makes the file of UEFI variables if it is missing. */
export const machineArguments = (options: MachineOptions, folder: string, consoleFile: string): string[] => {
  const { firmware = 'bios', boot = 'net', nics = [{}], disks = [], kernel } = options;
  const order = kernel || boot === 'firmware' ? 'none' : boot;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'std'],
    ...firmwareArguments(firmware, options.vars ?? join(folder, 'variables.fd')),
    ...acceleratorArguments(),
    ...['-m', `${options.memory ?? 1024}M`, '-smp', `${options.processors ?? 1}`],
    ...(options.uuid ? ['-uuid', options.uuid] : []),
    // EDK2 refuses its network stack without a random number generator since 2024
    ...['-device', 'virtio-rng-pci'],
    ...nicArguments(nics, { efi: firmware !== 'bios', bootIndex: order === 'net' ? 0 : undefined }),
    ...diskArguments(disks, order === 'net' ? nics.length : order === 'disk' ? 0 : undefined),
    ...(kernel ? ['-kernel', kernel.image] : []),
    ...(kernel?.initrd ? ['-initrd', kernel.initrd] : []),
    ...(kernel?.commandLine ? ['-append', kernel.commandLine] : []),
    ...[
      '-chardev',
      `socket,id=serial0,path=${folder}/serial,server=on,wait=off,logfile=${consoleFile},logappend=on`,
    ],
    ...['-serial', 'chardev:serial0'],
    ...['-qmp', `unix:${folder}/qmp,server=on,wait=off`],
    ...(options.qmp ? ['-qmp', `unix:${options.qmp},server=on,wait=off`] : []),
    // the end of the guest stops the machine, so that its disks' statistics can still be read
    ...['-S', '-action', 'reboot=shutdown,shutdown=pause,panic=pause'],
    ...(options.arguments ?? []),
  ];
};

const controlMachine = async (child: Child, folder: string, consoleFile: string): Promise<Machine> => {
  const consoleReader = readConsole(consoleFile);
  const guestEnd = Promise.withResolvers<string>();
  let exit: Promise<MachineExit> | undefined;
  const onEvent = ({ event, data }: QmpEvent): void => {
    if (event === 'SHUTDOWN') guestEnd.resolve(String(data['reason']));
    if (event === 'GUEST_PANICKED') guestEnd.resolve('guest-panic');
  };
  const connection = await connectQmp(`${folder}/qmp`, { onEvent, isAlive: child.isRunning }).catch(
    async (cause: unknown) => {
      await child.kill();
      throw new ImagingError('TOOL_FAILED', `Cannot start QEMU: ${child.output().trim()}`, { cause });
    },
  );

  const blockstats = async (): Promise<DiskStatistics[]> =>
    parseBlockstats(await connection.command('query-blockstats'));

  const end = async (): Promise<MachineExit> => {
    const reason = await Promise.race([guestEnd.promise, child.ended.then(() => 'killed')]);
    if (reason === 'killed') return { reason, disks: [] };
    const disks = await blockstats();
    await connection.command('quit');
    await child.ended;
    return { reason, disks };
  };
  exit = end();
  exit.catch(() => undefined);
  await connection.command('cont');

  return {
    folder,
    consoleFile,
    pid: child.pid,
    blockstats,
    kill: child.kill,
    console: consoleReader.text,
    qmp: connection.command,
    waitForExit: ({ timeoutMs = DEFAULT_TIMEOUT_MS } = {}) =>
      withTimeout(
        exit,
        timeoutMs,
        () => `no power-off or reboot in ${timeoutMs / 1000} s`,
        consoleReader.text,
      ),
    waitForConsole: async (pattern, { timeoutMs = DEFAULT_TIMEOUT_MS } = {}) => {
      const deadline = Date.now() + timeoutMs;
      for (;;) {
        const running = child.isRunning();
        const text = consoleReader.text();
        const match = pattern.exec(text);
        if (match) return match;
        requireKernel(consoleReader.text);
        if (!running)
          throw failure('TOOL_FAILED', `it ended without printing ${pattern}`, consoleReader.text);
        if (Date.now() > deadline) {
          throw failure('TOOL_TIMEOUT', `no ${pattern} in ${timeoutMs / 1000} s`, consoleReader.text);
        }
        await sleep(100);
      }
    },
    type: (text) => typeOn(`${folder}/serial`, text),
    screenshot: async (path) => {
      await connection.command('screendump', { filename: resolve(path), format: 'png' });
    },
  };
};

const withTimeout = async <T>(
  promise: Promise<T>,
  timeoutMs: number,
  reason: () => string,
  text: () => string,
): Promise<T> => {
  const ending = new AbortController();
  const watch = async (): Promise<never> => {
    const deadline = Date.now() + timeoutMs;
    while (Date.now() < deadline) {
      await sleep(Math.min(1000, deadline - Date.now()), undefined, { signal: ending.signal });
      requireKernel(text);
    }
    throw failure('TOOL_TIMEOUT', reason(), text);
  };
  try {
    return await Promise.race([promise, watch()]);
  } finally {
    ending.abort();
  }
};

/** A guest whose kernel has ended does nothing any more: no reason to wait for the time limit. */
const requireKernel = (text: () => string): void => {
  const panic = /Kernel panic - not syncing: .*/.exec(text())?.[0];
  if (panic) throw failure('TOOL_FAILED', `its kernel ended (${panic})`, text);
};

const failure = (code: 'TOOL_FAILED' | 'TOOL_TIMEOUT', reason: string, text: () => string): ImagingError =>
  new ImagingError(code, `Cannot wait for the machine: ${reason}`, {
    details: { console: text().slice(-3000) },
  });

const blockstatsSchema = z.array(
  z.object({
    qdev: z.string().optional(),
    stats: z.object({
      rd_operations: z.number(),
      wr_operations: z.number(),
      flush_operations: z.number(),
      rd_bytes: z.number(),
      wr_bytes: z.number(),
    }),
  }),
);

/** Statistics by disk, from QEMU's list, which also holds the firmware's flash. */
const parseBlockstats = (answer: unknown): DiskStatistics[] => {
  const disks: DiskStatistics[] = [];
  for (const { qdev, stats } of blockstatsSchema.parse(answer)) {
    // "/machine/peripheral/disk0/virtio-backend", "disk1", "/machine/peripheral/disk2/disk2.0/legacy[0]"
    const index = /(?:^|\/)disk(\d+)(?:\/|$)/.exec(qdev ?? '')?.[1];
    if (index === undefined) continue;
    disks[Number(index)] = {
      reads: stats.rd_operations,
      writes: stats.wr_operations,
      flushes: stats.flush_operations,
      readBytes: stats.rd_bytes,
      writtenBytes: stats.wr_bytes,
    };
  }
  return disks;
};

const typeOn = (path: string, text: string): Promise<void> =>
  new Promise((done, reject) => {
    const socket = createConnection(path, () => socket.end(text));
    // what the machine prints meanwhile is in the console file too; unread it would block the port
    socket.resume();
    socket.once('error', reject);
    socket.once('close', () => done());
  });
