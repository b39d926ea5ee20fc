import { Writable } from 'node:stream';
import pino from 'pino';

export type Log = pino.Logger;

export interface LogSinks {
  /** a line for people, on the console */
  toConsole?: (line: string) => void;
  /** the whole record as JSON, for the server */
  toServer?: (line: string) => void;
}

/**
 * The agent's log: JSON records for the server, short lines for the console. Fields whose names say
 * that they hold a secret never leave.
 */
export const createLog = ({ toConsole, toServer }: LogSinks): Log => {
  const streams = [
    ...(toServer ? [{ level: 'debug' as const, stream: lines(toServer) }] : []),
    ...(toConsole ? [{ level: 'info' as const, stream: lines((line) => toConsole(forPeople(line))) }] : []),
  ];
  return pino(
    {
      level: 'debug',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // the cause beside the error: our messages say its words already
      serializers: { err: pino.stdSerializers.errWithCause },
      redact: {
        paths: ['token', 'session', 'key', 'password', '*.token', '*.session', '*.key', '*.password'],
        censor: '[secret]',
      },
    },
    pino.multistream(streams),
  );
};

const lines = (onLine: (line: string) => void): Writable =>
  new Writable({
    decodeStrings: false,
    write: (chunk, _encoding, done) => {
      onLine(String(chunk).trimEnd());
      done();
    },
  });

const forPeople = (json: string): string => {
  const { time, level, msg, err } = JSON.parse(json) as {
    time: string;
    level: number;
    msg?: string;
    err?: { message?: string };
  };
  const mark = level >= 50 ? 'ERROR ' : level >= 40 ? 'warning: ' : '';
  return `${time.slice(11, 19)} ${mark}${msg ?? ''}${err?.message ? ` (${err.message})` : ''}`;
};
