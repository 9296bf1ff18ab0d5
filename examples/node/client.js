// node client.js ADDRESS NODE_ID IDENTITY_FILE ACTOR [BASE_PORT]; see README.md.
"use strict";

const fs = require("node:fs");
const { Cluster, Npy, Rank, Tensor, readIdentity } = require("./actors.js");

async function main([address, nodeId, identity, actor, basePort]) {
  const cluster = await Cluster.join(address, nodeId, readIdentity(identity));
  try {
    console.log("json", JSON.stringify(await cluster.call(actor, "describe", { from: "Node.js" }, [1, 2, 3])));
    const doubled = await cluster.call(actor, "double", new Tensor(Float32Array.from([1, 2, 3, 4]), [2, 2]));
    console.log("tensor", JSON.stringify([...doubled.elements]), JSON.stringify(doubled.shape));
    const npy = await cluster.call(actor, "same", new Npy(fs.readFileSync(`${__dirname}/words.npy`)));
    console.log("numpy", npy.bytes.equals(fs.readFileSync(`${__dirname}/words.npy`)));
    try {
      await cluster.call(actor, "secret");
    } catch (error) {
      console.log("refused", error.code, error.details);
    }
  } finally {
    cluster.close();
  }
  if (basePort) {
    const rank = new Rank(1, Number(basePort));
    const sum = await rank.allreduce(new Tensor(Float64Array.from([1, 2, 3])));
    console.log("allreduce", JSON.stringify([...sum.elements]));
    rank.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
