// A client of an mlx-actors cluster: the schema, gRPC and a certificate are all it needs. See ../../docs/wire.md.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const tls = require("node:tls");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const SCHEMA = path.join(__dirname, "..", "..", "proto", "distributed_comm.proto");
const LARGEST = 512 * 1024 * 1024;
const OPTIONS = { "grpc.max_send_message_length": LARGEST, "grpc.max_receive_message_length": LARGEST };

const { DistributedComm } = grpc.loadPackageDefinition(
  loader.loadSync(SCHEMA, { keepCase: true, longs: Number, oneofs: true }),
).distributed_comm;

const DTYPES = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, float32: Float32Array, float64: Float64Array,
};

/** An array: elements in a typed array, in C order, and the lengths of its axes. */
class Tensor {
  constructor(elements, shape = [elements.length]) {
    this.dtype = Object.keys(DTYPES).find((name) => elements instanceof DTYPES[name]);
    if (!this.dtype) throw new TypeError("elements must be a typed array");
    if (shape.reduce((product, length) => product * length, 1) !== elements.length) {
      throw new RangeError(`${elements.length} elements do not have the shape [${shape}]`);
    }
    this.elements = elements;
    this.shape = shape;
  }

  toData() {
    const { buffer, byteOffset, byteLength } = this.elements;
    return { data: Buffer.from(buffer, byteOffset, byteLength), shape: this.shape, dtype: this.dtype };
  }

  static fromData({ data, shape, dtype }) {
    const kind = DTYPES[dtype];
    if (!kind) throw new TypeError(`this client has no typed array for ${dtype}`);
    const bytes = new Uint8Array(data); // a copy, since a view must begin at a multiple of the element's size
    return new Tensor(new kind(bytes.buffer), shape.map(Number));
  }
}

/** The bytes of a .npy file, for dtypes that have no typed array. */
class Npy {
  constructor(bytes) {
    this.bytes = Buffer.from(bytes);
  }
}

function toCommData(value) {
  if (value instanceof Tensor) return { comm_type: "tensor", tensor_data: value.toData() };
  if (value instanceof Npy) return { comm_type: "numpy", numpy_data: value.bytes };
  return { comm_type: "json", json_data: JSON.stringify(value) };
}

function fromCommData(data) {
  switch (data.data) {
    case "tensor_data": return Tensor.fromData(data.tensor_data);
    case "numpy_data": return new Npy(data.numpy_data);
    default: return JSON.parse(data.json_data);
  }
}

/** A device's id: lowercase base32 of the sha256 of its public key. */
function nodeIdOf(certificate) {
  const key = certificate.publicKey.export({ type: "spki", format: "der" });
  const bits = [...crypto.createHash("sha256").update(key).digest()].map((b) => b.toString(2).padStart(8, "0")).join("");
  return bits.match(/.{1,5}/g).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)]).join("");
}

/** Fetches the certificate that is shown at a door, and makes sure that it is that of the device which is meant. */
function certificateAt(address, nodeId, identity) {
  const [, host, port] = address.match(/^\[?(.*?)\]?:(\d+)$/);
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host, port, key: identity, cert: identity, rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () => {
      const shown = new crypto.X509Certificate(socket.getPeerCertificate().raw);
      socket.destroy();
      if (nodeIdOf(shown) === nodeId) resolve(shown.toString());
      else reject(new Error(`at ${address} is another device: ${nodeIdOf(shown)}`));
    });
    socket.once("error", reject);
  });
}

/** Calls public methods of named actors at the door of any node. */
class Cluster {
  constructor(stub) {
    this.stub = stub;
  }

  /**
   * @param address of a node's door, "HOST:PORT".
   * @param nodeId its id, as `actors list nodes --json` shows both.
   * @param identity contents of this device's identity.pem: a certificate that the cluster trusts, and its key.
   */
  static async join(address, nodeId, identity) {
    const root = await certificateAt(address, nodeId, identity);
    const credentials = grpc.credentials.createSsl(Buffer.from(root), identity, identity);
    return new Cluster(
      new DistributedComm(address, credentials, { ...OPTIONS, "grpc.ssl_target_name_override": nodeId }),
    );
  }

  /** Calls a method that its class has marked with @actors.method(public=True). */
  call(actor, method, ...args) {
    const request = { actor, method, arguments: args.map(toCommData) };
    return new Promise((resolve, reject) => {
      this.stub.Call(request, { deadline: Date.now() + 30_000 }, (error, reply) => {
        if (error) reject(error);
        else resolve(fromCommData(reply.value));
      });
    });
  }

  close() {
    this.stub.close();
  }
}

/** One rank of a job of actors.communicator, for the calls that rank 0 serves. */
class Rank {
  constructor(rank, basePort = 50100) {
    this.rank = rank;
    this.stub = new DistributedComm(`127.0.0.1:${basePort}`, grpc.credentials.createInsecure(), OPTIONS);
  }

  /** Reduces a tensor with those of all other ranks; operation is sum, product, min, max or mean. */
  allreduce(tensor, operation = "sum") {
    const request = { rank: this.rank, tensor: tensor.toData(), operation };
    return new Promise((resolve, reject) => {
      this.stub.AllReduce(request, { deadline: Date.now() + 30_000 }, (error, reply) => {
        if (error) reject(error);
        else resolve(Tensor.fromData(reply.result));
      });
    });
  }

  close() {
    this.stub.close();
  }
}

module.exports = { Cluster, Npy, Rank, Tensor, readIdentity: (file) => fs.readFileSync(file) };
