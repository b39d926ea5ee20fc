/**
 * JSON of one spelling, so that a signature survives re-indenting: keys sorted by code units, no space (RFC 8785; JavaScript's own
 * numbers and strings are already what it asks for). Members that are undefined are left out, as in JSON.
 */
export const canonicalJson = (value: unknown): string => JSON.stringify(sorted(value));

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, member]) => [name, sorted(member)]));
};
