import { kernelArguments } from './kernel-arguments.ts';
import { parseNonce, parseServerUrl } from './words.ts';

/*
 * iPXE, ipxe.org/scripting. `exit 0` gives the machine back to its BIOS, which tries the next device.
 * UEFI takes a boot option that returned success for the end of booting and opens its setup (OVMF
 * 2022.11), so there it must be a failure: `exit 1`.
 */
const TO_DISK = [`iseq \${platform} efi && exit 1 ||`, 'exit 0'];

/** Nothing to do: on to the machine's own disk. */
export const diskScript = (): string => script('echo fog: nothing to do, starting from disk', ...TO_DISK);

/**
 * The first script of every machine, the same for all: it asks again with what only the machine knows.
 * A server that does not answer costs three tries, then the disk starts.
 */
export const askScript = (serverUrl: string): string => {
  const { url } = parseServerUrl(serverUrl);
  return script(
    'set tries:int32 0',
    ':ask',
    'inc tries',
    // comes back only if the server's script could not be had
    `chain --timeout 5000 --replace ${url}/boot/ipxe?mac=\${mac}&uuid=\${uuid} ||`,
    `iseq \${tries} 3 || sleep 1`,
    `iseq \${tries} 3 || goto ask`,
    `echo fog: ${url} does not answer, starting from disk`,
    ...TO_DISK,
  );
};

export interface AgentBoot {
  serverUrl: string;
  /** handle of the per-boot archive */
  nonce: string;
  mac?: string | undefined;
  kernelArguments?: readonly string[] | undefined;
}

/** A task: kernel, initramfs and the per-boot archive; if one of them fails, the disk. */
export const agentScript = (boot: AgentBoot): string => {
  const { url } = parseServerUrl(boot.serverUrl);
  const site = `${url}/boot/site/${parseNonce(boot.nonce)}.cpio`;
  // a kernel started by UEFI finds its archives by these names; by BIOS they are already in memory
  const names = ['initrd=initrd.img', 'initrd=site.cpio'];
  const words = [...names, ...kernelArguments(boot.mac, boot.kernelArguments)].join(' ');
  return script(
    'echo fog: starting the agent',
    'imgfree',
    `kernel ${url}/boot/vmlinuz ${words} || goto failed`,
    `initrd --name initrd.img ${url}/boot/initrd.img || goto failed`,
    `initrd --name site.cpio ${site} || goto failed`,
    'boot ||',
    ':failed',
    'echo fog: the agent could not be loaded, starting from disk in 10 s',
    'sleep 10',
    ...TO_DISK,
  );
};

const script = (...lines: string[]): string => ['#!ipxe', ...lines, ''].join('\n');
