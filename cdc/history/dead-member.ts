import {once} from 'node:events';
import {connect} from 'node:net';
import {kafkaClient} from '../kafka/client.ts';
import type {Settings} from '../settings/settings.ts';
import {quietLog} from '../test-support/quiet-log.ts';

const LEAVE_GROUP = 13;

/**
 * Takes the members of a killed process out of the consumer group, as the end of their session would some seconds
 * later: histories need not wait for it. (No client lets one member sign another off.)
 */
export async function removeDeadMembers(settings: Settings): Promise<void> {
  const admin = kafkaClient(settings, quietLog()).admin();
  await admin.connect();
  try {
    const {groups} = await admin.describeGroups([settings.FRESHET_CONSUMER_GROUP]);
    const {brokers} = await admin.describeCluster();
    for (const {memberId} of groups.flatMap(({members}) => members)) {
      // Only the group's coordinator listens to it.
      for (const {host, port} of brokers) {
        await request(host, port, leaveGroup(settings.FRESHET_CONSUMER_GROUP, memberId));
      }
    }
  } finally {
    await admin.disconnect();
  }
}

/** LeaveGroup, version 1: its header, the group and the member. */
function leaveGroup(group: string, member: string): Buffer {
  const text = (value: string): Buffer => {
    const bytes = Buffer.from(value);
    return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
  };
  const header = Buffer.from([0, LEAVE_GROUP, 0, 1, 0, 0, 0, 1]);
  const body = Buffer.concat([header, text('history'), text(group), text(member)]);
  const size = Buffer.alloc(4);
  size.writeInt32BE(body.length);
  return Buffer.concat([size, body]);
}

async function request(host: string, port: number, frame: Buffer): Promise<void> {
  const socket = connect(port, host);
  try {
    socket.write(frame);
    await once(socket, 'data', {signal: AbortSignal.timeout(5_000)});
  } finally {
    socket.destroy();
  }
}
