// Other people's TypeScript on a development chain: `ton-lite-client` reads, a wallet of `@ton/ton` pays.
//
// Standard input: one JSON job (`config`, `registry`, `getter`, `seed`, `to`, `amount`, `packages`).
// Standard output, one JSON line each: {"wallet": address}, and, when money came and the payment is seen, the report.

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

const job = JSON.parse(readFileSync(0, 'utf8'))
const load = createRequire(job.packages)
const { Address, beginCell, internal, loadTransaction, Cell, SendMode } = load('@ton/core')
const { keyPairFromSeed } = load('@ton/crypto')
const { WalletContractV4, ElectorContract } = load('@ton/ton')
const { LiteClient, LiteRoundRobinEngine, LiteSingleEngine } = load('ton-lite-client')

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const say = (document) => process.stdout.write(JSON.stringify(document) + '\n')

const engines = job.config.liteservers.map((server) => new LiteSingleEngine({
  host: `tcp://${[24, 16, 8, 0].map((shift) => (server.ip >> shift) & 255).join('.')}:${server.port}`,
  publicKey: Buffer.from(server.id.key, 'base64'),
}))
const client = new LiteClient({ engine: new LiteRoundRobinEngine(engines) })

async function head() {
  return (await client.getMasterchainInfo()).last
}

async function balance(address) {
  return BigInt((await client.getAccountState(address, await head())).balance.coins)
}

async function until(what) {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    const found = await what()
    if (found) return found
    await sleep(100)
  }
  throw new Error('nothing happened within 30 s')
}

const keys = keyPairFromSeed(Buffer.from(job.seed, 'hex'))
const wallet = client.open(WalletContractV4.create({ workchain: 0, publicKey: keys.publicKey }))
say({ wallet: wallet.address.toRawString() })
await until(async () => (await balance(wallet.address)) > 0n)

const first = await head()
const registry = Address.parse(job.registry)
const account = await client.getAccountState(registry, first)
const getter = await client.provider(registry).get(job.getter, [])
const to = Address.parse(job.to)
await wallet.sendTransfer({
  seqno: await wallet.getSeqno(),
  secretKey: keys.secretKey,
  sendMode: SendMode.PAY_GAS_SEPARATELY,
  messages: [internal({ to, value: BigInt(job.amount), bounce: false, body: beginCell().endCell() })],
})
await until(async () => (await balance(to)) === BigInt(job.amount))
const paid = await client.getAccountState(wallet.address, await head())
const page = await client.getAccountTransactions(
  wallet.address, paid.lastTx.lt.toString(), Buffer.from(paid.lastTx.hash.toString(16).padStart(64, '0'), 'hex'), 10,
)
const transactions = Cell.fromBoc(page.transactions).map((cell) => loadTransaction(cell.beginParse()))
const elector = client.open(ElectorContract.create())
const config = await client.getConfig(await head())
const block = await client.getFullBlock((await head()).seqno)
say({
  head: first.seqno,
  balance: account.balance.coins.toString(),
  data: account.state.storage.state.state.data.toBoc().toString('base64'),
  getter: getter.stack.readNumber(),
  seqno: await wallet.getSeqno(),
  history: transactions.map((transaction) => transaction.lt.toString()),
  later: (await head()).seqno,
  time: await client.getCurrentTime(),
  version: (await client.getVersion()).version,
  elections: await elector.getActiveElectionId(),
  past_elections: (await elector.getPastElections()).length,
  config_address: config.configAddress.toString(16).padStart(64, '0'),
  shards: block.shards.length,
  pruned: (await client.getAccountStatePrunned(registry, first)).stateHash.toString('hex'),
  libraries: (await client.getLibraries([])).result.length,
})
process.exit(0)
