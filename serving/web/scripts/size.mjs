// Fails where a first visit would load more than it may: everything that is built, gzipped. The sample photo is not in
// it: it is loaded when somebody asks for it.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT_KB = 150;
const folder = new URL("../../http/static/app", import.meta.url).pathname;

let total = 0;
for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || entry.name.endsWith(".jpg")) continue;
  const size = gzipSync(readFileSync(join(entry.parentPath, entry.name)), { level: 9 }).length;
  total += size;
  console.log(`${(size / 1000).toFixed(1).padStart(8)} kB gzipped  ${entry.name}`);
}
console.log(`${(total / 1000).toFixed(1).padStart(8)} kB gzipped  in all, of ${LIMIT_KB} kB`);
if (total > LIMIT_KB * 1000) {
  console.error("The page is too large for a first load.");
  process.exit(1);
}
