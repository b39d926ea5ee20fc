/** Boot loaders in the artefacts folder, each as Debian ships it, and what asks for it. */
export const bootLoaders = [
  // UEFI, with and without Secure Boot: shim, signed by Microsoft, then GRUB, signed by Debian
  'shimx64.efi',
  'grubx64.efi',
  // BIOS: iPXE over the card's own PXE driver
  'undionly.kpxe',
  // UEFI without Secure Boot, for networks that have always used iPXE
  'snponly.efi',
  'ipxe.efi',
] as const;
export type BootLoader = (typeof bootLoaders)[number];

export const kernelFile = 'vmlinuz';
export const initrdFile = 'initrd.img';
