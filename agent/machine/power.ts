export type PowerAction = 'reboot' | 'poweroff';
/** Sync, then restart or switch off at once. Resolves when the kernel was told. */
export declare const power: (action: PowerAction) => Promise<void>;
