/** Something that a viewer wants to know at once. `subject` is an id or name. */
export interface ServerEvent {
  kind: 'task' | 'progress' | 'host' | 'image' | 'upload';
  subject: string;
  data: Record<string, unknown>;
}

export interface EventHub {
  publish(event: ServerEvent): void;
  /** @returns a function that ends the subscription */
  subscribe(listener: (event: ServerEvent) => void): () => void;
}

/** Fan-out within this process. A listener must not throw and must not wait. */
export const createEventHub = (): EventHub => {
  const listeners = new Set<(event: ServerEvent) => void>();
  return {
    publish: (event) => {
      for (const listener of listeners) listener(event);
    },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
};
