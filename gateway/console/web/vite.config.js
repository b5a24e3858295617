import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig } from "vite";

const out = "../static";

// aiohttp sends file.gz in place of file: no time is lost compressing on a small server
const compressed = {
  name: "compressed",
  closeBundle() {
    for (const folder of [out, join(out, "assets")]) {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg)$/.test(entry.name)) continue;
        const path = join(folder, entry.name);
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
      }
    }
  },
};

export default defineConfig({
  base: "./",
  build: { outDir: out, emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  plugins: [compressed],
});
