import { copyFileSync, existsSync } from 'node:fs';
import { ImagingError } from '../../../agent/errors.ts';

export const machineFirmwares = ['bios', 'uefi', 'secureboot'] as const;
export type MachineFirmware = (typeof machineFirmwares)[number];

// Debian package ovmf. `.ms.fd` variables hold Microsoft's keys, Secure Boot on; they need the build
// with SMM (`.secboot.fd`), because otherwise the guest could write the variables' flash itself.
const files = {
  uefi: { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  secureboot: {
    code: '/usr/share/OVMF/OVMF_CODE_4M.secboot.fd',
    variables: '/usr/share/OVMF/OVMF_VARS_4M.ms.fd',
  },
} as const;

/**
 * QEMU arguments for a firmware. UEFI variables live in `variables`, a file that is made from the
 * package's template if it is not there, and keeps boot entries from one boot to the next.
 *
 * @throws ImagingError TOOL_MISSING without the package ovmf
 */
export const firmwareArguments = (firmware: MachineFirmware, variables: string): string[] => {
  if (firmware === 'bios') return ['-machine', 'q35'];
  const { code, variables: template } = files[firmware];
  if (!existsSync(code)) {
    throw new ImagingError(
      'TOOL_MISSING',
      `Cannot start a UEFI machine: ${code} is not there (package ovmf)`,
    );
  }
  if (!existsSync(variables)) copyFileSync(template, variables);
  const secure = firmware === 'secureboot';
  return [
    ...['-machine', `q35${secure ? ',smm=on' : ''}`],
    ...(secure ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
    // OVMF with SMM cannot resume from S3 here (ovmf's README.Debian)
    ...(secure ? ['-global', 'ICH9-LPC.disable_s3=1'] : []),
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${escapeOption(code)}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${escapeOption(variables)}`],
  ];
};

/**
 * Emulation with a thread for each processor. Never KVM by itself: a host may offer /dev/kvm that
 * QEMU cannot use (seen: nested, "failed to set MSR 0x10a"), and tests mean the same on every host.
 * `FOG_VM_ACCELERATOR=kvm` asks for it.
 */
export const acceleratorArguments = (asked = process.env['FOG_VM_ACCELERATOR']): string[] =>
  asked === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,thread=multi', '-cpu', 'max,-avx,-avx2'];

/** A comma in a value ends it in QEMU's option syntax, unless doubled. */
export const escapeOption = (value: string): string => value.replaceAll(',', ',,');
