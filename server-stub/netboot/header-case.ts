import type { OutgoingHttpHeader, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/**
 * Write header names as `Content-Length`, not `content-length` as fastify does. GRUB 2.12 compares them
 * letter by letter (grub-core/net/http.c): without the length it waits 30 s for a connection that stays
 * open, and cannot load a kernel at all.
 */
export const withHeaderCase = (response: ServerResponse): void => {
  const setHeader = response.setHeader.bind(response);
  const writeHead = response.writeHead.bind(response);
  response.setHeader = (name: string, value: number | string | readonly string[]) =>
    setHeader(headerCase(name), value);
  response.writeHead = ((status: number, headers: OutgoingHttpHeaders = {}) =>
    writeHead(status, namesInCase(headers))) as ServerResponse['writeHead'];
};

const namesInCase = (headers: OutgoingHttpHeaders): Record<string, OutgoingHttpHeader | undefined> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [headerCase(name), value]));

const headerCase = (name: string): string =>
  name.replace(/(^|-)([a-z])/g, (_match, dash: string, letter: string) => `${dash}${letter.toUpperCase()}`);
