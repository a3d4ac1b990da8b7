// What the Arweave ecosystem's own libraries say.
// Reads one JSON request from stdin and writes one JSON answer to stdout; bytes are base64url.
'use strict';

const { ArweaveSigner, Bundle, DataItem, EthereumSigner, bundleAndSignData, createData } = require('arbundles');
const Arweave = require('arweave');
const merkle = require('arweave/node/lib/merkle');

const bytes = (text) => Buffer.from(text, 'base64url');
const text = (data) => Buffer.from(data).toString('base64url');
const arweave = Arweave.init({});

// The same bytes as the Python side makes for a size.
const pattern = Buffer.from(Array.from({ length: 256 }, (_, i) => (i * 31 + 7) & 255));
const filled = (size) => Buffer.alloc(size, pattern);

async function readItem(raw) {
  const item = new DataItem(bytes(raw));
  return {
    valid: await DataItem.verify(bytes(raw)),
    id: item.id,
    owner: item.owner,
    tags: item.tags.map(({ name, value }) => [name, value]),
    data: text(item.rawData),
  };
}

async function readBundle(raw) {
  const bundle = new Bundle(bytes(raw));
  return { valid: await bundle.verify(), ids: bundle.items.map((item) => item.id) };
}

async function tree(size) {
  const { data_root, proofs } = await merkle.generateTransactionChunks(new Uint8Array(filled(size)));
  return { root: text(data_root), proofs: proofs.map(({ offset, proof }) => [offset, text(proof)]) };
}

async function makeItem(signer, { data, tags, target, anchor }) {
  const item = createData(bytes(data), signer, { tags: tags.map(([name, value]) => ({ name, value })), target, anchor });
  await item.sign(signer);
  return item;
}

async function makeTransaction(jwk, size, tags) {
  const attributes = { last_tx: text(Buffer.alloc(48, 9)), reward: '1234' };
  const tx = await arweave.createTransaction({ ...attributes, data: filled(size) }, jwk);
  for (const [name, value] of tags) tx.addTag(name, value);
  await arweave.transactions.sign(tx, jwk);
  return { ...tx.toJSON(), data: '' };
}

async function upload({ url, jwk, size, tags }) {
  const { hostname: host, port } = new URL(url);
  const gateway = Arweave.init({ host, port, protocol: 'http' });
  const tx = await gateway.createTransaction({ data: filled(size) }, jwk);
  for (const [name, value] of tags) tx.addTag(name, value);
  await gateway.transactions.sign(tx, jwk);
  const uploader = await gateway.transactions.getUploader(tx);
  while (!uploader.isComplete) await uploader.uploadChunk();
  const data = await gateway.transactions.getData(tx.id, { decode: true });
  const { status, confirmed } = await gateway.transactions.getStatus(tx.id);
  return { id: tx.id, same: filled(size).equals(Buffer.from(data)), status, confirmed };
}

async function answer(request) {
  if (request.upload) return upload(request.upload);
  const { items, bundles, transactions, sizes, make } = request;
  const signers = { ethereum: new EthereumSigner(make.ethereum), arweave: new ArweaveSigner(make.jwk) };
  const made = { items: [], transactions: [] };
  const all = [];
  for (const wanted of make.items) all.push(await makeItem(signers[wanted.signer], wanted));
  made.items = all.map((item) => text(item.getRaw()));
  made.bundle = text((await bundleAndSignData(all, signers.ethereum)).getRaw());
  for (const size of sizes) made.transactions.push(await makeTransaction(make.jwk, size, [['Größe', `${size} ☕`]]));
  return {
    made,
    items: await Promise.all(items.map(readItem)),
    bundles: await Promise.all(bundles.map(readBundle)),
    transactions: await Promise.all(
      transactions.map((tx) => arweave.transactions.verify(arweave.transactions.fromRaw(tx))),
    ),
    trees: await Promise.all(sizes.map(tree)),
  };
}

let input = '';
process.stdin.on('data', (part) => (input += part));
process.stdin.on('end', () =>
  answer(JSON.parse(input)).then(
    (result) => process.stdout.write(JSON.stringify(result)),
    (error) => {
      console.error(error);
      process.exitCode = 1;
    },
  ),
);
