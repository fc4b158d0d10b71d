// Builds the page into the folder named by the first argument: three files that the server hands out under /phone.
import { build } from "esbuild";
import { cp, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2];
if (!out) throw new Error("say where to: node build.mjs FOLDER");
await mkdir(out, { recursive: true });
await build({
  entryPoints: [join(here, "page/page.ts")],
  outfile: join(out, "phone.js"),
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome110", "firefox115", "safari16.4"],
  define: { global: "window" },
  legalComments: "eof",
  logLevel: "warning",
});
for (const name of ["index.html", "phone.css"]) await cp(join(here, "page", name), join(out, name));
