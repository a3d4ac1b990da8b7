// The x402 project's JavaScript client on its file storage, which is killed and started again:
// node x402-file-client.mjs URL RPC KEY TOKEN CHAIN CALLS FOLDER MODEL
// It buys chats one after the other, beginning after those that FOLDER/received lists already.
import { x402Client, wrapFetchWithPayment } from "@x402/fetch";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { FileClientChannelStorage } from "@x402/evm/batch-settlement/client/file-storage";
import { createPublicClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { appendFileSync, existsSync, readFileSync } from "node:fs";

const [url, rpc, key, token, chain, calls, folder, model] = process.argv.slice(2);
const network = `eip155:${chain}`;
const account = privateKeyToAccount(key);
const reader = createPublicClient({ transport: http(rpc) });
const signer = {
  address: account.address,
  signTypedData: (message) => account.signTypedData(message),
  readContract: (call) => reader.readContract(call),
};
const scheme = new BatchSettlementEvmScheme(signer, {
  depositPolicy: { depositMultiplier: Number(calls) + 10 },
  storage: new FileClientChannelStorage({ directory: folder }),
});
const client = new x402Client().register(network, scheme);
client.setSpendControls?.({
  allowedAssets: [{ asset: token, network, maxAmountPerPayment: "10000000" }],
});
const paid = wrapFetchWithPayment(fetch, client);
const log = `${folder}/received`;
const done = existsSync(log) ? readFileSync(log, "utf8").split("\n").length - 1 : 0;
for (let n = done; n < Number(calls); n++) {
  for (;;) {
    const answer = await paid(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, messages: [{ role: "user", content: `Say ${n}.` }], max_tokens: 1 }),
    }).catch(() => null);
    if (answer?.status === 200 && (await answer.text())) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  appendFileSync(log, `${n}\n`);
}
