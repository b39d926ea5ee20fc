import type { Identity, Inventory } from '../protocol/index.ts';

export declare const collectInventory: (options?: {
  identity?: Identity;
  signal?: AbortSignal;
}) => Promise<Inventory>;
