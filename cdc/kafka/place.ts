/** One partition of a topic. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** Names it in maps; a topic's name has no slash. */
export const placeOf = (topic: string, partition: number): string => `${topic}/${partition}`;
