/**
 * Largest frame of a chunk of so many plain bytes: a zstd frame of incompressible data is a little larger than
 * the data. In a file of its own because worker threads load it, and each would load zod along with the protocol.
 */
export const frameLimit = (chunkSize: number): number => chunkSize + (chunkSize >> 7) + 1024;
