import type { PartitionRole } from '../protocol/index.ts';

export interface RoleFacts {
  /** GPT type GUID in lower case, or two hex digits of an MBR type */
  type: string;
  /** libblkid's name, empty for none */
  filesystem: string;
  /** an operating system was found inside */
  hasOs?: boolean;
}
export declare const roleOf: (facts: RoleFacts) => PartitionRole;
