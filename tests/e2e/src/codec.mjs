// Encrypts and decrypts payloads in format 1 with Node's own cryptography: a second opinion on the runtime's.
//
// Reads lines `{"do": "seal" | "open", "keys": {ID: BASE64}, "key": ID, "namespace", "metadata": {NAME: BASE64}, "data": BASE64}`
// and answers each with `{"metadata", "data"}` or `{"error"}`.
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

const bytes = (text) => Buffer.from(text, "base64");
const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)]);
const field = (tag, value) => Buffer.concat([Buffer.from([tag << 3 | 2, ...varint(value.length)]), value]);

// temporal.api.common.v1.Payload: a map of metadata (1) and data (2).
const encode = ({ metadata, data }) => Buffer.concat([
  ...Object.entries(metadata).map(([name, value]) => field(1, Buffer.concat([field(1, Buffer.from(name)), field(2, bytes(value))]))),
  field(2, bytes(data)),
]);

function fields(buffer) {
  const found = [];
  for (let at = 0; at < buffer.length;) {
    const tag = buffer[at++] >> 3;
    let length = 0, shift = 0, byte;
    do { byte = buffer[at++]; length |= (byte & 127) << shift; shift += 7; } while (byte & 128);
    found.push([tag, buffer.subarray(at, at += length)]);
  }
  return found;
}

function decode(buffer) {
  const payload = { metadata: {}, data: "" };
  for (const [tag, value] of fields(buffer)) {
    if (tag === 2) payload.data = value.toString("base64");
    else {
      const entry = Object.fromEntries(fields(value));
      payload.metadata[entry[1].toString()] = (entry[2] ?? Buffer.alloc(0)).toString("base64");
    }
  }
  return payload;
}

function associated(...values) {
  return Buffer.concat(values.flatMap((value) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(value.length));
    return [length, value];
  }));
}

function seal({ keys, key, namespace, metadata, data }) {
  const [format, id, encoding, ns] = ["1", key, "binary/encrypted", namespace].map((text) => Buffer.from(text));
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", bytes(keys[key]), nonce);
  cipher.setAAD(associated(format, id, encoding, ns));
  const sealed = Buffer.concat([nonce, cipher.update(encode({ metadata, data })), cipher.final(), cipher.getAuthTag()]);
  const outer = { encoding, "encryption-key-id": id, "encryption-format": format, "encryption-namespace": ns };
  const named = Object.entries(outer).map(([name, value]) => [name, value.toString("base64")]);
  return { metadata: Object.fromEntries(named), data: sealed.toString("base64") };
}

function open({ keys, metadata, data }) {
  const [format, id, encoding, ns] =
    ["encryption-format", "encryption-key-id", "encoding", "encryption-namespace"].map((name) => bytes(metadata[name]));
  const sealed = bytes(data);
  const cipher = createDecipheriv("aes-256-gcm", bytes(keys[id.toString()]), sealed.subarray(0, 12));
  cipher.setAAD(associated(format, id, encoding, ns));
  cipher.setAuthTag(sealed.subarray(-16));
  return decode(Buffer.concat([cipher.update(sealed.subarray(12, -16)), cipher.final()]));
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  let answer;
  try { answer = task.do === "seal" ? seal(task) : open(task); } catch (error) { answer = { error: String(error) }; }
  console.log(JSON.stringify(answer));
}
