export interface ReadOnlyMount extends AsyncDisposable {
  readonly path: string;
}
/** @throws ImagingError TOOL_FAILED: not a filesystem that this kernel mounts */
export declare const mountReadOnly: (
  device: string,
  type: string,
  options?: { signal?: AbortSignal },
) => Promise<ReadOnlyMount>;
