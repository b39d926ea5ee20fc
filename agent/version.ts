/** Replaced by the bundler with the version of package.json and the source's hash. */
declare const FOG_AGENT_VERSION: string | undefined;

export const agentVersion: string = typeof FOG_AGENT_VERSION === 'string' ? FOG_AGENT_VERSION : 'from source';
