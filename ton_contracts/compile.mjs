// Compiles the contracts into build/*.json.
//
//   node compile.mjs            write the files
//   node compile.mjs --check    fail if a file differs from what the sources give
//
// Needs `npm ci` in this folder. The compiler's version is pinned in package.json, so the result is
// the same on every machine.

import { readFileSync, writeFileSync, mkdirSync, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const { runTolkCompiler, getTolkCompilerVersion } = createRequire(import.meta.url)('@ton/tolk-js')
const CONTRACTS = ['Registry', 'Node', 'Channel', 'Pck', 'System']

async function compile(name, version) {
  const result = await runTolkCompiler({
    entrypointFileName: `${name.toLowerCase()}/${name}.tolk`,
    fsReadCallback: (path) => readFileSync(join(here, 'contracts', path), 'utf8'),
  })
  if (result.status !== 'ok') {
    throw new Error(`${name}: ${result.message}`)
  }
  const document = {
    name,
    compiler: `tolk ${version}`,
    code_hash: result.codeHashHex.toLowerCase(),
    code: result.codeBoc64,
  }
  return JSON.stringify(document, null, 2) + '\n'
}

const check = process.argv.includes('--check')
const version = await getTolkCompilerVersion()
let stale = 0
mkdirSync(join(here, 'build'), { recursive: true })
for (const name of CONTRACTS) {
  const file = join(here, 'build', `${name}.json`)
  const text = await compile(name, version)
  const same = existsSync(file) && readFileSync(file, 'utf8') === text
  if (!check) {
    writeFileSync(file, text)
  } else if (!same) {
    stale += 1
  }
  console.log(`${name} ${JSON.parse(text).code_hash} ${check ? (same ? 'same' : 'DIFFERS') : 'written'}`)
}
process.exit(stale ? 1 : 0)
