/** The file that names Kafka's version and its jars. */
export const kafkaPom: URL;
/** The version in the pom, such as '4.4.0'. */
export function kafkaVersion(): string;
/** Where that version of Kafka is kept under the project root. */
export function kafkaHome(): URL;
/** The folder of Kafka's jars; it exists only when it is complete. */
export function kafkaJars(): URL;
/** Whether the Java on PATH can run Kafka, and what was found, in words for a message. */
export function findJava(): {usable: boolean; found: string};
/** Why Kafka cannot run here, in words for a message; undefined where it can. */
export function kafkaMissing(): string | undefined;
/** True when both the jars and a Java that runs them are there. */
export function kafkaInstalled(): boolean;
