import type { Disk } from '../disk/disk.ts';
import { isImagingError } from '../errors.ts';
import type { run } from '../process/run.ts';
import type { HiddenArea } from '../protocol/index.ts';

export interface HiddenAreas {
  hpa: HiddenArea;
  dco: HiddenArea;
}

/**
 * Whether the drive hides sectors from the operating system: host protected area and device configuration overlay, which
 * only ATA has. What cannot be found out is `unknown`, with the reason.
 */
export const readHiddenAreas = async (disk: Disk, runTool: typeof run): Promise<HiddenAreas> => {
  if (disk.transport !== 'sata' && disk.transport !== 'ata') {
    const area: HiddenArea =
      disk.transport === 'usb'
        ? { state: 'unknown', detail: 'USB: its bridge does not pass the question on' }
        : { state: 'none', detail: 'only ATA drives have one' };
    return { hpa: area, dco: area };
  }
  const ask = async (option: string, parse: (text: string) => HiddenArea): Promise<HiddenArea> => {
    try {
      return parse((await runTool('hdparm', [option, disk.path])).stdout);
    } catch (error) {
      if (!isImagingError(error)) throw error;
      return { state: 'unknown', detail: error.message.slice(0, 400) };
    }
  };
  const hpa = await ask('-N', parseHpa);
  return { hpa, dco: await ask('--dco-identify', (text) => parseDco(text, disk.size / 512)) };
};

/** ` max sectors   = 1953525168/1953525168, HPA is disabled` (hdparm 9.65) */
export const parseHpa = (text: string): HiddenArea => {
  const [, visible, native, state] =
    /max sectors\s*=\s*(\d+)\/(\d+).*HPA (is enabled|is disabled)/.exec(text) ?? [];
  if (!visible || !native || !state) {
    return { state: 'unknown', detail: 'hdparm -N says nothing that can be relied on' };
  }
  const detail = `${visible} of ${native} sectors visible`;
  return { state: visible === native && state === 'is disabled' ? 'none' : 'present', detail };
};

/** `	Real max sectors: 1953525168` (hdparm 9.65); the drive's LBAs are those of 512 bytes on such old drives. */
export const parseDco = (text: string, visible: number): HiddenArea => {
  const real = /Real max sectors:\s*(\d+)/.exec(text)?.[1];
  if (real === undefined) return { state: 'unknown', detail: 'the drive does not tell' };
  const detail = `${visible} of ${real} sectors visible`;
  return { state: Number(real) > visible ? 'present' : 'none', detail };
};
