export interface ProbeResult {
  /** libblkid's name, empty for nothing recognised */
  type: string;
  uuid: string;
  label: string;
  /** several signatures on one device: nobody can say which is meant, so it is kept raw */
  ambiguous: boolean;
}
export declare const probe: (device: string, options?: { signal?: AbortSignal }) => Promise<ProbeResult>;
