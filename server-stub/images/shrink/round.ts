const MIB = 1024 * 1024;
const SHARE = 1024;

/**
 * Sizes of smaller versions are multiples of a power of two, at least 1 MiB and about a thousandth of the size:
 * models whose sizes differ by a few sectors then share a version. What is rounded off, a deploy grows into.
 */
export const roundDown = (bytes: number): number => Math.floor(bytes / grainOf(bytes)) * grainOf(bytes);

/** A size that is still enough after `roundDown`. */
export const roundUp = (bytes: number): number => Math.ceil(bytes / grainOf(bytes)) * grainOf(bytes);

const grainOf = (bytes: number): number => Math.max(MIB, 2 ** Math.floor(Math.log2(bytes / SHARE)));
