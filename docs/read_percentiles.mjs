// Reads the percentiles of a result file with JavaScript's HdrHistogram, and holds them against those that are
// written in the file: exit code 1 where one differs by more than the histogram's resolution (a thousandth).
//
//     npm install hdr-histogram-js@3.0.1
//     node docs/read_percentiles.mjs results/FILE.json

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

// From where it is called, which is where npm installed the package.
const { decodeFromCompressedBase64 } = createRequire(resolve("package.json"))("hdr-histogram-js");

const RESOLUTION = 1e-3;
let checked = 0;
let different = 0;

function check(name, summary, histogram) {
  const reader = decodeFromCompressedBase64(histogram.data);
  for (const [key, written] of Object.entries(summary)) {
    const percentile = { max: 100 }[key] ?? Number(key.replace("_", ".").replace(/^p/, ""));
    if (written === null || Number.isNaN(percentile)) continue;
    const read = reader.getValueAtPercentile(percentile) / 1000;
    const same = Math.abs(read - written) <= RESOLUTION * written + 0.001;
    checked += 1;
    different += same ? 0 : 1;
    console.log(`${name} ${key}: ${written} ms in the file, ${read} ms read${same ? "" : "  DIFFERENT"}`);
  }
}

for (const path of process.argv.slice(2)) {
  JSON.parse(readFileSync(path, "utf8")).runs.forEach((run, index) => {
    check(`runs[${index}].latency_ms`, run.latency_ms, run.histogram);
    for (const [phase, histogram] of Object.entries(run.phase_histograms ?? {})) {
      check(`runs[${index}].phases_ms.${phase}`, run.phases_ms[phase], histogram);
    }
  });
}
console.log(`${checked} percentiles, ${different} different`);
process.exit(checked && !different ? 0 : 1);
