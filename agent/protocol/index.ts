export * from './agent-api.ts';
export * from './common.ts';
export * from './error.ts';
export * from './machine.ts';
export * from './manifest.ts';
export * from './plan.ts';
export * from './task.ts';
export * from './wipe.ts';
