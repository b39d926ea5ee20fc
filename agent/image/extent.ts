/** A run of bytes that a filesystem uses, from the partition's first byte. */
export interface Extent {
  offset: number;
  length: number;
}
